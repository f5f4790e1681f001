package registry

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestUploadBodyGivesEveryByteOnceProven(t *testing.T) {
	data := []byte("the whole of the content")
	for _, size := range []int{0, 1, 2, 3, len(data)} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"plain": func(r io.Reader) io.Reader { return r },
			"byte":  iotest.OneByteReader,
			"half":  iotest.HalfReader,
			"eof":   iotest.DataErrReader,
		} {
			for _, buffer := range []int{1, 2, 7, 100} {
				var told int64
				b := &uploadBody{source: io.NopCloser(wrap(bytes.NewReader(data[:size]))), seen: &highWater{report: func(n int64) { told += n }}}
				got, err := readBy(b, buffer)
				if err != io.EOF || !bytes.Equal(got, data[:size]) || told != int64(size) {
					t.Errorf("%s, %d bytes by %d: %q, %v, told of %d", name, size, buffer, got, err, told)
				}
			}
		}
	}
}

func TestUploadBodyKeepsTheLastByteOfBadContent(t *testing.T) {
	data := []byte("the whole of the content")
	bad := errors.New("wrong digest")
	for _, buffer := range []int{1, 2, 7, 100} {
		b := &uploadBody{source: io.NopCloser(io.MultiReader(bytes.NewReader(data), iotest.ErrReader(bad))), seen: &highWater{}}
		got, err := readBy(b, buffer)
		if !errors.Is(err, bad) || len(got) >= len(data) || b.failure() != bad {
			t.Errorf("by %d: %d bytes, %v", buffer, len(got), err)
		}
	}
}

func TestUploadBodyIsUsedOnce(t *testing.T) {
	b := &uploadBody{source: io.NopCloser(bytes.NewReader([]byte("x"))), seen: &highWater{}}
	if !b.take() || b.take() {
		t.Error("taken twice, or not at all")
	}
	b.Close()
	if _, err := b.Read(make([]byte, 9)); !errors.Is(err, errUsedBody) {
		t.Error("read after Close:", err)
	}
	if b.failure() != nil {
		t.Error("use after Close is blamed on the source")
	}
}

func readBy(r io.Reader, size int) (all []byte, err error) {
	p := make([]byte, size)
	for {
		n, err := r.Read(p)
		all = append(all, p[:n]...)
		if err != nil {
			return all, err
		}
	}
}
