package manifests

import (
	"fmt"
	"strings"

	"github.com/imgpack/imgpack/internal/quote"
)

// Kind names what is wrong with content. The words are stable: they appear in
// JSON output.
type Kind string

// The kinds of bad content.
const (
	KindDigest     Kind = "digest"      // bytes do not hash to the digest that names them
	KindSize       Kind = "size"        // more or fewer bytes than the descriptor says
	KindTruncated  Kind = "truncated"   // the stream ended early
	KindDiffID     Kind = "diff-id"     // a layer's tar does not hash to its diffID
	KindUnsafePath Kind = "unsafe-path" // an archive entry points outside its tree
	KindLimit      Kind = "limit"       // a bound on size, count or depth is passed
	KindMalformed  Kind = "malformed"   // not what the format says
	KindMissing    Kind = "missing"     // something referred to is not there

	// KindUnsupported is for reports, of what could not be looked into; as an
	// error it is an UnsupportedError.
	KindUnsupported Kind = "unsupported"
)

// ContentError reports content that is at fault: damaged, forged, out of
// bounds or malformed. It is never used for a failure to read.
type ContentError struct {
	Kind    Kind
	Subject string // what is bad, for people: "layer 3 of 7 sha256:…", "manifest.json"
	Err     error  // why
}

func (e *ContentError) Error() string {
	if e.Subject == "" {
		return e.Err.Error()
	}
	return e.Subject + ": " + e.Err.Error()
}

func (e *ContentError) Unwrap() error { return e.Err }

// Bad returns a ContentError with a formatted reason.
func Bad(kind Kind, subject, format string, args ...any) error {
	return &ContentError{Kind: kind, Subject: subject, Err: fmt.Errorf(format, args...)}
}

// NotFoundError reports that a source answered, and does not hold what was
// asked for.
type NotFoundError struct {
	Subject string   // what was looked for: `image "ngnix:1.27"`
	In      string   // where: "site.imgpack", "registry.example.com"
	Have    []string // what there is instead, for suggestions; may be empty
}

func (e *NotFoundError) Error() string {
	s := "no " + e.Subject
	if e.In != "" {
		s += " in " + e.In
	}
	return s
}

// ConflictError reports that something in the way must not be replaced
// without being told to: an output file, a tag that names another digest.
type ConflictError struct {
	Subject string
	Err     error
}

func (e *ConflictError) Error() string { return e.Subject + ": " + e.Err.Error() }
func (e *ConflictError) Unwrap() error { return e.Err }

// UnsupportedError reports a well-formed thing this program does not handle.
type UnsupportedError struct {
	Subject string
	Reason  string
}

func (e *UnsupportedError) Error() string { return e.Subject + ": " + e.Reason }

// InputError reports text typed by the user that does not parse: a name, a
// reference, a platform.
type InputError struct {
	What  string // "reference", "platform"
	Input string
	Why   string
}

func (e *InputError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s is not valid: %s", e.What, quote.Text(e.Input), e.Why)
	return b.String()
}
