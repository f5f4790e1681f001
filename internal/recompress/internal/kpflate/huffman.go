package kpflate

import (
	"slices"

	"github.com/imgpack/imgpack/internal/deflate"
)

const (
	numLit  = deflate.MaxLit
	numDist = deflate.MaxDist
	numCode = deflate.NumCode
)

// builder makes codes of limited length by the package-merge algorithm, as the
// encoder does: of two equal weights the package goes before the symbol.
type builder struct {
	sorted [numLit]uint32 // weight in bits 16 and up, symbol below
	lists  [2][2 * numLit]uint32
	leaves [deflate.MaxBits + 1][2*numLit + 1]uint16 // symbols among the first of a list
}

// lengths gives each symbol of weight the length of its code, at most limit.
// One or two symbols have codes of one bit.
func (b *builder) lengths(lengths []uint8, weight []uint16, limit int) {
	n := 0
	for s, w := range weight {
		lengths[s] = 0
		if w > 0 {
			b.sorted[n] = uint32(w)<<16 | uint32(s)
			n++
		}
	}
	sorted := b.sorted[:n]
	if n <= 2 {
		for _, v := range sorted {
			lengths[uint16(v)] = 1
		}
		return
	}
	slices.Sort(sorted)
	limit = min(limit, n-1)
	b.merge(sorted, limit)
	take := 2*n - 2
	for level := limit; level > 0; level-- {
		leaves := int(b.leaves[level][take])
		for _, v := range sorted[:leaves] {
			lengths[uint16(v)]++
		}
		take = 2 * (take - leaves)
	}
}

// merge makes the lists of the levels, from the longest codes to the shortest.
func (b *builder) merge(sorted []uint32, limit int) {
	n := len(sorted)
	below := b.lists[0][:n]
	for i, v := range sorted {
		below[i] = v >> 16
		b.leaves[1][i+1] = uint16(i + 1)
	}
	for level := 2; level <= limit; level++ {
		list := b.lists[level&1^1][:min(2*n-2, n+len(below)/2)]
		count := &b.leaves[level]
		leaf, pair := 0, 0
		for i := range list {
			if 2*pair+1 < len(below) {
				sum := below[2*pair] + below[2*pair+1]
				if leaf == n || sum <= sorted[leaf]>>16 {
					list[i] = sum
					pair++
					count[i+1] = uint16(leaf)
					continue
				}
			}
			list[i] = sorted[leaf] >> 16
			leaf++
			count[i+1] = uint16(leaf)
		}
		below = list
	}
}

// trees writes down codes of lits and dists symbols as the encoder does, and
// returns the length of the header in bits.
func (b *builder) trees(t *deflate.Trees, lit, dist []uint8) int {
	copy(t.Lit[:], lit)
	copy(t.Dist[:], dist)
	t.NumLit, t.NumDist = len(lit), len(dist)
	var all [numLit + numDist]uint8
	n := copy(all[:], lit)
	n += copy(all[n:], dist)
	t.NumRuns = 0
	t.AddLongestRuns(all[:n])
	var weight [numCode]uint16
	for _, r := range t.Runs[:t.NumRuns] {
		weight[uint8(r)]++
	}
	b.lengths(t.Code[:], weight[:], deflate.MaxCode)
	t.CutCode()
	size := 3 + 5 + 5 + 4 + 3*t.NumCode
	for s, w := range weight {
		size += int(w) * (int(t.Code[s]) + int(deflate.RunExtra(uint8(s))))
	}
	return size
}
