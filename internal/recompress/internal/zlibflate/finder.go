package zlibflate

import (
	"encoding/binary"
	"math/bits"

	"github.com/imgpack/imgpack/internal/deflate"
)

const (
	windowMask = deflate.Window - 1
	// bias is added to positions in head, so that those of an empty table are
	// too far away from any.
	bias = 1 << 16
	// far is a link longer than any match.
	far = 1<<16 - 1
	// maxLength is how far a match is extended, in slices of eight bytes.
	maxLength = deflate.MaxLength
)

// match is one that was found; no match has length 2, as a match must be longer
// than the one before it.
type match struct {
	length, distance int
}

var noMatch = match{length: deflate.MinLength - 1}

// finder is the hash chains. Each position is linked to the last one before it
// whose three bytes hash alike.
type finder struct {
	data  []byte
	next  int    // positions below are in the chains, or never will be
	shift uint   // of the hash for each byte
	mask  uint32 // of it
	head  [1 << 16]uint32
	link  [deflate.Window]uint16 // how far back, or far
	deep  *deep                  // instead of head, if chains are long
	steps int64
}

// start empties the chains; positions before at will never be in them.
func (f *finder) start(at int) {
	f.next = at
	f.link[(at-1)&windowMask] = far // where a search may be tried
	if f.deep != nil {
		clear(f.deep.head[:])
	}
	clear(f.head[:f.mask+1])
}

// insert puts all positions before to into the chains, as far as there are three
// bytes to hash.
func (f *finder) insert(to int) {
	at := f.next
	if at >= to {
		return
	}
	f.next = to
	data := f.data
	if to = min(to, len(data)-2); at >= to {
		return
	}
	if f.deep != nil {
		f.insertDeep(at, to)
		return
	}
	data = data[:to+2]
	shift, mask := f.shift&15, f.mask
	h := uint32(data[at])<<shift ^ uint32(data[at+1])
	for ; at+2 < len(data); at++ {
		h = (h<<shift ^ uint32(data[at+2])) & mask
		e := &f.head[uint16(h)]
		f.link[at&windowMask] = uint16(min(uint32(at+bias)-*e, far))
		*e = uint32(at + bias)
	}
}

// longest finds the first of the longest matches at position at, which must be
// the last in the chains, if it is longer than best: among at most chain
// candidates, until one of nice bytes is found, the first no further away than
// reach, all others nearer.
func (f *finder) longest(at, best, chain, nice, reach int) match {
	m := noMatch
	data := f.data
	limit := min(maxLength, len(data)-at)
	distance := int(f.link[at&windowMask])
	if reach = min(reach, at); distance > reach || best >= limit {
		return m
	}
	nice = min(nice, limit)
	tail, mask := at+best-3, uint32(1<<32-1)
	if best < deflate.MinLength {
		if limit == deflate.MinLength {
			return f.three(at, chain, reach)
		}
		tail, mask = at, 1<<24-1
	}
	want := binary.LittleEndian.Uint32(data[tail:]) & mask
	enough := maxLength
	if f.deep != nil && limit >= 8 {
		if enough = deepBytes - 1; best >= enough {
			return f.longestDeep(m, at, best, chain, nice, reach)
		}
	}
	all := chain
	for {
		if binary.LittleEndian.Uint32(data[tail-distance:])&mask == want {
			if n := common(data, at-distance, at, limit); n > best {
				m, best = match{n, distance}, n
				if n >= nice {
					f.steps += int64(all - chain)
					return m
				}
				if n >= enough {
					f.steps += int64(all - chain)
					return f.longestDeep(m, at, best, all, nice, reach)
				}
				tail, mask = at+best-3, 1<<32-1
				want = binary.LittleEndian.Uint32(data[tail:])
			}
		}
		if chain--; chain == 0 {
			f.steps += int64(all)
			return m
		}
		if distance += int(f.link[(at-distance)&windowMask]); distance >= reach {
			f.steps += int64(all - chain)
			return m
		}
	}
}

// three is longest where only three bytes are left.
func (f *finder) three(at, chain, reach int) match {
	want := string(f.data[at:])
	distance := int(f.link[at&windowMask])
	for string(f.data[at-distance:at-distance+len(want)]) != want {
		distance += int(f.link[(at-distance)&windowMask])
		if chain--; chain == 0 || distance >= reach {
			return noMatch
		}
	}
	return match{len(want), distance}
}

// common counts equal bytes at a and b > a, up to limit.
func common(data []byte, a, b, limit int) int {
	n := 0
	for ; n+8 <= limit; n += 8 {
		x := binary.LittleEndian.Uint64(data[a+n:]) ^ binary.LittleEndian.Uint64(data[b+n:])
		if x != 0 {
			return n + bits.TrailingZeros64(x)>>3
		}
	}
	for n < limit && data[a+n] == data[b+n] {
		n++
	}
	return n
}
