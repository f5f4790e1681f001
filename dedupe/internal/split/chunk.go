package split

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// The lengths of chunks, in bytes. They are part of the format.
const (
	MinChunk = 16 << 10  // nothing shorter, but for the end of a body
	AvgChunk = 64 << 10  // from here on boundaries are more likely
	MaxChunk = 256 << 10 // nothing longer
)

// Sum names a chunk: the first 16 bytes of its SHA-256.
type Sum [16]byte

// SumOf is the sum of p.
func SumOf(p []byte) Sum {
	sum := sha256.Sum256(p)
	return Sum(sum[:])
}

// gear has a random number for each byte.
var gear = sync.OnceValue(func() *[256]uint64 {
	var g [256]uint64
	for b := range g {
		sum := sha256.Sum256(append([]byte("imgpack gear 1"), byte(b)))
		g[b] = binary.BigEndian.Uint64(sum[:])
	}
	return &g
})

// A chunk ends where the upper bits of the hash are zero, that is where it is
// below these.
const (
	early = 1 << (64 - 18) // before AvgChunk
	late  = 1 << (64 - 14)
)

// window is how many bytes the hash sees: those before it are shifted out.
const window = 64

// Cut returns the length of the first chunk of p. p holds MaxChunk bytes or
// more, or all that is left of the body.
func Cut(p []byte) int {
	if len(p) <= MinChunk {
		return len(p)
	}
	p = p[:min(len(p), MaxChunk)]
	g := gear()
	h := uint64(0)
	for _, b := range p[MinChunk-window : MinChunk-1] {
		h = h<<1 + g[b]
	}
	n := min(len(p), AvgChunk-1)
	h, at, found := scan(p[MinChunk-1:n], g, h, early)
	if found {
		return MinChunk + at
	}
	if _, at, found = scan(p[n:], g, h, late); found {
		return n + at + 1
	}
	return len(p)
}

// scan hashes p up to the first byte at which the hash is below limit.
func scan(p []byte, g *[256]uint64, h, limit uint64) (hash uint64, at int, found bool) {
	for i, b := range p {
		h = h<<1 + g[b]
		if h < limit {
			return h, i, true
		}
	}
	return h, 0, false
}
