package recompress

import (
	"math/bits"

	"github.com/imgpack/imgpack/internal/deflate"
)

// gap takes how many predictions are right before the next correction, or none
// if there is none any more. Dense parts have none.
func (p *player) gap(n int) int {
	if p.dense {
		return none
	}
	n = p.c.number(&p.corrected.gap[min(bits.Len(uint(p.lastGap))/2, 3)], n)
	p.lastGap = max(n, 0)
	return n
}

// correction takes the token that is there and not as predicted. It is not
// proven to fit, but for matches' length and distance.
func (p *player) correction(predicted, t deflate.Token, to int) (deflate.Token, bool) {
	m := &p.corrected
	p.miss()
	class := &m.class[classBefore(predicted)][p.lastClass]
	if p.dense {
		class = &m.dense.class[p.prediction]
	}
	p.lastClass = p.c.tree(class[:], classOf(t, predicted), 2)
	switch p.lastClass {
	case classEnd:
		return deflate.EndOfBlock, true
	case classLiteral:
		return deflate.Literal(p.data[p.pos]), true
	case classSame:
		if !predicted.IsMatch() {
			return 0, false
		}
		return p.match(t, predicted.Distance(), 0, to)
	}
	if p.dense && to-p.pos >= deflate.MinLength {
		if d, ok := p.nearest(t.Distance()); ok {
			return p.match(t, d, 1, to)
		}
	}
	s := p.c.tree(m.dist[:], t.DistSymbol(), 5)
	if s >= deflate.MaxDist {
		return 0, false
	}
	extra := p.c.direct(uint32(t.Distance()-1)-uint32(deflate.DistBase[s]), int(deflate.DistExtra[s]))
	return p.match(t, int(deflate.DistBase[s])+int(extra)+1, 1, to)
}

// match takes the length of a match whose distance is known.
func (p *player) match(t deflate.Token, distance, context, to int) (deflate.Token, bool) {
	m := &p.corrected
	if distance < 1 || distance > p.pos-p.base {
		return 0, false
	}
	longest := p.common(distance, min(deflate.MaxLength, to-p.pos))
	if longest < deflate.MinLength {
		return 0, false
	}
	length := longest
	if p.c.flag(&m.full[context], t.Length() != longest) {
		n := p.c.number(&m.shorter[context], longest-1-t.Length())
		if length = longest - 1 - n; n < 0 || length < deflate.MinLength {
			return 0, false
		}
	}
	long := deflate.Token(0)
	if length == deflate.MaxLength && p.c.flag(&m.longForm, t&deflate.LongForm != 0) {
		long = deflate.LongForm
	}
	return deflate.Match(length, distance) | long, true
}
