// Package codec opens compressed streams safely, and writes them on all cores.
// It knows nothing of images.
package codec

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Format is a compression format.
type Format string

// The formats.
const (
	None Format = "none"
	Gzip Format = "gzip"
	Zstd Format = "zstd"
)

// maxWindow bounds the memory a zstd frame may ask for, in bytes: what
// `zstd --long=27`, the largest that decoders accept unasked, writes.
const maxWindow = 128 << 20

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
// Memory is 0.3 MiB for gzip, and for zstd what the stream asks for, at most
// some 140 MiB; real layers ask for 8 MiB or less. Closing the reader frees
// it and does not close r. Format None is r itself.
func NewReader(r io.Reader, format Format) (io.ReadCloser, error) {
	src := &source{r: r}
	switch format {
	case None:
		return io.NopCloser(r), nil
	case Gzip:
		return newGzip(src)
	case Zstd:
		z, err := zstd.NewReader(src, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
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
	case s.err != nil:
		return s.err
	case err == io.EOF && s.begun:
		return err
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
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

func newGzip(src *source) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(src, 256<<10)
	z, err := gzip.NewReader(in)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, src.blame(Gzip, err)
	}
	z.Multistream(false)
	return &reader{src: src, format: Gzip, r: &members{in: in, z: z}, close: func() { z.Close() }}, nil
}

// members reads gzip members one after another, and what pads the last.
type members struct {
	in *bufio.Reader
	z  *gzip.Reader
}

func (m *members) Read(p []byte) (int, error) {
	for {
		n, err := m.z.Read(p)
		if err != io.EOF || n > 0 {
			if err == io.EOF {
				err = nil // of this member
			}
			return n, err
		}
		if head, _ := m.in.Peek(2); Sniff(head) != Gzip {
			return 0, m.padding()
		}
		if err := m.z.Reset(m.in); err != nil {
			return 0, err
		}
		m.z.Multistream(false)
	}
}

var errTrailing = errors.New("data follows the end of the stream")

// padding reads NULs up to the end of the stream.
func (m *members) padding() error {
	for {
		b, err := m.in.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return errTrailing
		}
	}
}
