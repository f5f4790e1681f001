package kpflate

import (
	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// finder finds the matches of levels 1 to 6.
type finder interface {
	// reset forgets all. Positions will be below size.
	reset(size int)
	// parse appends the tokens of data from a position on, none if there is no
	// match. It may look back down to base.
	parse(q *draft, data []byte, base, from int)
}

// fast is the source of levels 1 to 6: chunks are of 65535 bytes, and no match
// reaches into the next.
type fast struct {
	finder
	shorter bool // see draft
	buffer  *buffer
	in      *model.Input
	base    int // what is before it no match reaches
}

func (f *fast) begin(in *model.Input, base int, c *chunk) {
	f.in, f.base = in, base
	f.reset(len(in.Data))
	c.room(maxChunk)
	*f.buffer = buffer{}
	f.buffer.add(base, in.From-base)
	for at := base; at < in.From; at += maxChunk {
		c.room(maxChunk)
		f.parse(&draft{c.tokens, &c.tally, f.shorter}, in.Data[:min(at+maxChunk, in.From)], base, at)
	}
	if !in.Fresh {
		*f.buffer = resume(in.Offset, in.From)
	}
}

func (f *fast) next(c *chunk, from int) {
	c.room(maxChunk)
	c.from, c.to = from, min(from+maxChunk, f.in.To)
	c.last = f.in.End && c.to == f.in.To
	content := f.in.Data[from:c.to]
	q := draft{c.tokens, &c.tally, f.shorter}
	switch n := len(content); {
	case n <= tinyStored:
		c.raw = true
	case n < tinyPlain:
		c.plain = true
	default:
		f.buffer.add(from, n)
		f.parse(&q, f.in.Data[:c.to], f.base, from)
		c.raw = len(q.tokens) == slack
		c.plain = len(q.tokens)-slack > n-n>>4
	}
	if c.raw || c.plain {
		q.tokens, c.tally = q.tokens[:slack], tally{}
		q.literals(content)
	}
	c.tokens = q.tokens
	c.tally.tokens = len(q.tokens) - slack
}

func (f *fast) lead(tokens []deflate.Token) int { return leading(tokens, maxChunk) }

// leading is how many tokens stand for the first bytes.
func leading(tokens []deflate.Token, bytes int) (n int) {
	for n < len(tokens) && bytes > 0 {
		bytes -= tokens[n].Length()
		n++
	}
	return n
}
