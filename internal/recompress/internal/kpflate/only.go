package kpflate

import (
	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

const onlyChunk = 32 << 10

// only is the source of level -2, which looks for no matches.
type only struct{ in *model.Input }

func (o *only) begin(in *model.Input, _ int, _ *chunk) { o.in = in }

func (o *only) next(c *chunk, from int) {
	c.room(onlyChunk)
	c.from, c.to = from, min(from+onlyChunk, o.in.To)
	c.last = o.in.End && c.to == o.in.To
	c.plain = true
	q := draft{tokens: c.tokens, tally: &c.tally}
	q.literals(o.in.Data[c.from:c.to])
	c.tokens = q.tokens
	c.tally.tokens = c.to - c.from
}

func (o *only) lead(tokens []deflate.Token) int { return leading(tokens, onlyChunk) }
