package manifests

import (
	"errors"
	"io"
	"testing"
)

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		text string
	}{
		{Bad(KindSize, "layer 1", "%d is %w", 3, io.ErrShortWrite), "layer 1: 3 is short write"},
		{Bad(KindSize, "", "why"), "why"},
		{&NotFoundError{Subject: `image "x"`}, `no image "x"`},
		{&NotFoundError{Subject: `image "x"`, In: "site.imgpack"}, `no image "x" in site.imgpack`},
		{&ConflictError{Subject: "x.tar", Err: io.ErrShortWrite}, "x.tar: short write"},
		{&UnsupportedError{Subject: "x", Reason: "too new"}, "x: too new"},
		{&InputError{What: "platform", Input: "\x1b", Why: "no"}, `platform "\x1b" is not valid: no`},
	} {
		if c.err.Error() != c.text {
			t.Errorf("%q, want %q", c.err, c.text)
		}
	}
	for _, err := range []error{Bad(KindSize, "x", "%w", io.ErrShortWrite), &ConflictError{Subject: "x", Err: io.ErrShortWrite}} {
		if !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("%v hides its cause", err)
		}
	}
}
