package goflate

import (
	"unsafe"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// What the encoder of level 1 is made of.
const (
	fastBits   = 14
	fastMargin = 15  // bytes at the end of a block where no match begins
	fastTiny   = 16  // a last block that is no longer is stored
	fastSmall  = 128 // in a last block that is shorter no match is looked for
	fastStep   = 32  // positions without a match after which more are left out
)

// fast plays level 1, which works block by block.
type fast struct {
	writer
	blocks
	p     unsafe.Pointer        // of data[0]
	table [1 << fastBits]uint32 // the last position of a hash, and away
	log   []change

	// Matches of the block up to planned, from the next on.
	matches []match
	next    int
	planned int
	stop    int  // of the literals that come next
	after   bool // planned is where a match ends
	size    int  // how far to plan the next time

	said []deflate.Token // what Next returned
}

// blocks is where a model is that works block by block.
type blocks struct {
	data   []byte
	at     int  // of the next token
	end    int  // of the block
	closed bool // the encoder is told to flush at the end of data
}

func (b *blocks) begin(in model.Input) {
	b.data, b.at, b.closed = in.Data, in.From, in.End
}

// block begins a block.
func (b *blocks) block() { b.end = min(b.at+deflate.MaxStored, len(b.data)) }

// change is what a position put into the table was put in place of.
type change struct{ slot, old uint32 }

type match struct {
	at    int
	token deflate.Token
}

func (m *fast) Begin(in model.Input) {
	clear(m.table[:])
	m.begin(in)
	m.p = unsafe.Pointer(unsafe.SliceData(m.data))
	if !in.Fresh {
		m.at = in.From - min(1, in.From/deflate.MaxStored)*deflate.MaxStored
		for m.at < in.From {
			m.block()
			m.reset(m.at, false)
			m.scan(m.end)
			m.at = m.end
		}
	}
	m.enter()
}

// enter plans a block.
func (m *fast) enter() {
	m.block()
	m.reset(m.at, false)
	n := m.end - m.at
	if m.planned = m.end; n >= fastSmall {
		m.planned = m.at
		m.scan(m.end)
	}
	tokens := n
	for _, f := range m.matches {
		tokens -= f.token.Length() - 1
	}
	if tokens > n-n>>4 {
		m.matches = m.matches[:0]
	}
	m.pause()
}

// reset forgets what was planned.
func (m *fast) reset(at int, after bool) {
	m.log, m.matches, m.next = m.log[:0], m.matches[:0], 0
	m.planned, m.stop, m.after, m.size = at, at, after, fastSmall
}

func (m *fast) Predict() deflate.Token {
	if m.at < m.stop {
		return deflate.Literal(m.data[m.at])
	}
	if m.at == m.planned && m.at < m.end {
		m.size *= 2
		m.scan(min(m.at+m.size, m.end))
		m.pause()
		return m.Predict()
	}
	if m.next < len(m.matches) {
		return m.matches[m.next].token
	}
	return deflate.EndOfBlock
}

// pause finds where the next token is that is no literal.
func (m *fast) pause() {
	m.stop = m.planned
	if m.next < len(m.matches) {
		m.stop = m.matches[m.next].at
	}
}

func (m *fast) Commit(t deflate.Token) {
	if m.at < m.stop && t < 1<<8 {
		m.at++
		return
	}
	planned := m.Predict()
	m.at = min(m.at+t.Length(), len(m.data))
	switch {
	case t == planned && t.IsMatch():
		m.next++
		m.pause()
	case t == planned: // the end of the block
		m.enter()
	case t == deflate.EndOfBlock || planned == deflate.EndOfBlock:
		m.retract(m.at)
		m.enter()
	default:
		m.retract(m.at)
		m.end = max(m.end, m.at)
		m.reset(m.at, t.IsMatch())
	}
}

// retract takes positions from at on out of the table again.
func (m *fast) retract(at int) {
	for n := len(m.log); n > 0; n-- {
		l := m.log[n-1]
		if int(m.table[l.slot])-away < at {
			break
		}
		m.table[l.slot] = l.old
	}
}

func (m *fast) Header(h *deflate.Header, tokens []deflate.Token, content []byte) {
	if m.closed && m.at == len(m.data) && len(content) <= fastTiny {
		h.Type = deflate.Stored
		return
	}
	m.dynamic(h, tokens, len(content))
}
