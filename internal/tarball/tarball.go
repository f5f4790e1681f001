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
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
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
}

// blockSize is the unit of a tar; its end is two empty blocks.
const blockSize = 512

// NewPlan lays out members in the order given.
func NewPlan(members []Member) (*Plan, error) {
	p := &Plan{members: members}
	for _, m := range members {
		h, err := header(m)
		if err != nil {
			return nil, fmt.Errorf("tar header of %q: %w", m.Name, err)
		}
		p.headers = append(p.headers, h)
		p.offsets = append(p.offsets, p.size)
		p.size += int64(len(h)) + padded(m.Size)
	}
	p.size += 2 * blockSize
	return p, nil
}

func header(m Member) ([]byte, error) {
	var buf bytes.Buffer
	err := tar.NewWriter(&buf).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m.Name, Size: m.Size, Mode: 0o444, ModTime: time.Unix(0, 0)})
	return buf.Bytes(), err
}

func padded(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// Size is the length of the whole tar in bytes.
func (p *Plan) Size() int64 { return p.size }

// ErrShort reports a member that gave fewer bytes than planned, ErrLong one
// that gave more.
var (
	ErrShort = errors.New("content is shorter than planned")
	ErrLong  = errors.New("content is longer than planned")
)

// Write writes the tar in order, for pipes.
func (p *Plan) Write(ctx context.Context, w io.Writer) error {
	buf := make([]byte, bufferSize)
	for i, m := range p.members {
		if _, err := w.Write(p.headers[i]); err != nil {
			return err
		}
		if err := p.copy(ctx, w, m, buf); err != nil {
			return fmt.Errorf("write %s: %w", m.Name, err)
		}
		if _, err := w.Write(make([]byte, padded(m.Size)-m.Size)); err != nil {
			return err
		}
	}
	_, err := w.Write(make([]byte, 2*blockSize))
	return err
}

// WriteAt writes the tar into w, which reads as zeros wherever nothing is
// written, jobs members at a time, the largest first, so that none is left
// alone at the end; each goes straight to its place. Memory is jobs × 1 MiB.
// The result is the same bytes as Write's. The first error stops all.
func (p *Plan) WriteAt(ctx context.Context, w io.WriterAt, jobs int) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(max(jobs, 1))
	for _, i := range p.largestFirst() {
		m := p.members[i]
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if _, err := w.WriteAt(p.headers[i], p.offsets[i]); err != nil {
				return err
			}
			out := io.NewOffsetWriter(w, p.offsets[i]+int64(len(p.headers[i])))
			if err := p.copy(gctx, out, m, make([]byte, min(bufferSize, max(m.Size, 1)))); err != nil {
				return fmt.Errorf("write %s: %w", m.Name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := w.WriteAt(make([]byte, 2*blockSize), p.size-2*blockSize)
	return err
}

func (p *Plan) largestFirst() []int {
	order := make([]int, len(p.members))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p.members[b].Size, p.members[a].Size) })
	return order
}

const bufferSize = 1 << 20

func (p *Plan) copy(ctx context.Context, w io.Writer, m Member, buf []byte) (err error) {
	r, err := m.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	var n int64
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		k, rerr := r.Read(buf)
		if n += int64(k); n > m.Size {
			return ErrLong
		}
		if _, err := w.Write(buf[:k]); err != nil {
			return err
		}
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			return rerr
		}
	}
	if n < m.Size {
		return ErrShort
	}
	return nil
}
