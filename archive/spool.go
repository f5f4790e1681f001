package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/manifests"
)

// input is a file that can be read at random.
type input struct {
	name  string // for messages; safe to print
	r     io.ReaderAt
	size  int64
	close func() error
}

// tarBlock is the unit of a tar, and the least there can be of one.
const tarBlock = 512

func (in *input) head() ([]byte, error) {
	if in.size < tarBlock {
		var b [codec.SniffLen]byte
		n, _ := in.r.ReadAt(b[:min(in.size, codec.SniffLen)], 0)
		if codec.Sniff(b[:n]) != codec.None {
			return b[:n], nil // little can unpack to much
		}
		return nil, manifests.Bad(manifests.KindTruncated, in.name, "%d bytes are too few for an archive of images", in.size)
	}
	head := make([]byte, tarBlock)
	if _, err := in.r.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("read %s: %w", in.name, err)
	}
	return head, nil
}

func (in *input) unsupported(reason string) error {
	return &manifests.UnsupportedError{Subject: in.name, Reason: reason}
}

// isTar reports whether a tar can begin with the block head: with a header, or
// with the end of an empty one.
func isTar(head []byte) bool {
	if len(head) < tarBlock {
		return false
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil || err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)
}

// maxRatio and unboundedSize bound what a compressed archive unpacks to: a file
// may grow a thousandfold, which is the most that gzip can do to honest zeros,
// only while it is small.
const maxRatio = 1000

var unboundedSize int64 = 1 << 30

// spool copies r, which is in the given format, into a file in dir that has no
// name and so is gone when it is closed, whatever happens.
func spool(ctx context.Context, dir, name string, r io.Reader, format codec.Format) (*input, error) {
	in := &countingReader{r: ctxReader{ctx, r}}
	plain, err := codec.NewReader(in, format)
	if err != nil {
		return nil, unpackError(name, err)
	}
	defer plain.Close()
	f, err := atomicfile.Unnamed(dir)
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", name, err)
	}
	n, err := fill(f, plain, in, name, format)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &input{name: name, r: f, size: n, close: f.Close}, nil
}

func fill(f *os.File, plain io.Reader, in *countingReader, name string, format codec.Format) (int64, error) {
	var size int64
	buf := make([]byte, copyBuffer)
	for {
		n, err := plain.Read(buf)
		if _, werr := f.Write(buf[:n]); werr != nil {
			return 0, fmt.Errorf("unpack %s: %w", name, werr)
		}
		size += int64(n)
		if format != codec.None && size > unboundedSize && size/maxRatio > in.n {
			return 0, manifests.Bad(manifests.KindLimit, name, "%s content grows more than %d times", format, maxRatio)
		}
		if err == io.EOF {
			return size, nil
		}
		if err != nil {
			return 0, unpackError(name, err)
		}
	}
}

func unpackError(name string, err error) error {
	var bad *codec.FormatError
	if !errors.As(err, &bad) {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	kind := manifests.KindMalformed
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		kind = manifests.KindTruncated
	}
	return &manifests.ContentError{Kind: kind, Subject: name, Err: bad}
}

// copyBuffer is how much is read and written at a time. Each job holds one.
const copyBuffer = 1 << 20

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// ctxReader ends with the error of a cancelled context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// blobReader gives r to VerifyReader: it ends when ctx does, and closes c.
func blobReader(ctx context.Context, r io.Reader, c io.Closer) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{ctxReader{ctx, r}, c}
}
