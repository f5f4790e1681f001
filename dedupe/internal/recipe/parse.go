package recipe

import (
	"errors"
	"fmt"
	"math"

	"github.com/klauspost/compress/zstd"

	"github.com/imgpack/imgpack/dedupe/internal/zframe"
)

// Bounds are what the rest of the bundle says of its recipes.
type Bounds struct {
	Tars     []int64 // the length of each tar
	Segments []int64 // the length of each segment's content
	Sources  int     // how many sources there are besides the contents
}

// Set is the recipes of a bundle. It does not change and is safe for
// concurrent use.
type Set struct {
	bounds   Bounds
	contents int64
	recipes  [][]byte
	prefixes []cursor
}

// Parse unpacks recipes. It finds each recipe and proves the prefixes; what is
// in a recipe is proven when it is walked. Memory is that of the recipes
// unpacked, at most MaxUnpacked.
func Parse(blob []byte, b Bounds) (*Set, error) {
	raw, err := unpack(blob)
	if err != nil {
		return nil, err
	}
	return parseSet(raw, b)
}

func unpack(blob []byte) ([]byte, error) {
	switch _, _, err := zframe.Check(blob, MaxUnpacked); {
	case errors.Is(err, zframe.ErrLength):
		return nil, bad("unpack: recipes are larger than %d bytes", MaxUnpacked)
	case err != nil:
		return nil, bad("unpack: %w", err)
	}
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxUnpacked), zstd.WithDecoderMaxWindow(MaxUnpacked))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := r.DecodeAll(blob, nil)
	if err != nil {
		return nil, bad("unpack: %w", err)
	}
	return raw, nil
}

// parseSet takes the content of the frame apart.
func parseSet(raw []byte, b Bounds) (*Set, error) {
	s := &Set{bounds: b}
	for _, n := range b.Segments {
		if n < 0 || n > math.MaxInt64-s.contents {
			return nil, bad("segments are longer together than a number holds")
		}
		s.contents += n
	}
	c := cursor{raw}
	for i := range b.Tars {
		n, err := c.uvarint()
		if err != nil {
			return nil, fmt.Errorf("recipe %d: %w", i, err)
		}
		p, err := c.take(n)
		if err != nil {
			return nil, fmt.Errorf("recipe %d: %w", i, err)
		}
		s.recipes = append(s.recipes, p)
	}
	for i := range b.Segments {
		s.prefixes = append(s.prefixes, c)
		x, err := s.prefix(c, func(Extent) {})
		if err != nil {
			return nil, fmt.Errorf("prefix %d: %w", i, err)
		}
		c = x
	}
	if len(c.rest) > 0 {
		return nil, bad("%d bytes follow the last prefix", len(c.rest))
	}
	return s, nil
}

// prefix reads the list of extents that c stands before, and says where it
// ends.
func (s *Set) prefix(c cursor, yield func(Extent)) (cursor, error) {
	x, err := list(c, limits{first: 1, sources: s.bounds.Sources})
	if err != nil {
		return c, err
	}
	if x.left > MaxPrefixExtents {
		return c, bad("%d extents are more than %d", x.left, MaxPrefixExtents)
	}
	for total := int64(0); x.left > 0; {
		e, err := x.next()
		if err != nil {
			return c, err
		}
		if total += e.Length; total > MaxPrefix {
			return c, bad("it is longer than %d bytes", MaxPrefix)
		}
		yield(e)
	}
	return x.cursor, nil
}

// Prefix gives the ranges that a segment is compressed behind, in their order;
// none of them is of source 0.
func (s *Set) Prefix(segment int) ([]Extent, error) {
	var all []Extent
	_, err := s.prefix(s.prefixes[segment], func(e Extent) { all = append(all, e) })
	return all, err
}
