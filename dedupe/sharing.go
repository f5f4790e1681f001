package dedupe

import (
	"cmp"
	"context"
	"slices"
	"sort"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
)

// Sharing says what open layers have in common.
type Sharing struct {
	Contents int64        // bytes of contents of the whole bundle
	Tars     []TarSharing // the open layers, in the bundle's order
}

// TarSharing is one open layer. Own and Shared count a byte of the contents
// once however often the tar has it, so that the sum of both and FromBase may
// be less than Bytes.
type TarSharing struct {
	Digest   digest.Digest // of the uncompressed tar
	Bytes    int64         // of the tar
	Own      int64         // contents that only this tar uses
	Shared   int64         // contents that it shares with others
	FromBase int64         // bytes of the tar that are taken from a base
}

// Sharing works out what open layers have in common, from the recipes alone: it
// reads no contents. In layer mode nothing is open.
func (b *Bundle) Sharing(ctx context.Context) (*Sharing, error) {
	if b.contents == nil {
		return &Sharing{}, nil
	}
	c := b.contents
	if err := c.recipes.wait(ctx); err != nil {
		return nil, err
	}
	s := &Sharing{Contents: c.length(), Tars: make([]TarSharing, len(c.tars))}
	for i, t := range c.tars {
		s.Tars[i].Digest, s.Tars[i].Bytes = t.Digest, t.Size
		err := c.walk(ctx, i, func(e recipe.Extent) error {
			if e.Source > 0 {
				s.Tars[i].FromBase += e.Length
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	u := usage{c: c, limit: maxUses}
	for u.to < c.length() {
		if err := u.next(ctx); err != nil {
			return nil, err
		}
		for _, x := range u.uses {
			s.Tars[x.tar].Shared += x.to - x.from
		}
		u.stretches(func(from, to int64, tars, tar int) {
			if tars == 1 {
				s.Tars[tar].Own += to - from
				s.Tars[tar].Shared -= to - from
			}
		})
	}
	return s, nil
}

// length is that of the contents, in bytes.
func (c *contents) length() int64 {
	if len(c.segments) == 0 {
		return 0
	}
	return c.segments[len(c.segments)-1].end
}

// use is a range of the contents that a tar uses. The uses of one tar do not
// touch.
type use struct {
	from, to int64
	tar      int
}

// maxUses bounds the uses that are in memory at a time: 48 MiB, and the same
// again while they are counted.
const maxUses = 2 << 20

// usage goes through the contents from front to end, as much at a time as it
// can remember the uses of: mostly all at once.
type usage struct {
	c        *contents
	limit    int   // of uses; see maxUses
	from, to int64 // the stretch at hand
	uses     []use // in it
}

// next walks all recipes for the uses of the next stretch of the contents.
func (u *usage) next(ctx context.Context) error {
	u.from, u.to, u.uses = u.to, u.c.length(), u.uses[:0]
	for tar := range u.c.tars {
		err := u.c.walk(ctx, tar, func(e recipe.Extent) error {
			if e.Source == 0 {
				u.add(tar, e.Offset, e.Offset+e.Length)
			}
			return nil
		})
		if err != nil {
			return err
		}
		u.join(tar)
	}
	return nil
}

// add notes a use by the tar that is being walked.
func (u *usage) add(tar int, from, to int64) {
	from = max(from, u.from)
	if last := len(u.uses) - 1; last >= 0 && u.uses[last].tar == tar && u.uses[last].to == from {
		u.uses[last].to = max(from, min(to, u.to))
		return
	}
	if len(u.uses) >= u.limit {
		u.join(tar)
		u.shrink()
	}
	if to = min(to, u.to); from < to {
		u.uses = append(u.uses, use{from, to, tar})
	}
}

// join makes one use of those of a tar that touch. It is the last tar that has
// any.
func (u *usage) join(tar int) {
	first := sort.Search(len(u.uses), func(i int) bool { return u.uses[i].tar >= tar })
	mine := u.uses[first:]
	slices.SortFunc(mine, func(a, b use) int { return cmp.Compare(a.from, b.from) })
	u.uses = u.uses[:first]
	for _, x := range mine {
		if last := len(u.uses) - 1; last >= first && x.from <= u.uses[last].to {
			u.uses[last].to = max(x.to, u.uses[last].to)
			continue
		}
		u.uses = append(u.uses, x)
	}
}

// shrink makes the stretch shorter if it has more than half the uses that may
// be remembered: about half of them stay.
func (u *usage) shrink() {
	if len(u.uses) <= u.limit/2 {
		return
	}
	begins := make([]int64, len(u.uses))
	for i, x := range u.uses {
		begins[i] = x.from
	}
	slices.Sort(begins)
	middle := max(begins[len(begins)/2], u.from+1)
	u.to = middle
	u.uses = slices.DeleteFunc(u.uses, func(x use) bool { return x.from >= middle })
	for i := range u.uses {
		u.uses[i].to = min(u.uses[i].to, middle)
	}
}

// stretches calls visit for all of the stretch at hand, piece by piece: how
// many tars use it and, if it is one, which.
func (u *usage) stretches(visit func(from, to int64, tars, tar int)) {
	begins, ends := u.uses, slices.Clone(u.uses)
	slices.SortFunc(begins, func(a, b use) int { return cmp.Compare(a.from, b.from) })
	slices.SortFunc(ends, func(a, b use) int { return cmp.Compare(a.to, b.to) })
	var tars, sum int // of those that use what is at hand; and of their indexes
	for at := u.from; at < u.to; {
		for ; len(ends) > 0 && ends[0].to <= at; ends = ends[1:] {
			tars--
			sum -= ends[0].tar
		}
		for ; len(begins) > 0 && begins[0].from <= at; begins = begins[1:] {
			tars++
			sum += begins[0].tar
		}
		next := u.to
		if len(begins) > 0 {
			next = min(next, begins[0].from)
		}
		if len(ends) > 0 {
			next = min(next, ends[0].to)
		}
		visit(at, next, tars, sum)
		at = next
	}
}
