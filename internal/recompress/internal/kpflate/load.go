package kpflate

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/imgpack/imgpack/internal/deflate"
)

// Multipliers of the encoder's hashes, by the number of bytes hashed.
const (
	prime4 = 2654435761
	prime5 = 889523592379
	prime6 = 227718039650203
	prime7 = 58295818150454627
)

// The only unsafe code of this package: loads without bounds checks, which take
// a fifth of the time of the search for matches otherwise. The callers hold to
// 0 <= i and i+4, or i+8, <= len(b):
//
// Where hashes are taken, positions begin at 0 and end margin before the end.
// Positions that tables give are checked to be window-1 at most before the one
// that is searched for; bias keeps what other runs left farther away than that,
// so they are positions of this run, from 0 on.

func load32(b []byte, i int) uint32 {
	return binary.LittleEndian.Uint32((*[4]byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))[:])
}

func load64(b []byte, i int) uint64 {
	return binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))[:])
}

// common is how many bytes at s are those at t, before it, up to the end of b.
func common(b []byte, s, t int) int {
	from := s
	for s+8 <= len(b) {
		if x := load64(b, s) ^ load64(b, t); x != 0 {
			return s - from + bits.TrailingZeros64(x)>>3
		}
		s += 8
		t += 8
	}
	for s < len(b) && b[s] == b[t] {
		s++
		t++
	}
	return s - from
}

// draft is a chunk of tokens that is being made.
type draft struct {
	tokens  []deflate.Token
	tally   *tally // of them
	shorter bool   // long matches are cut into pieces of 255 bytes and a rest; before 1.15.0
}

// literals appends bytes.
func (d *draft) literals(b []byte) {
	n := len(d.tokens)
	d.tokens = d.tokens[:n+len(b)]
	tokens, counts := d.tokens[n:], &d.tally.lit
	for i, c := range b {
		tokens[i] = deflate.Token(c)
		counts[c]++
	}
}

// match appends a match of any length, at least 4, as the encoder splits it.
func (d *draft) match(length, distance int) {
	t := deflate.Match(deflate.MinLength, distance)
	s := t.DistSymbol()
	for length > 0 {
		n := length
		if n > deflate.MaxLength {
			n = deflate.MaxLength
			if d.shorter || length <= deflate.MaxLength+deflate.MinLength {
				n -= deflate.MinLength
			}
		}
		k := t + deflate.Match(n, 1) - deflate.Match(deflate.MinLength, 1)
		d.tokens = append(d.tokens, k)
		d.tally.lit[k.LengthSymbol()]++
		d.tally.dist[s]++
		length -= n
	}
}
