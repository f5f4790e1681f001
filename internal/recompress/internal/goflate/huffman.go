package goflate

import (
	"slices"

	"github.com/imgpack/imgpack/internal/deflate"
)

// huffman makes codes with as few bits as the longest may have, by merging
// packages level by level; which of several such codes is the encoder's.
type huffman struct {
	// used are the symbols in use, rarest first: how often in bits 9 and up.
	used [deflate.NumLit]uint32
	// items of a level are weights of symbols and of pairs of items of the level
	// below, smallest first; symbols counts the symbols among the first of them.
	items   [2][2 * deflate.NumLit]uint32
	symbols [deflate.MaxBits + 1][2*deflate.NumLit + 1]uint16
}

// lengths fills in the lengths of the codes of symbols that are used often
// times, of at most longest bits.
func (f *huffman) lengths(lengths []uint8, often []uint32, longest int) {
	clear(lengths)
	n := 0
	for s, o := range often {
		if o > 0 {
			f.used[n] = o<<9 | uint32(s)
			n++
		}
	}
	used := f.used[:n]
	if n <= 2 {
		for _, u := range used {
			lengths[u&511] = 1
		}
		return
	}
	slices.Sort(used)
	longest = min(longest, n-1)
	items := 0
	for level := 1; level <= longest; level++ {
		items = f.merge(used, level, items/2)
	}
	// The first 2n-2 items of the last level make the code: each symbol among
	// them, and among the items that its pairs are made of, is a bit of its code.
	take := 2*n - 2
	for level := longest; level > 0 && take > 0; level-- {
		k := int(f.symbols[level][take])
		for _, u := range used[:k] {
			lengths[u&511]++
		}
		take = 2 * (take - k)
	}
}

// merge makes the items of a level and returns how many there are. Of a symbol
// and a pair of the same weight, the pair comes first.
func (f *huffman) merge(used []uint32, level, pairs int) int {
	below, items, symbols := &f.items[(level-1)&1], f.items[level&1][:0], &f.symbols[level]
	next := 0
	for p := range pairs {
		weight := below[2*p] + below[2*p+1]
		for next < len(used) && used[next]>>9 < weight {
			items = append(items, used[next]>>9)
			next++
			symbols[len(items)] = uint16(next)
		}
		items = append(items, weight)
		symbols[len(items)] = uint16(next)
	}
	for ; next < len(used); next++ {
		items = append(items, used[next]>>9)
		symbols[len(items)] = uint16(next + 1)
	}
	return len(items)
}
