package recompress

import (
	"math/bits"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/internal/rangecoder"
)

// Parts with many corrections are packed in another way: a flag for each token,
// and distances by how many others would do.

// denseModel is what is learnt in such parts.
type denseModel struct {
	miss  [predictions][8]rangecoder.Prob // by the prediction, and the last three flags
	class [predictions][4]rangecoder.Prob
	hops  number
}

// Bounds of the search for the positions that a match may begin at.
const (
	hopBits    = 15
	maxHops    = 255  // that are counted
	maxSteps   = 1024 // along a chain
	offerSteps = 8    // where a literal is predicted
)

const (
	predictions = 32   // kinds of them that are told apart
	farAway     = 4096 // distances above are
)

// wrong takes whether a prediction is wrong.
func (p *player) wrong(predicted deflate.Token, to int, wrong bool) bool {
	p.prediction = p.kindOf(predicted, to)
	wrong = p.c.flag(&p.corrected.dense.miss[p.prediction][p.lastMiss], wrong)
	if p.lastMiss = p.lastMiss << 1 & 7; wrong {
		p.lastMiss |= 1
	}
	return wrong
}

// kindOf tells predictions that are wrong more often from others.
func (p *player) kindOf(t deflate.Token, to int) int {
	switch {
	case t == deflate.EndOfBlock:
		return 0
	case !t.IsMatch():
		return 16 + p.offer(to)
	}
	n := 1 + min(2*bits.Len(uint(t.Length()-2)), 12)
	if t.Distance() > farAway {
		n++
	}
	return n
}

// offer tells what match there is where a literal is predicted: 0 none.
func (p *player) offer(to int) (kind int) {
	if to-p.pos < deflate.MinLength {
		return 0
	}
	p.hop(offerSteps, func(_, d int) bool {
		kind = 1 + 2*(p.common(d, min(to-p.pos, 8))-deflate.MinLength)
		if d > farAway {
			kind++
		}
		return true
	})
	return kind
}

// hops finds earlier positions with the same three bytes, the nearest first.
type hops struct {
	head  [1 << hopBits]int32 // position of the last with a hash, plus 1
	prev  [deflate.Window]int32
	next  int // is put in next
	begun bool
}

// follow puts all positions before p.pos in.
func (p *player) follow() *hops {
	if p.chain == nil {
		p.chain = new(hops)
	}
	h := p.chain
	if !h.begun {
		clear(h.head[:])
		h.begun, h.next = true, max(p.from-deflate.Window, 0)
	}
	for ; h.next < p.pos; h.next++ {
		at := &h.head[hash3(p.data[h.next:])]
		h.prev[h.next%deflate.Window] = *at
		*at = int32(h.next + 1)
	}
	return h
}

// hash3 needs three bytes; matches are no shorter.
func hash3(b []byte) uint32 {
	return (uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16) * 0x9e3779b1 >> (32 - hopBits)
}

// hop calls f for distances at which a match may begin, until it returns true, on
// so many steps along a chain.
func (p *player) hop(most int, f func(n, distance int) bool) {
	h := p.follow()
	here := p.data[p.pos : p.pos+deflate.MinLength]
	low := max(p.pos-deflate.Window, p.base)
	n, steps := 0, 0
	for at := int(h.head[hash3(here)]) - 1; at >= low && n < maxHops && steps < most; steps++ {
		if b := p.data[at : at+deflate.MinLength]; b[0] == here[0] && b[1] == here[1] && b[2] == here[2] {
			if f(n, p.pos-at) {
				break
			}
			n++
		}
		last := at
		if at = int(h.prev[at%deflate.Window]) - 1; at >= last {
			break
		}
	}
	p.hops += steps
}

// nearest takes a distance as the number of those that are shorter and would do
// for three bytes, or none if they are too many.
func (p *player) nearest(distance int) (int, bool) {
	found := none
	if p.c.packing {
		p.hop(maxSteps, func(n, d int) bool {
			if d == distance {
				found = n
			}
			return d >= distance
		})
	}
	found = p.c.number(&p.corrected.dense.hops, found)
	if found == none || p.c.packing {
		return distance, found != none
	}
	distance = 0
	p.hop(maxSteps, func(n, d int) bool {
		if n == found {
			distance = d
		}
		return n == found
	})
	return distance, true
}
