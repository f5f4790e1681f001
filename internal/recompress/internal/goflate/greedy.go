package goflate

import (
	"math"
	"math/bits"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// greedy plays levels 2 and 3, which take the first match there is, and do not
// put all positions into chains.
type greedy struct {
	chains
	writer
	params
	at    int // of the next token
	count int // tokens of the block

	// The token at at, if it is known.
	known bool
	token deflate.Token
}

func (m *greedy) Begin(in model.Input) {
	m.chains.begin(in)
	m.plain = math.MaxInt
	m.count, m.known = 0, false
	if in.Fresh {
		m.ins = max(0, in.From-window)
		m.link(in.From - minMatch + 1) // a dictionary
	} else {
		m.at = max(0, in.From-4*window)
		m.place(m.at)
		for m.at < in.From {
			t := m.search()
			m.pass(t)
		}
	}
	m.at, m.count = in.From, 0
	m.known = false
	m.place(in.From)
}

func (m *greedy) Predict() deflate.Token {
	if m.at == len(m.data) || m.count == blockFull {
		return deflate.EndOfBlock
	}
	if !m.known {
		m.token, m.known = m.search(), true
	}
	return m.token
}

// search finds the next token, and puts its position into the chains.
func (m *greedy) search() deflate.Token {
	if m.at >= m.shift {
		m.move()
	}
	if len(m.data)-m.at >= minMatch {
		m.insert(m.at, bits.ReverseBytes32(load32(m.p, m.at)))
		if !m.reaches(m.at) {
			return deflate.Literal(m.data[m.at])
		}
		if l, d := m.find(m.at, minMatch-1, m.chain, m.nice); l > 0 {
			return deflate.Match(l, d)
		}
	}
	return deflate.Literal(m.data[m.at])
}

// pass goes on behind a token that was searched for.
func (m *greedy) pass(t deflate.Token) {
	n := t.Length()
	if t.IsMatch() && n <= m.skip {
		m.ins = m.at + 1
		m.link(m.at + n)
	}
	m.at = min(m.at+n, len(m.data))
	m.known = false
}

func (m *greedy) Commit(t deflate.Token) {
	if t == deflate.EndOfBlock {
		m.count = 0
		return
	}
	if m.count == blockFull {
		m.count = 0
	}
	m.count++
	if !m.known && m.at < len(m.data) {
		m.search()
	}
	m.pass(t)
}

// Header is that of Go's writeBlock.
func (m *greedy) Header(h *deflate.Header, tokens []deflate.Token, content []byte) {
	at := m.at
	if n := len(tokens); n > 0 {
		at -= tokens[n-1].Length()
	}
	m.smallest(h, tokens, len(content), m.at-len(content) >= m.baseAt(at))
}
