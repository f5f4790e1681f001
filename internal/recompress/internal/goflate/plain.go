package goflate

import (
	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// plain plays HuffmanOnly, and level 0, which stores.
type plain struct {
	writer
	blocks
	store bool
}

func (m *plain) Begin(in model.Input) {
	m.begin(in)
	m.block()
}

func (m *plain) Predict() deflate.Token {
	if m.at >= m.end {
		return deflate.EndOfBlock
	}
	return deflate.Literal(m.data[m.at])
}

func (m *plain) Commit(t deflate.Token) {
	if m.at = min(m.at+t.Length(), len(m.data)); t == deflate.EndOfBlock {
		m.block()
	}
	m.end = max(m.end, m.at)
}

func (m *plain) Header(h *deflate.Header, tokens []deflate.Token, content []byte) {
	if !m.store {
		m.dynamic(h, tokens, len(content))
	}
}
