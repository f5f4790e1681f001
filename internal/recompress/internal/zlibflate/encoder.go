package zlibflate

import (
	"math/bits"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// How much is played before a piece of a run, to come to the state the encoder
// had: where all positions are in the chains only the last match matters.
const (
	warmSlow = 1 << 10
	warmFast = 2 * deflate.Window
)

// moveAt is where in its buffer of two windows an encoder moves the second to
// the first.
const moveAt = deflate.Window + maxReach

// encoder plays one encoder.
type encoder struct {
	params
	finder
	all  []byte // of the run, and what is around; data ends where a period does
	from int    // where the period begins
	end  bool   // of the run is that of all
	pos  int
	here match // at pos, if haveHere; of a slow encoder, longer than last
	then match // at pos+1 and longer than here, if haveThen
	last int   // length of the match at pos-1 that was left for a literal, or 2

	haveHere, haveThen bool

	count   int // tokens in the block
	begin   int // of the block
	matches int // in the block
	weight  int // bits of their distances, as GNU gzip guesses them
	full    bool

	base int  // of the encoder's buffer of two windows
	done bool // GNU gzip came to the end, and moves nothing any more

	trees trees
}

var _ model.Worker = (*encoder)(nil)

func newEncoder(p params) *encoder {
	e := &encoder{params: p}
	e.shift, e.mask = (p.hashBits+2)/3, 1<<p.hashBits-1
	if p.chain >= deepFrom {
		e.deep = new(deep)
	}
	return e
}

// Steps implements model.Worker.
func (e *encoder) Steps() int64 { return e.steps }

// Begin implements model.Model.
func (e *encoder) Begin(in model.Input) {
	e.all, e.end = in.Data, in.End
	e.done = false
	if in.Fresh {
		e.settle(in.From, in.From, max(in.From-deflate.Window, 0))
	} else {
		// Only where buffers and periods begin matters of what is far away.
		offset := in.Offset
		if offset >= 2*maxOffset {
			offset = maxOffset + offset%maxOffset
		}
		began := -int(offset)
		if e.period > 0 {
			began = in.From - (in.From-began)%e.period
		}
		floor := began - deflate.Window
		if offset <= 0 {
			floor = max(floor, 0)
		}
		e.settle(in.From, began, floor)
	}
	e.block()
}

// maxOffset is a multiple of window and period.
const maxOffset = 1 << 20

// settle brings the encoder to position at, having begun at began, with what is
// from floor on as a dictionary if it takes one. Either may be before the data.
func (e *encoder) settle(at, began, floor int) {
	if !e.restarts {
		floor = began
	}
	e.data = e.all
	if e.period > 0 && len(e.all)-began > e.period {
		e.data = e.all[:began+e.period]
	}
	start, from := max(at-deflate.Window, floor, 0), max(at-warmSlow, began, 0)
	if !e.slow {
		start = max(at-warmFast, floor, 0)
		from = max(start, began)
	}
	e.here, e.then, e.last = noMatch, noMatch, noMatch.length
	e.haveHere, e.haveThen = false, false
	e.from, e.base, e.pos = began, floor, from
	first := start
	if start == floor {
		first++ // the encoder's mark for none, and so never found
	}
	e.start(first)
	e.insert(from)
	e.play(at)
}

// play goes on to position to without looking at blocks.
func (e *encoder) play(to int) {
	for e.pos < to {
		if e.renew() {
			continue
		}
		t := e.choose()
		if e.pos+t.Length() > to {
			e.insert(to)
			e.pos, e.last = to, noMatch.length
			e.haveHere, e.haveThen = false, false
			return
		}
		e.take(t)
	}
}

// renew begins the next period if one ended.
func (e *encoder) renew() bool {
	if e.pos < len(e.data) || len(e.data) == len(e.all) {
		return false
	}
	e.settle(e.pos, e.pos, max(e.pos-deflate.Window, 0))
	return true
}

// block begins a block.
func (e *encoder) block() {
	e.renew()
	e.count, e.matches, e.weight = 0, 0, 0
	e.begin, e.full = e.pos, false
}

// Predict implements model.Model.
func (e *encoder) Predict() deflate.Token {
	if e.full || e.pos >= len(e.data) {
		return deflate.EndOfBlock
	}
	return e.choose()
}

// choose returns the next literal or match.
func (e *encoder) choose() deflate.Token {
	if !e.haveHere {
		e.here, e.haveHere = e.find(e.pos, e.last), true
	}
	if e.here.length < deflate.MinLength {
		return deflate.Literal(e.data[e.pos])
	}
	if e.slow {
		if !e.haveThen {
			e.then, e.haveThen = e.better(), true
		}
		if e.then != noMatch {
			return deflate.Literal(e.data[e.pos])
		}
	}
	return deflate.Match(e.here.length, e.here.distance)
}

// better returns the match at the next position if it is better than the one
// here.
func (e *encoder) better() match {
	if !e.weighs {
		return e.find(e.pos+1, e.here.length)
	}
	m := e.find(e.pos+1, max(e.here.length-1, noMatch.length))
	if gain := 4*(m.length-e.here.length) + bits.Len(uint(e.here.distance)) - bits.Len(uint(m.distance)); m == noMatch || gain <= 2 {
		return noMatch
	}
	return m
}

// find puts at into the chains and searches for a match longer than last.
func (e *encoder) find(at, last int) match {
	e.insert(at + 1)
	if e.move(at); e.done && at-e.base > moveAt {
		return noMatch
	}
	if last >= e.lazy && e.slow || at+deflate.MinLength > len(e.data) {
		return noMatch
	}
	chain := e.chain
	if last >= e.good {
		chain >>= 2
	}
	var m match
	if e.gnu && e.end && len(e.data)-at < maxLength {
		m = e.longestGNU(at, last, chain)
	} else {
		m = e.longest(at, last, chain, e.nice, e.reach)
	}
	if e.slow && (m.length == deflate.MinLength && m.distance > e.tooFar || m.length < e.least) {
		return noMatch
	}
	return m
}

// Commit implements model.Model.
func (e *encoder) Commit(t deflate.Token) {
	if t == deflate.EndOfBlock {
		e.block()
		return
	}
	at := e.pos
	e.take(t)
	e.count++
	if t.IsMatch() {
		e.matches++
		e.weight += 5 + int(deflate.DistExtra[t.DistSymbol()])
	}
	// What the encoder has come to when it puts a token in the buffer.
	seen := at
	if e.slow {
		seen++
	}
	e.full = e.count == e.symbols || e.early && e.count&0xfff == 0 && e.endsEarly(seen)
	e.move(seen)
}

// move moves the encoder's buffer on, when it has come to a position.
func (e *encoder) move(at int) {
	if e.done {
		return
	}
	limit := moveAt
	if e.gnu && e.end && len(e.data)-at < lookAhead {
		limit--
		e.done = true
	}
	if over := at - e.base - limit; over > 0 {
		e.base += (over + deflate.Window - 1) &^ windowMask
	}
}

// take goes on behind a token.
func (e *encoder) take(t deflate.Token) {
	n := min(t.Length(), len(e.all)-e.pos)
	if n > len(e.data)-e.pos {
		e.data = e.all // the period is another
	}
	if !t.IsMatch() {
		e.literal(n)
		return
	}
	e.insert(e.pos + 1)
	e.pos += n
	if e.slow || n <= e.lazy && e.pos+deflate.MinLength <= len(e.data) {
		e.insert(e.pos)
	}
	e.next = max(e.next, e.pos)
	e.last = noMatch.length
	e.haveHere, e.haveThen = false, false
}

func (e *encoder) literal(n int) {
	e.insert(e.pos + 1)
	e.pos += n
	e.last = noMatch.length
	if e.haveThen && e.then != noMatch {
		e.here = e.then
	} else {
		// No match, or one that the encoder did not see.
		e.haveHere = false
	}
	e.haveThen = false
}

// Header implements model.Model.
func (e *encoder) Header(h *deflate.Header, tokens []deflate.Token, content []byte) {
	stored := len(content)
	if stored > deflate.MaxStored || e.pos-stored < e.base {
		stored = -1
	}
	e.trees.header(h, tokens, stored)
}
