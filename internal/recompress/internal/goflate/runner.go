package goflate

import (
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
	for _, f := range m.matches[m.next:] {
		for _, b := range m.data[at:f.at] {
			m.said = append(m.said, deflate.Literal(b))
		}
		m.said = append(m.said, f.token)
		at = f.at + f.token.Length()
	}
	for _, b := range m.data[at:max(at, m.planned)] {
		m.said = append(m.said, deflate.Literal(b))
	}
	return m.said
}

// Take implements model.Runner.
func (m *fast) Take(n int) {
	for _, t := range m.said[:n] {
		if t.IsMatch() {
			m.next++
		}
		m.at += t.Length()
	}
	m.pause()
}
