// Package codec opens compressed streams safely, and writes them on all cores.
// It knows nothing of images.
package codec

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/imgpack/imgpack/internal/gunzip"
)

// Format is a compression format.
type Format string

// The formats.
const (
	None Format = "none"
	Gzip Format = "gzip"
	Zstd Format = "zstd"
)

// DefaultWindow bounds the memory a zstd frame may ask for, in bytes: what
// `zstd --long=27`, the largest that decoders accept unasked, writes.
const DefaultWindow = 128 << 20

// MaxWindow is the largest window that Options.Window can allow: what
// `zstd --ultra --long=31` writes.
const MaxWindow = 2 << 30

// ErrWindow is in the *FormatError of a zstd frame that asks for more memory
// than it may.
var ErrWindow = errors.New("it asks for a larger window than is allowed")

// SniffLen is how many bytes Sniff looks at.
const SniffLen = 4

// Sniff names the format of a stream by its first bytes. What is neither gzip
// nor zstd is None. Zstandard's skippable frames count as zstd.
func Sniff(head []byte) Format {
	switch {
	case len(head) >= 2 && head[0] == 0x1f && head[1] == 0x8b:
		return Gzip
	case len(head) >= 4 && bytes.Equal(head[1:4], []byte{0xb5, 0x2f, 0xfd}) && head[0] == 0x28,
		len(head) >= 4 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}) && head[0]&0xf0 == 0x50:
		return Zstd
	}
	return None
}

// FormatError reports a stream that is not what its format says.
type FormatError struct {
	Format Format
	Err    error
}

func (e *FormatError) Error() string { return fmt.Sprintf("%s: %v", e.Format, e.Err) }
func (e *FormatError) Unwrap() error { return e.Err }

// NewReader returns the content of r, which is in the given format. Gzip
// members and zstd frames that follow one another are joined. Once the content
// has ended r is read to its end, so that a hash taken of r covers every byte:
// NULs may follow a gzip stream, anything else is a *FormatError, and so is a
// stream that is cut (wrapping io.ErrUnexpectedEOF) or empty. Errors of r
// itself are returned as they are. The first error is sticky.
//
// Memory is 9 MiB for gzip, or at most 12 MiB for each of up to four cores where
// a stream can be decoded on several; for zstd it is what the stream asks for, at
// most some 140 MiB; real layers ask for 8 MiB or less. Gzip is decoded beside the
// caller, but r is read only while Read is called. The reader must be closed,
// which frees it and does not close r. Format None is r itself.
func NewReader(r io.Reader, format Format) (io.ReadCloser, error) {
	return NewReaderOptions(r, format, Options{})
}

// Options of a decompressor. The zero value works.
type Options struct {
	Window int64 // bytes of memory a zstd stream may ask for; 0 means DefaultWindow
	Jobs   int   // cores that decode a gzip stream at most; 0 means all, and what gunzip.MaxJobs allows
}

// NewReaderOptions is NewReader with options.
func NewReaderOptions(r io.Reader, format Format, o Options) (io.ReadCloser, error) {
	window := o.Window
	if window <= 0 {
		window = DefaultWindow
	}
	src := &source{r: r}
	switch format {
	case None:
		return io.NopCloser(r), nil
	case Gzip:
		z := gunzip.NewReader(src, gunzip.Options{Jobs: o.Jobs, Beside: o.Jobs == 1})
		return &reader{src: src, format: Gzip, r: z, close: func() { z.Close() }}, nil
	case Zstd:
		z, err := zstd.NewReader(src, zstd.WithDecoderMaxWindow(uint64(min(max(window, zstd.MinWindowSize), MaxWindow))), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, src.blame(Zstd, err)
		}
		return &reader{src: src, format: Zstd, r: z, close: z.Close}, nil
	}
	return nil, fmt.Errorf("unknown compression %q", format)
}

// source remembers how the stream below went, to tell its errors from those of
// the format.
type source struct {
	r     io.Reader
	begun bool
	err   error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.begun = s.begun || n > 0
	if err != nil && err != io.EOF && s.err == nil {
		s.err = err
	}
	return n, err
}

// blame says what an error of the decoder means to the caller.
func (s *source) blame(format Format, err error) error {
	switch {
	case errors.Is(err, gunzip.ErrFormat): // though r, read ahead, may have failed since
	case s.err != nil:
		return s.err
	case err == io.EOF && s.begun:
		return err
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		err = ErrWindow // of a frame in one segment, that is its size
	}
	return &FormatError{format, err}
}

type reader struct {
	src    *source
	format Format
	r      io.Reader
	close  func()
	err    error // sticky
}

func (d *reader) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.r.Read(p)
	if err != nil {
		d.err = d.src.blame(d.format, err)
	}
	return n, d.err
}

var errClosed = errors.New("read of a closed decompressor")

func (d *reader) Close() error {
	if d.close != nil {
		d.close()
		d.close, d.err = nil, errClosed
	}
	return nil
}
