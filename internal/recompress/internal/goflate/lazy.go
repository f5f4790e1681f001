package goflate

import (
	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

const (
	batch = 512  // tokens that are planned ahead, at most
	ahead = 2048 // positions put into the chains at once

	// reach is how much content is planned ahead, but for a match: if what is
	// planned is dropped, a window before it must still be in the chains.
	reach = window / 2
)

// plan holds tokens that were planned ahead of what is committed.
type plan struct {
	tokens [batch]deflate.Token
	n, k   int // planned, and committed of them
	size   int // how many to plan the next time
	at     int // position of the first
	next   int // position behind the last
	count  int // tokens of the block that came before them
}

// begin starts a block at a position.
func (p *plan) begin(at int) {
	p.n, p.k, p.size, p.at, p.next, p.count = 0, 0, batch/8, at, at, 0
}

// position is where the next token begins.
func (p *plan) position() int {
	if p.k == p.n {
		return p.next
	}
	at := p.at
	for _, t := range p.tokens[:p.k] {
		at += t.Length()
	}
	return at
}

// renew begins to plan anew, behind what was planned.
func (p *plan) renew() {
	if p.n > 0 && p.tokens[p.n-1] == deflate.EndOfBlock {
		p.count = 0
	} else {
		p.count += p.n
	}
	p.at, p.n, p.k = p.next, 0, 0
}

// replace puts t in place of the next token and drops the others.
func (p *plan) replace(t deflate.Token, end int) {
	at := min(p.position()+t.Length(), end)
	switch {
	case t == deflate.EndOfBlock:
		p.count = 0
	case p.k < p.n && p.tokens[p.k] == deflate.EndOfBlock:
		p.count = 1
	default:
		p.count = (p.count + p.k + 1) % blockFull
	}
	p.n, p.k, p.size, p.at, p.next = 0, 0, 4, at, at
}

// params are those of a level.
type params struct {
	lazy  int // up to which length of a match a better one is looked for
	nice  int // length that ends a search
	chain int // how many positions a search looks at
	skip  int // length over which positions in a match are not looked for
}

// lazy plays levels 4 to 9.
type lazy struct {
	chains
	plan
	writer
	params

	// The match at next, if it is known.
	known            bool
	length, distance int
}

func (m *lazy) Begin(in model.Input) {
	m.chains.begin(in)
	m.plan.begin(in.From)
	m.known = false
	m.ins = max(0, in.From-window)
	if in.Fresh && in.From > 0 {
		// Of a dictionary the last positions are left out.
		m.link(in.From - minMatch + 1)
		m.ins, m.plain = in.From, in.From+window
	}
	m.place(in.From)
}

func (m *lazy) Predict() deflate.Token {
	if m.k == m.n {
		m.renew()
		m.fill()
	}
	return m.tokens[m.k]
}

func (m *lazy) Commit(t deflate.Token) {
	if m.k < m.n && m.tokens[m.k] == t {
		m.k++
		return
	}
	m.replace(t, len(m.data))
	m.resume()
}

// resume goes on at next, as after a literal or match.
func (m *lazy) resume() {
	m.known = false
	m.ins = max(m.ins, m.next-window)
	m.place(m.next)
}

// fill plans tokens.
func (m *lazy) fill() {
	n, at, end := 0, m.next, len(m.data)
	size := min(m.size, blockFull-m.count)
	m.size = min(m.size*2, batch)
	length, distance, known := m.length, m.distance, m.known
	for stop := min(at+reach, end); n < size && at < stop; n++ {
		if at+2*maxMatch > m.ins {
			m.link(at + 2*maxMatch + ahead)
		}
		if !known {
			length = 0
			if at >= m.shift {
				m.move()
			}
			if end-at >= minMatch && m.reaches(at) {
				length, distance = m.find(at, minMatch-1, m.chain, m.nice)
			}
		}
		known = false
		if length == 0 {
			m.tokens[n] = deflate.Literal(m.data[at])
			at++
			continue
		}
		if at+1 >= m.shift {
			m.move()
		}
		if length < m.lazy && end-at-1 > length {
			if l, d := m.find(at+1, length, m.chain, m.nice); l > 0 {
				m.tokens[n] = deflate.Literal(m.data[at])
				at++
				length, distance, known = l, d, true
				continue
			}
		}
		m.tokens[n] = deflate.Match(length, distance)
		at += length
	}
	if n == 0 {
		m.tokens[0] = deflate.EndOfBlock
		n++
	}
	m.length, m.distance, m.known = length, distance, known
	m.n, m.next = n, at
}

// Header is that of Go's writeBlock.
func (m *lazy) Header(h *deflate.Header, tokens []deflate.Token, content []byte) {
	end := m.position()
	at := end // where the encoder looked last
	if n := len(tokens); n > 0 && tokens[n-1].IsMatch() {
		at -= tokens[n-1].Length() - 1
	}
	m.smallest(h, tokens, len(content), end-len(content) >= m.baseAt(at))
}
