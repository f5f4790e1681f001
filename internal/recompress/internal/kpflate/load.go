package kpflate

import (
	"encoding/binary"
	"math/bits"

	"github.com/imgpack/imgpack/internal/deflate"
)

// Multipliers of the encoder's hashes, by the number of bytes hashed.
const (
	prime4 = 2654435761
	prime5 = 889523592379
	prime6 = 227718039650203
	prime7 = 58295818150454627
)

func load32(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[i:]) }
func load64(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i:]) }

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

// literals appends bytes as tokens.
func literals(q []deflate.Token, b []byte) []deflate.Token {
	n := len(q)
	q = q[:n+len(b)]
	for i, c := range b {
		q[n+i] = deflate.Token(c)
	}
	return q
}

// matches appends a match of any length, at least 4, as the encoder splits it.
func matches(q []deflate.Token, length, distance int) []deflate.Token {
	for length > deflate.MaxLength {
		n := deflate.MaxLength
		if length <= deflate.MaxLength+deflate.MinLength {
			n -= deflate.MinLength
		}
		q = append(q, deflate.Match(n, distance))
		length -= n
	}
	return append(q, deflate.Match(length, distance))
}
