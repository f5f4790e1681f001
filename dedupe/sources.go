package dedupe

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// sources are the layers of bases, of which some become sources of the bundle.
// They are numbered from 0 in the order of bases, each diffID once; in the
// bundle, from 1 in order of first use.
type sources struct {
	bases  []*Base
	number map[digest.Digest]int32 // by diffID
	all    []source
	layers []NeededLayer // those used, in order
}

type source struct {
	layer NeededLayer
	base  *Base // the first that has it
	final int32 // 0 until it is used
}

func newSources(bases []*Base) sources {
	s := sources{bases: bases, number: map[digest.Digest]int32{}}
	for _, b := range bases {
		for _, l := range b.entries {
			if _, ok := s.number[l.DiffID]; !ok {
				s.number[l.DiffID] = int32(len(s.all))
				s.all = append(s.all, source{layer: l, base: b})
			}
		}
	}
	return s
}

// has reports whether a base has the chunk.
func (s *sources) has(key chunkKey) bool {
	for _, b := range s.bases {
		if len(b.places(key.sum, int(key.length))) > 0 {
			return true
		}
	}
	return false
}

// holders appends to list the layers that have the chunk.
func (s *sources) holders(list []int32, key chunkKey) []int32 {
	for _, b := range s.bases {
		for _, at := range b.places(key.sum, int(key.length)) {
			list = append(list, s.number[b.entries[b.chunks[at].layer].DiffID])
		}
	}
	return list
}

// offset is where the layer, which must have the chunk, has it first.
func (s *sources) offset(key chunkKey, layer int32) int64 {
	for _, b := range s.bases {
		for _, at := range b.places(key.sum, int(key.length)) {
			if c := b.chunks[at]; s.number[b.entries[c.layer].DiffID] == layer {
				return c.offset
			}
		}
	}
	return 0
}

// use returns the number that the layer has in the bundle.
func (s *sources) use(layer int32) int32 {
	x := &s.all[layer]
	if x.final == 0 {
		s.layers = append(s.layers, x.layer)
		x.final = int32(len(s.layers))
	}
	return x.final
}

// used reports whether the layer has a number in the bundle.
func (s *sources) used(diffID digest.Digest) bool { return s.all[s.number[diffID]].final > 0 }

// holder is the first of the bases that has the layer.
func (s *sources) holder(diffID digest.Digest) *Base { return s.all[s.number[diffID]].base }

// maxChosen bounds the layers that are chosen with care.
const maxChosen = 64

// choose gives every chunk of a window that bases have a place in one of their
// layers: of few layers rather than of many, since each must be there, and is
// read, on the other side. Layers that are used already go first, then those
// that have most.
func (g *gatherer) choose() {
	var left []uint32
	var held []int32 // by those of left, one after another
	var ends []int
	for id := range uint32(g.chunks.n) {
		if c := g.chunks.at(id); c.source == inBase {
			left = append(left, id)
			held = g.sources.holders(held, c.key)
			ends = append(ends, len(held))
		}
	}
	for round := 0; len(left) > 0; round++ {
		best := g.most(left, held, ends)
		from, kept, n := 0, 0, 0
		for i, id := range left {
			to := ends[i]
			list := held[from:to]
			from = to
			if round == maxChosen {
				best = list[0]
			}
			if c := g.chunks.at(id); slices.Contains(list, best) {
				c.source, c.offset = inBase-1-best, g.sources.offset(c.key, best)
				continue
			}
			left[kept] = id
			n += copy(held[n:], list)
			ends[kept] = n
			kept++
		}
		left, held, ends = left[:kept], held[:n], ends[:kept]
	}
}

// most is the layer to take chunks from next.
func (g *gatherer) most(left []uint32, held []int32, ends []int) (best int32) {
	gain := make([]int64, len(g.sources.all))
	from := 0
	for i, id := range left {
		for _, layer := range held[from:ends[i]] {
			gain[layer] += int64(g.chunks.at(id).key.length)
		}
		from = ends[i]
	}
	better := func(a, b int32) bool {
		if x, y := g.sources.all[a].final > 0, g.sources.all[b].final > 0; x != y && gain[a] > 0 && gain[b] > 0 {
			return x
		}
		return gain[a] > gain[b]
	}
	for layer := range int32(len(gain)) {
		if better(layer, best) {
			best = layer
		}
	}
	return best
}
