package tarball

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// bufferSize is how much is read before it is written. Sources on a network
// give some KiB at a time; disks want more than that.
const bufferSize = 1 << 20

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Write writes the tar in order, for pipes. Memory is 1 MiB. A cancelled
// context is an error.
func (p *Plan) Write(ctx context.Context, w io.Writer) error {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for i, m := range p.members {
		if _, err := w.Write(p.headers[i]); err != nil {
			return err
		}
		if err := p.copy(ctx, w, m, buf[:]); err != nil {
			return fmt.Errorf("write %s: %w", m.Name, err)
		}
		if _, err := w.Write(Padding(m.Size)); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := w.Write(make([]byte, p.end))
	return err
}

// WriteAt writes the tar into w, jobs members at a time, the largest first, so
// that none is left alone at the end; each goes straight to its place. Memory
// is jobs × 1 MiB. The result is the same bytes as Write's, whatever w held.
// The first error stops all; so does a cancelled context, which is an error.
//
// The content of members that have reports by their number is taken to lie in
// w already: it is neither opened nor written. nil means none.
//
// Content always passes through memory, also from file to file: whoever gives
// it checks it on the way.
func (p *Plan) WriteAt(ctx context.Context, w io.WriterAt, jobs int, have func(i int) bool) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(max(jobs, 1))
	for _, i := range p.largestFirst() {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error { return p.writeMember(gctx, w, i, have != nil && have(i)) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return writeAt(w, make([]byte, p.end), p.size-p.end)
}

func (p *Plan) writeMember(ctx context.Context, w io.WriterAt, i int, have bool) error {
	m := p.members[i]
	if err := writeAt(w, p.headers[i], p.offsets[i]); err != nil {
		return err
	}
	if err := writeAt(w, Padding(m.Size), p.Offset(i)+m.Size); err != nil || have {
		return err
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	if err := p.copy(ctx, io.NewOffsetWriter(w, p.Offset(i)), m, buf[:]); err != nil {
		return fmt.Errorf("write %s: %w", m.Name, err)
	}
	return nil
}

func writeAt(w io.WriterAt, b []byte, at int64) error {
	if len(b) == 0 {
		return nil
	}
	_, err := w.WriteAt(b, at)
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

// copy moves a member's content, and nothing past its planned end.
func (p *Plan) copy(ctx context.Context, w io.Writer, m Member, buf []byte) error {
	r, err := m.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	left := m.Size
	for {
		n, rerr := fill(ctx, r, buf)
		if left -= int64(n); left < 0 {
			return ErrLong
		}
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case rerr == io.EOF && left > 0:
			return ErrShort
		case rerr == io.EOF:
			return nil
		case rerr != nil:
			return rerr
		}
	}
}

// maxIdle bounds reads that give nothing, as bufio does.
const maxIdle = 100

// fill reads until buf is full or r has ended. A context cancelled meanwhile
// is an error even where the reader does not heed it.
func fill(ctx context.Context, r io.Reader, buf []byte) (n int, err error) {
	for idle := 0; n < len(buf); {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		k, err := r.Read(buf[n:])
		n += k
		if err != nil {
			return n, err
		}
		if idle++; k > 0 {
			idle = 0
		} else if idle >= maxIdle {
			return n, io.ErrNoProgress
		}
	}
	return n, nil
}
