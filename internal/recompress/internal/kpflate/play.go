package kpflate

import (
	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

const (
	// prior is how much of what was before is parsed again where an encoder goes
	// on: the tables are then almost those that it had.
	prior = 2 * maxChunk

	maxChunk   = deflate.MaxStored // bytes that the encoder takes at once
	dictionary = 16 << 10          // that pgzip presets
	tinyStored = 32                // bytes at the end that are stored
	tinyPlain  = 128               // that are written as literals, below
)

// source cuts content into chunks of tokens.
type source interface {
	// begin is told of a run: what is before it is known from base on. It may use
	// c, which is not needed yet.
	begin(in *model.Input, base int, c *chunk)
	// next makes the chunk that begins at from.
	next(c *chunk, from int)
	// lead is how many of a block's tokens are of its first chunk.
	lead(tokens []deflate.Token) int
}

// chunk is what the encoder writes at once.
type chunk struct {
	from, to int
	last     bool // the encoder flushes behind it
	raw      bool // there are no matches: it is stored
	plain    bool // it is written as literals
	storable bool
	head     int             // bytes before it that the encoder takes for its own
	tokens   []deflate.Token // from slack on
	tally    tally           // of tokens

	before  state // of the coder
	decided bool
	verdict verdict
	header  deflate.Header // if a block begins with the chunk
}

// slack is how many tokens may have to be put before the first.
const slack = 2

// room makes the chunk empty.
func (c *chunk) room(n int) {
	if cap(c.tokens) < slack+n {
		c.tokens = make([]deflate.Token, slack+n)
	}
	c.tokens = c.tokens[:slack]
	c.tally = tally{}
	c.decided, c.raw, c.plain, c.last = false, false, false, false
	c.storable, c.head = true, 0
}

// player is a model: it makes chunks ahead, and hands out their tokens.
type player struct {
	source source
	coder  coder
	dict   int // the most that a fresh encoder knows of what was before
	in     model.Input

	now, ahead *chunk
	made       bool // ahead is what follows now
	at         int  // the next of now.tokens
	pos, upTo  int  // where the token with index upTo begins

	ended  bool // the block ended with the present chunk
	first  bool // the present chunk is the first of its block
	split  bool // the block ended in the midst of the present chunk
	stray  bool // the block did not end as predicted: chunks may be others
	header deflate.Header
}

var (
	_ model.Runner = (*player)(nil)
	_ model.Worker = (*player)(nil)
)

func newPlayer(s source, r rules, penalty uint, dict int) *player {
	return &player{source: s, coder: coder{rules: r, penalty: penalty}, dict: dict, now: &chunk{}, ahead: &chunk{}}
}

// Steps implements model.Worker. Only levels 7 to 9 have searches of many steps.
func (p *player) Steps() int64 {
	if z, ok := p.source.(*lazy); ok {
		return z.steps
	}
	return 0
}

// Begin implements model.Model.
func (p *player) Begin(in model.Input) {
	p.in = in
	base := max(0, in.From-p.dict)
	if !in.Fresh {
		base = max(0, in.From-prior)
	}
	p.source.begin(&p.in, base, p.ahead)
	p.coder.state = state{}
	p.now.room(0)
	p.now.from, p.now.to = in.From, in.From
	p.made = false
	p.at, p.pos, p.upTo = slack, in.From, slack
	p.ended, p.first, p.split, p.stray = true, false, false, false
}

// Predict implements model.Model.
func (p *player) Predict() deflate.Token {
	if p.at < len(p.now.tokens) {
		return p.now.tokens[p.at]
	}
	return p.turn()
}

// Commit implements model.Model.
func (p *player) Commit(t deflate.Token) {
	if p.at < len(p.now.tokens) && p.now.tokens[p.at] == t {
		p.at++
		return
	}
	switch predicted := p.turn(); {
	case t == deflate.EndOfBlock:
		p.end()
	case predicted == deflate.EndOfBlock:
		p.goOn(t)
	case predicted == t:
		p.at++
	default:
		p.other(t)
	}
}

// Next implements model.Runner.
func (p *player) Next() []deflate.Token {
	if p.at == len(p.now.tokens) && p.turn() == deflate.EndOfBlock {
		return nil
	}
	return p.now.tokens[p.at:]
}

// Take implements model.Runner.
func (p *player) Take(n int) { p.at += n }

// turn goes on to the next chunk if the block does, and returns what is next.
func (p *player) turn() deflate.Token {
	for p.at == len(p.now.tokens) {
		if p.now.to >= p.in.To {
			return deflate.EndOfBlock
		}
		if !p.ended {
			p.decide(p.now)
			if p.now.verdict.closed {
				return deflate.EndOfBlock
			}
		}
		p.prepare()
		if !p.ended {
			p.decide(p.ahead)
			if p.ahead.verdict.begins {
				return deflate.EndOfBlock
			}
		}
		p.advance()
	}
	return p.now.tokens[p.at]
}

// prepare makes the chunk that follows.
func (p *player) prepare() {
	if !p.made {
		p.source.next(p.ahead, p.now.to)
		p.made = true
	}
}

// advance goes on to the chunk that follows.
func (p *player) advance() {
	if p.first && !p.ended {
		p.header = p.now.header
	}
	p.first = p.ended
	p.now, p.ahead = p.ahead, p.now
	p.made, p.ended = false, false
	p.at, p.pos, p.upTo = slack, p.now.from, slack
}

// decide lets the coder decide on a chunk.
func (p *player) decide(c *chunk) {
	if c.decided {
		return
	}
	c.decided = true
	c.before = p.coder.state
	p.coder.header = &c.header
	switch {
	case c.raw:
		c.verdict = p.coder.simple(deflate.Stored)
	case c.plain:
		c.verdict = p.coder.plain(p.in.Data[c.from:c.to], c.last)
	default:
		size := c.to - c.from + c.head
		if !c.storable || size > deflate.MaxStored {
			size = 0
		}
		c.verdict = p.coder.chunk(&c.tally, size, c.last)
	}
}

// undecide takes back what was decided on the present chunk: a block begins
// with it, and that is all that is known.
func (p *player) undecide() {
	if p.now.decided {
		p.coder.state = p.now.before
	}
	p.coder.open, p.coder.literals = 0, false
	p.now.decided = false
}

// end ends the block.
func (p *player) end() {
	switch {
	case p.at == len(p.now.tokens):
		p.pos, p.upTo = p.now.to, p.at
		if !p.ended {
			p.decide(p.now)
		}
		if p.first {
			p.header = p.now.header
		}
		p.ended = true
	case p.position() == p.now.from && !p.first:
		p.undecide()
		p.first = true
	default:
		p.split = true
	}
}

// Header implements model.Model.
func (p *player) Header(h *deflate.Header, tokens []deflate.Token, content []byte) {
	if p.split {
		p.cut(tokens, content)
	}
	if p.stray {
		p.judge(tokens)
	}
	h.Type, h.Trees = p.header.Type, p.header.Trees
}

// judge decides on the header of a block by its tokens alone.
func (p *player) judge(tokens []deflate.Token) {
	p.stray = false
	n := p.source.lead(tokens)
	var t tally
	t.count(tokens[:n])
	size := 0
	for _, k := range tokens[:n] {
		size += k.Length()
	}
	if size > deflate.MaxStored {
		size = 0
	}
	was := p.coder.state
	p.coder.state, p.coder.header = state{}, &p.header
	p.coder.chunk(&t, size, n == len(tokens) && p.in.End && p.pos == p.in.To)
	p.coder.state = was
}

// cut makes a chunk of the rest of the present one.
func (p *player) cut(tokens []deflate.Token, content []byte) {
	p.split = false
	i, n := len(tokens), p.pos-p.now.from
	for i > 0 && n > 0 {
		i--
		n -= tokens[i].Length()
	}
	var t tally
	t.count(tokens[i:])
	if p.first {
		p.undecide()
		p.coder.header = &p.header
		if p.now.plain {
			p.coder.plain(content, false)
		} else {
			p.coder.chunk(&t, len(content), false)
		}
	}
	p.undecide()
	p.now.tally.remove(tokens[i:])
	p.now.from, p.first = p.pos, true
}

// goOn is told that the block does not end as predicted.
func (p *player) goOn(t deflate.Token) {
	if p.now.to >= p.in.To {
		return // nothing can be there
	}
	p.prepare()
	if p.ahead.decided {
		p.coder.state = p.ahead.before
	}
	p.ahead.before, p.ahead.decided, p.ahead.verdict = p.coder.state, true, verdict{}
	p.stray = true
	if p.advance(); p.now.tokens[p.at] == t {
		p.at++
		return
	}
	p.other(t)
}

// position is where the next token begins.
func (p *player) position() int {
	for ; p.upTo < p.at; p.upTo++ {
		p.pos += p.now.tokens[p.upTo].Length()
	}
	return p.pos
}

// other puts a token in the place of those that it covers, and what is left of
// the last of them behind it.
func (p *player) other(t deflate.Token) {
	c := p.now
	from := p.position()
	to := from + t.Length()
	if to > p.in.To {
		return
	}
	if p.first {
		p.undecide()
	}
	c.raw, c.plain = false, false
	var covered deflate.Token
	for first := p.at; from < to && p.at < len(c.tokens); p.at++ {
		covered = c.tokens[p.at]
		from += covered.Length()
		c.tally.remove(c.tokens[first : first+1])
		first++
	}
	c.tally.count([]deflate.Token{t})
	c.to = max(c.to, to)
	switch n := from - to; {
	case n >= deflate.MinLength:
		p.at--
		c.tokens[p.at] = deflate.Match(n, covered.Distance())
		c.tally.count(c.tokens[p.at : p.at+1])
	case n > 0:
		p.at -= n
		for i := range n {
			c.tokens[p.at+i] = deflate.Literal(p.in.Data[to+i])
		}
		c.tally.count(c.tokens[p.at : p.at+n])
	}
	p.pos, p.upTo = to, p.at
}
