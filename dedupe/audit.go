package dedupe

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/manifests"
)

// Audit proves what reading all images does not: that every recipe is sound to
// its end (of those of streams, that they are what was written: whoever reads
// the stream learns more), that every byte of the contents is used by one, and
// that every segment is what its digest says and gives the content it should.
// Segments that have been unpacked already are not read again, the others are
// decoded and forgotten: whoever fetches everything does so first.
//
// What is wrong is a *manifests.ContentError that names the member or the
// layer, or several, joined, in the order of the file. Of a delta whose base
// was not supplied, segments that lean on the base are held to their digests
// alone; Complete tells. In layer mode there is nothing to prove.
func (b *Bundle) Audit(ctx context.Context) error {
	if b.contents == nil {
		return nil
	}
	c := b.contents
	if err := c.recipes.wait(ctx); err != nil {
		return err
	}
	if err := c.streams.proven.wait(ctx); err != nil {
		return err
	}
	unused, err := c.unused(ctx)
	if err != nil {
		return err
	}
	broken, err := c.auditSegments(ctx)
	if err != nil {
		return err
	}
	return onlyOne(errors.Join(append(slices.Compact(broken), unused)...))
}

// onlyOne is err, or the one error that it joins.
func onlyOne(err error) error {
	if all, ok := err.(interface{ Unwrap() []error }); ok && len(all.Unwrap()) == 1 {
		return all.Unwrap()[0]
	}
	return err
}

// unused looks for contents that no recipe uses. The first such place is an
// error to return with others; it stops at a recipe that is unsound.
func (c *contents) unused(ctx context.Context) (found, err error) {
	u := usage{c: c, limit: maxUses}
	for u.to < c.length() && found == nil {
		if err := u.next(ctx); err != nil {
			return nil, err
		}
		u.stretches(func(from, to int64, tars, _ int) {
			if tars == 0 && found == nil {
				s := &c.segments[c.segmentAt(from)]
				found = manifests.Bad(manifests.KindMalformed, c.member(s.blob), "no layer uses the bytes from %d to %d of its content", from-s.start, min(to, s.end)-s.start)
			}
		})
	}
	return found, nil
}

// auditSegments returns what is wrong with segments.
func (c *contents) auditSegments(ctx context.Context) ([]error, error) {
	broken := make([]error, len(c.segments))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(c.jobs)
	for i := range c.segments {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error {
			err := c.auditSegment(gctx, &c.segments[i])
			var content *manifests.ContentError
			if errors.As(err, &content) {
				broken[i] = err
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return broken, ctx.Err()
}

func (c *contents) auditSegment(ctx context.Context, s *segmentFile) error {
	switch {
	case s.ready.Load():
		return nil
	case c.present(&s.part):
		return c.decode(ctx, s, func([]byte) error { return nil })
	}
	memory := min(s.blob.section.size, decodeMemory)
	if err := c.memory.Acquire(ctx, memory); err != nil {
		return err
	}
	defer c.memory.Release(memory)
	blob, err := c.readStored(s.blob, maxPacked)
	if err != nil {
		return err
	}
	c.blobs.put(blob)
	return nil
}
