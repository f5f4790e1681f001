package kpflate

import (
	"math"

	"github.com/imgpack/imgpack/internal/deflate"
)

// estimate is the size in bits that the encoder thinks the best codes for a
// chunk would give. The encoder works with 32-bit floats; every product is
// rounded by a conversion, so that no machine joins it with a sum and gets
// something else.
func (t *tally) estimate() int {
	var sum float32
	extra, matches := 0, 0
	each := 1 / float32(t.tokens)
	for _, n := range t.lit[:deflate.EndSymbol] {
		if n > 0 {
			sum += cost(n, each)
		}
	}
	sum += 15 // for the end of the block
	for i, x := range deflate.LengthExtra {
		if n := t.lit[deflate.FirstMatch+i]; n > 0 {
			sum += cost(n, each)
			extra += int(x) * int(n)
			matches += int(n)
		}
	}
	each = 1 / float32(matches)
	for i, x := range deflate.DistExtra {
		if n := t.dist[i]; n > 0 {
			sum += cost(n, each)
			extra += int(x) * int(n)
		}
	}
	return int(sum) + extra
}

// cost is that of n symbols, each at 1 to 15 bits.
func cost(n uint16, each float32) float32 {
	w := -log2(float32(float32(n) * each))
	return float32(max(1, min(15, w)) * float32(n))
}

// log2 is the encoder's approximation.
func log2(v float32) float32 {
	bits := math.Float32bits(v)
	whole := float32(int32(bits>>23&255) - 128)
	m := math.Float32frombits(bits&^(255<<23) + 127<<23)
	p := float32(-0.34484843*m) + 2.02466578
	return whole + (float32(p*m) - 0.67487759)
}
