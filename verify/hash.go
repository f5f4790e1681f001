package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// bufferSize keeps system calls and hash calls few; larger gains nothing.
const bufferSize = 1 << 20

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// hash reads every blob that walking did not, the largest first, so that none
// is left alone at the end.
func (w *walker) hash(ctx context.Context) error {
	var leaves []*blob
	for _, b := range w.order {
		if !b.doc {
			leaves = append(leaves, b)
		}
	}
	slices.SortStableFunc(leaves, func(a, b *blob) int { return cmp.Compare(b.desc.Size, a.desc.Size) })
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(w.o.jobs())
	for _, b := range leaves {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error { return w.leaf(gctx, b) })
	}
	return group.Wait()
}

func (w *walker) leaf(ctx context.Context, b *blob) error {
	r, err := w.src.Fetch(ctx, b.desc)
	if err != nil {
		return b.unread(err)
	}
	defer r.Close()
	if w.o.Quick {
		return nil
	}
	b.read = true
	in := &meter{r: r, stopped: ctx.Err, desc: b.desc, progress: w.o.Progress}
	if w.o.Deep && len(b.diffIDs) > 0 {
		err = b.unpack(in)
	} else {
		err = in.drain()
	}
	b.bytes = in.n
	if err != nil {
		b.unpacked = false
		return b.unread(err)
	}
	b.proven = true
	b.compareTypes(in.head)
	return nil
}

// unread is fault for bytes that could not be had. Those that the program does
// not know how to make may well be sound: that is no finding.
func (b *blob) unread(err error) error {
	var unsupported *manifests.UnsupportedError
	if errors.As(err, &unsupported) {
		return fmt.Errorf("check %s %s: %w", b.label, b.desc.Digest, err)
	}
	return b.fault(err)
}

// compareTypes holds a layer's media types to its first bytes.
func (b *blob) compareTypes(head []byte) {
	is := codec.Sniff(head)
	for _, t := range b.types {
		if c, _ := manifests.LayerCompression(t); string(c) != string(is) {
			b.add(CheckLinks, manifests.KindMalformed, "media type %s, but the content's compression is %s", quote.Text(t), is)
		}
	}
}

// meter counts what is read through it and keeps the first bytes.
type meter struct {
	r        io.Reader
	stopped  func() error // says whether the work was cancelled
	desc     ocispec.Descriptor
	progress manifests.Progress
	n        int64
	head     []byte
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.stopped(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	if want := codec.SniffLen - len(m.head); want > 0 {
		m.head = append(m.head, p[:min(n, want)]...)
	}
	m.n += int64(n)
	if n > 0 && m.progress != nil {
		m.progress(m.desc, int64(n))
	}
	return n, err
}

// drain reads to the end, which proves the blob.
func (m *meter) drain() error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		_, err := m.Read(*buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
