package zlibflate

import (
	"encoding/binary"

	"github.com/imgpack/imgpack/internal/deflate"
)

// deep finds what the chains of a finder would, with fewer steps: positions are
// linked also to the last one before whose deepBytes bytes hash alike, and are
// numbered within their chain. So what may be longer than a match of nearly as
// many bytes is found in the second chains, and the numbers tell whether the
// encoder would have come so far in the first.
type deep struct {
	head [1 << deepBits]uint32
	link [deflate.Window]step
}

// step is how far back the second chain goes on, or far, in the lower half, and
// the number of the position in its first chain in the upper.
type step uint32

const (
	deepBytes = 7
	deepBits  = 14
	deepPrime = 0x9e3779b97f4a7c15
	deepFrom  = 128 // length of chains for which it pays
)

// insertDeep puts the positions from at to to into both chains.
func (f *finder) insertDeep(at, to int) {
	d, data := f.deep, f.data
	data = data[:to+2]
	shift, mask := f.shift&15, f.mask
	h := uint32(data[at])<<shift ^ uint32(data[at+1])
	for ; at+2 < len(data); at++ {
		h = (h<<shift ^ uint32(data[at+2])) & mask
		c := &f.head[uint16(h)]
		now := uint32(at + bias)
		since := min(now-*c, far)
		*c = now
		f.link[at&windowMask] = uint16(since)
		number := uint32(d.link[(at-int(since))&windowMask])>>16 + 1
		back := uint32(far)
		if at+8 <= len(f.data) {
			e := &d.head[binary.LittleEndian.Uint64(f.data[at:])<<(64-8*deepBytes)*deepPrime>>(64-deepBits)]
			back = min(now-*e, far)
			*e = now
		}
		d.link[at&windowMask] = step(number<<16 | back)
	}
}

// longestDeep goes on where longest found m, of best bytes, and all others that
// are wanted are as long as the second chains need.
func (f *finder) longestDeep(m match, at, best, chain, nice, reach int) match {
	data, d := f.data, f.deep
	limit := min(maxLength, len(data)-at)
	first := binary.LittleEndian.Uint64(data[at:])
	tail := at + best - 3
	want := binary.LittleEndian.Uint32(data[tail:])
	s := d.link[at&windowMask]
	number := uint16(s >> 16)
	steps := 0
	for distance := int(uint16(s)); distance <= reach; distance += int(uint16(s)) {
		s = d.link[(at-distance)&windowMask]
		steps++
		if (binary.LittleEndian.Uint64(data[at-distance:])^first)<<(64-8*deepBytes) != 0 {
			continue // another hash, and number
		}
		n := int(number - uint16(s>>16))
		if n > chain || distance == reach && n > 1 {
			break
		}
		if binary.LittleEndian.Uint32(data[tail-distance:]) != want {
			continue
		}
		if n := common(data, at-distance, at, limit); n > best {
			m, best = match{n, distance}, n
			if n >= nice {
				break
			}
			tail = at + best - 3
			want = binary.LittleEndian.Uint32(data[tail:])
		}
	}
	f.steps += int64(steps)
	return m
}
