package dedupe

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// sources are the layers of bases that chunks were found in. While layers are
// read, they are numbered in order of arrival; in the bundle, in order of first
// use.
type sources struct {
	bases  []*Base
	number map[digest.Digest]int32 // by diffID, from 1, in order of arrival
	final  []int32                 // by that number, from 0; 0 until it is used
	layers []NeededLayer           // those used, in order
	by     []digest.Digest         // by number of arrival
}

// meet returns the number of a layer that a chunk was found in.
func (s *sources) meet(diffID digest.Digest) int32 {
	n, ok := s.number[diffID]
	if !ok {
		if s.number == nil {
			s.number = map[digest.Digest]int32{}
		}
		s.by = append(s.by, diffID)
		s.final = append(s.final, 0)
		n = int32(len(s.by))
		s.number[diffID] = n
	}
	return n
}

// use returns the number that the layer has in the bundle.
func (s *sources) use(met int32) int32 {
	final := &s.final[met-1]
	if *final == 0 {
		diffID := s.by[met-1]
		b := s.holder(diffID)
		i, _ := b.hasLayer(diffID)
		s.layers = append(s.layers, b.layer(i))
		*final = int32(len(s.layers))
	}
	return *final
}

// holder is the first of the bases that has the layer.
func (s *sources) holder(diffID digest.Digest) *Base {
	return s.bases[slices.IndexFunc(s.bases, func(b *Base) bool { _, ok := b.hasLayer(diffID); return ok })]
}
