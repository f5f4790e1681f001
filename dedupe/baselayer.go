package dedupe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/manifests"
)

// baseLayer is a layer of a base, and what is wanted of its tar. The layer is
// read once, from front to end, and the ranges go to the spool.
type baseLayer struct {
	part
	diffID digest.Digest
	ranges ranges
}

// wantedRange is a range of a tar; at is where it lies in the spool.
type wantedRange struct{ from, to, at int64 }

// ranges are such that are sorted and do not touch, once they are merged.
type ranges struct {
	list []wantedRange
	gap  int64 // what lies no further apart is one range
}

// Wanted ranges that are close to one another are read as one: reading on costs
// less than another write, and a few bytes of the spool.
const nearby = 4 << 10

// maxRanges bounds the ranges of all base layers together: 96 MiB. Beyond it,
// ranges that are further apart are joined.
const maxRanges = 4 << 20

// add notes a range, and keeps them at no more than limit.
func (r *ranges) add(from, to int64, limit int) {
	if n := len(r.list); n > 0 && from >= r.list[n-1].from && from <= r.list[n-1].to {
		r.list[n-1].to = max(to, r.list[n-1].to)
		return
	}
	if len(r.list) >= limit {
		for r.merge(); len(r.list) > limit/2; r.merge() {
			r.gap = 2*r.gap + 1
		}
	}
	r.list = append(r.list, wantedRange{from: from, to: to})
}

func (r *ranges) merge() {
	slices.SortFunc(r.list, func(a, b wantedRange) int { return cmp.Compare(a.from, b.from) })
	out := r.list[:0]
	for _, x := range r.list {
		if n := len(out); n > 0 && x.from-out[n-1].to <= r.gap {
			out[n-1].to = max(out[n-1].to, x.to)
			continue
		}
		out = append(out, x)
	}
	r.list = out
}

// place gives the ranges their places in the spool from at on, and returns
// where they end.
func (r *ranges) place(at int64) int64 {
	r.merge()
	for i := range r.list {
		x := &r.list[i]
		x.at = at
		at += x.to - x.from
	}
	return at
}

// locate returns where a byte of a range lies in the spool.
func (r *ranges) locate(offset int64) int64 {
	x := r.list[sort.Search(len(r.list), func(i int) bool { return r.list[i].to > offset })]
	return x.at + offset - x.from
}

// placeBases walks all recipes and prefixes once for what they want of base
// layers, and gives that places in the spool behind the contents.
func (c *contents) placeBases(ctx context.Context) error {
	if c.needs == nil || len(c.needs.Layers) == 0 {
		return nil
	}
	bases := make([]baseLayer, len(c.needs.Layers))
	for i := range bases {
		bases[i].ranges.gap = nearby
	}
	limit := max(maxRanges/len(bases), 16)
	add := func(e recipe.Extent) error {
		if e.Source > 0 {
			bases[e.Source-1].ranges.add(e.Offset, e.Offset+e.Length, limit)
		}
		return nil
	}
	for i := range c.tars {
		if err := c.walk(ctx, i, add); err != nil {
			return err
		}
	}
	for i := range c.segments {
		extents, err := c.prefix(i)
		if err != nil {
			return err
		}
		for _, e := range extents {
			_ = add(e)
		}
	}
	at := c.spool.need.Load()
	for i := range bases {
		l := &bases[i]
		l.base, l.index, l.diffID = true, i, c.needs.Layers[i].DiffID
		l.group, l.do = &c.tasks, func(ctx context.Context) error { return c.spoolLayer(ctx, l) }
		l.start = at
		at = l.ranges.place(at)
		l.end = at
	}
	c.bases = bases
	c.spool.need.Store(at)
	return nil
}

// prefix returns the ranges before which a segment is decoded.
func (c *contents) prefix(segment int) ([]recipe.Extent, error) {
	extents, err := c.set.Prefix(segment)
	if err != nil {
		return nil, &manifests.ContentError{Kind: manifests.KindMalformed, Subject: fmt.Sprintf("%s: prefix of segment %d", c.name, segment), Err: err}
	}
	return extents, nil
}

// locate returns the front of a range of the tar that placeBases has met: all
// of it.
func (l *baseLayer) locate(offset, length int64) spoolRange {
	return spoolRange{&l.part, l.ranges.locate(offset), length}
}

// present reports whether all that is needed to fill a part was supplied.
func (c *contents) present(p *part) bool {
	if len(c.bases) == 0 {
		return true
	}
	supplied := func(i int) bool {
		_, ok := c.supply.layer(c.bases[i].diffID)
		return ok
	}
	if p.base {
		return supplied(p.index)
	}
	extents, err := c.prefix(p.index)
	return err != nil || !slices.ContainsFunc(extents, func(e recipe.Extent) bool { return !supplied(e.Source - 1) })
}

// baseBuffer is how much of a base layer is read at a time.
const baseBuffer = 1 << 20

// spoolLayer reads a base layer to its end, which proves it, and writes what is
// wanted of it into the spool.
func (c *contents) spoolLayer(ctx context.Context, l *baseLayer) error {
	from, ok := c.supply.layer(l.diffID)
	if !ok {
		return c.missing()
	}
	if err := c.passes.Acquire(ctx, 1); err != nil {
		return err
	}
	defer c.passes.Release(1)
	tar, err := openLayerTar(ctx, from.graph, from.layer, nil)
	if err != nil {
		return from.blame(err)
	}
	defer tar.Close()
	size, err := l.ranges.copy(tar, func(p []byte, at int64) error { return c.spool.write(ctx, p, at) })
	if err != nil {
		return from.blame(err)
	}
	if n := len(l.ranges.list); n > 0 && l.ranges.list[n-1].to > size {
		return manifests.Bad(manifests.KindMalformed, c.name, "its recipes want byte %d of the layer %s, which has %d", l.ranges.list[n-1].to-1, l.diffID, size)
	}
	return nil
}

// blame says of content that is at fault where it came from.
func (s suppliedLayer) blame(err error) error {
	var content *manifests.ContentError
	if !errors.As(err, &content) {
		return err
	}
	return &manifests.ContentError{Kind: content.Kind, Subject: "base layer of " + s.image, Err: err}
}

// copy gives what is wanted of a tar to write, reads it to its end, and returns
// its length.
func (r *ranges) copy(tar io.Reader, write func(p []byte, at int64) error) (int64, error) {
	buf := make([]byte, baseBuffer)
	left := r.list
	for at := int64(0); ; {
		n, rerr := manifests.Fill(tar, buf)
		end := at + int64(n)
		for len(left) > 0 && left[0].from < end {
			x := left[0]
			lo, hi := max(x.from, at), min(x.to, end)
			if err := write(buf[lo-at:hi-at], x.at+lo-x.from); err != nil {
				return 0, err
			}
			if x.to > end {
				break
			}
			left = left[1:]
		}
		at = end
		if rerr == io.EOF {
			return at, nil
		}
		if rerr != nil {
			return 0, rerr
		}
	}
}
