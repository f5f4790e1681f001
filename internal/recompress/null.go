package recompress

import (
	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// nothing is the model that knows no encoder: it predicts literals up to the
// end, in one fixed block. With it any stream has a recipe.
type nothing struct {
	in  model.Input
	pos int
}

func (m *nothing) Begin(in model.Input) { m.in, m.pos = in, in.From }

func (m *nothing) Predict() deflate.Token {
	if m.pos >= m.in.To {
		return deflate.EndOfBlock
	}
	return deflate.Literal(m.in.Data[m.pos])
}

func (m *nothing) Commit(t deflate.Token) { m.pos += t.Length() }

func (m *nothing) Header(h *deflate.Header, _ []deflate.Token, _ []byte) { h.Type = deflate.Fixed }
