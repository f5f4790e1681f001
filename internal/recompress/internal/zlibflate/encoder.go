package zlibflate

import (
	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// What a run that is not fresh begins with, to come to the state the encoder had:
// levels that hash all positions need only know what was the last token.
const (
	warmSlow = 1 << 10
	warmFast = deflate.Window + 8<<10
)

// encoder plays one encoder.
type encoder struct {
	params
	finder
	all  []byte // of the run, and what is around; data ends where a period does
	from int    // where the period begins, if it is known
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

	// base is where the encoder's buffer of two windows begins, -1 if that is not
	// known: it moves on by a window when looked at beyond maxReach of the second.
	base int

	trees trees
}

var _ model.Model = (*encoder)(nil)

func newEncoder(p params) *encoder { return &encoder{params: p} }

// Begin implements model.Model.
func (e *encoder) Begin(in model.Input) {
	e.all = in.Data
	if in.Fresh {
		e.fresh(in.From)
	} else {
		e.goOn(in.From)
	}
	e.block()
}

// forget drops what was found.
func (e *encoder) forget() {
	e.here, e.then, e.last = noMatch, noMatch, noMatch.length
	e.haveHere, e.haveThen = false, false
}

// fresh begins at a position, with what is before at most as a dictionary. The
// first position of all is the encoder's mark for none, and so never found.
func (e *encoder) fresh(at int) {
	start, data := at, e.all
	if e.restarts {
		start = max(at-deflate.Window, 0)
	}
	if e.period > 0 && len(data)-at > e.period {
		data = data[:at+e.period]
	}
	e.forget()
	e.from, e.base, e.pos = at, start, at
	e.start(data, start+1, e.hashBits)
	e.insert(at)
}

// goOn begins in the midst of a run.
func (e *encoder) goOn(at int) {
	e.forget()
	e.from, e.base = -1, -1
	warm := warmFast
	start := max(at-warmFast, 0)
	if e.slow {
		warm = warmSlow
		start = max(at-deflate.Window, 0)
	}
	first := start
	if at < model.Prior && start == 0 {
		first++
	}
	e.start(e.all, first, e.hashBits)
	e.pos = max(start, at-warm)
	e.insert(e.pos)
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
	e.fresh(e.from + e.period)
	return true
}

// block begins a block.
func (e *encoder) block() {
	e.renew()
	e.count, e.matches, e.weight = 0, 0, 0
	e.begin, e.full = e.pos, false
}

// Skip implements model.Model.
func (e *encoder) Skip(n int) {
	e.play(min(e.pos+max(n, 0), len(e.all)))
	e.block()
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
			e.then, e.haveThen = e.find(e.pos+1, e.here.length), true
		}
		if e.then.length > e.here.length {
			return deflate.Literal(e.data[e.pos])
		}
	}
	return deflate.Match(e.here.length, e.here.distance)
}

// find puts at into the chains and searches for a match longer than last.
func (e *encoder) find(at, last int) match {
	e.insert(at + 1)
	if last >= e.lazy && e.slow || at+deflate.MinLength > len(e.data) {
		return noMatch
	}
	chain := e.chain
	if last >= e.good {
		chain >>= 2
	}
	m := e.longest(at, last, chain, e.nice, e.reach)
	if e.slow && m.length == deflate.MinLength && m.distance > e.tooFar {
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
	e.full = e.count >= e.symbols || e.early && e.count&0xfff == 0 && e.endsEarly(seen)
	for e.base >= 0 && seen-e.base > deflate.Window+maxReach {
		e.base += deflate.Window
	}
}

// endsEarly is GNU gzip's guess whether the block so far does well, and is to
// end. at is how far it has come.
func (e *encoder) endsEarly(at int) bool {
	out := (e.count*8 + e.weight) >> 3
	return e.matches < e.count/2 && out < (at-e.begin)/2
}

// take goes on behind a token.
func (e *encoder) take(t deflate.Token) {
	n := min(t.Length(), len(e.data)-e.pos)
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
	if e.haveThen && e.then.length > e.here.length {
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
	if stored > deflate.MaxStored || e.base >= 0 && e.pos-stored < e.base {
		stored = -1
	}
	e.trees.header(h, tokens, stored)
}
