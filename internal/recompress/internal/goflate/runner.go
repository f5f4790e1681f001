package goflate

import (
	"slices"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

var (
	_ model.Runner = (*lazy)(nil)
	_ model.Runner = (*fast)(nil)
	_ model.Worker = (*lazy)(nil)
	_ model.Worker = (*greedy)(nil)
)

// Next implements model.Runner. The end of a block is planned alone.
func (m *lazy) Next() []deflate.Token {
	if m.Predict() == deflate.EndOfBlock {
		return nil
	}
	return m.tokens[m.k:m.n]
}

// Take implements model.Runner.
func (m *lazy) Take(n int) { m.k += n }

// Next implements model.Runner.
func (m *fast) Next() []deflate.Token {
	m.said = m.said[:0]
	if m.Predict() == deflate.EndOfBlock {
		return m.said
	}
	at := m.at
	said := slices.Grow(m.said, max(m.planned-at, 0))
	for _, f := range m.matches[m.next:] {
		said = append(literals(said, m.data[at:f.at]), f.token)
		at = f.at + f.token.Length()
	}
	m.said = literals(said, m.data[at:max(at, m.planned)])
	return m.said
}

// literals appends bytes, for which there is room.
func literals(tokens []deflate.Token, b []byte) []deflate.Token {
	n := len(tokens)
	tokens = tokens[:n+len(b)]
	for i, c := range b {
		tokens[n+i] = deflate.Literal(c)
	}
	return tokens
}

// Take implements model.Runner.
func (m *fast) Take(n int) {
	m.at += deflate.Length(m.said[:n])
	if n == len(m.said) && n > 0 {
		m.next = len(m.matches)
	} else {
		for _, t := range m.said[:n] {
			if t.IsMatch() {
				m.next++
			}
		}
	}
	m.pause()
}
