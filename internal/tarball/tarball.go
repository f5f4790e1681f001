// Package tarball writes and indexes container tars: tars whose members are
// blobs and documents rather than a file tree. It knows nothing of images.
//
// A Plan fixes every member's place before the first byte is written, so a
// tar can be filled in parallel and its size told exactly. Headers are the
// same for the same names and sizes: mode 0444, owner 0:0, time zero, USTAR
// where it fits and PAX where it does not.
package tarball

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// Member is one file of a tar that will be written.
type Member struct {
	Name string
	Size int64
	// Open gives exactly Size bytes; the writer closes it. It is called once,
	// from any goroutine.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Bytes is a member with its content in memory.
func Bytes(name string, data []byte) Member {
	return Member{Name: name, Size: int64(len(data)), Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

// Plan is a tar that is laid out and not yet written.
type Plan struct {
	members []Member
	headers [][]byte
	offsets []int64 // of each member's header
	size    int64
	end     int64 // bytes of end blocks
}

// blockSize is the unit of a tar; its end is two empty blocks.
const (
	blockSize = 512
	endSize   = 2 * blockSize
)

// NewPlan lays out members in the order given. A name or size that no tar can
// hold is an error.
func NewPlan(members []Member) (*Plan, error) {
	p := &Plan{members: members, end: endSize}
	for _, m := range members {
		h, err := Header(m.Name, m.Size)
		if err != nil {
			return nil, err
		}
		if m.Size > math.MaxInt64-2*blockSize-int64(len(h))-endSize-p.size {
			return nil, fmt.Errorf("tar header of %q: all sizes together are beyond 64 bits", m.Name)
		}
		p.headers = append(p.headers, h)
		p.offsets = append(p.offsets, p.size)
		p.size += int64(len(h)) + padded(m.Size)
	}
	p.size += endSize
	return p, nil
}

// Front is the plan without the end of the tar, for whoever writes more
// members behind it.
func (p *Plan) Front() *Plan {
	front := *p
	front.size, front.end = p.size-p.end, 0
	return &front
}

// Header is what stands before the content of a member. Behind the content
// stands Padding, and behind the last member End.
func Header(name string, size int64) ([]byte, error) {
	var buf bytes.Buffer
	err := tar.NewWriter(&buf).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o444, ModTime: time.Unix(0, 0)})
	if err != nil {
		return nil, fmt.Errorf("tar header of %q: %w", name, err)
	}
	return buf.Bytes(), nil
}

// Padding is the zeros that fill up content of that size.
func Padding(size int64) []byte { return make([]byte, padded(size)-size) }

// End is the two empty blocks at the end of a tar.
func End() []byte { return make([]byte, endSize) }

func padded(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// Size is the length in bytes of all that is written.
func (p *Plan) Size() int64 { return p.size }

// Offset is where the content of member i will lie.
func (p *Plan) Offset(i int) int64 { return p.offsets[i] + int64(len(p.headers[i])) }

// ErrShort reports a member that gave fewer bytes than planned, ErrLong one
// that gave more.
var (
	ErrShort = errors.New("content is shorter than planned")
	ErrLong  = errors.New("content is longer than planned")
)
