package kpzstd

import (
	"encoding/binary"
	"math/bits"
)

const (
	prime5 = 889523592379
	prime6 = 227718039650203
	prime8 = 0xcf1bbcdcb7a56463

	// rebaseAt is the position from which positions are counted anew: 1<<32 less
	// what a buffer holds, and much to spare.
	rebaseAt = 3 << 30
)

// history is the content that matches may refer to, and the block behind it.
type history struct {
	buf    []byte // of fixed capacity
	base   uint32 // position of buf[0]; never less than window, so that 0 is too far away
	window int
}

func newHistory(p Params) history {
	window := 1 << p.WindowLog
	return history{buf: make([]byte, 0, 2*window+p.blockSize()), base: uint32(window), window: window}
}

// next makes room for a block; positions of the content do not change.
func (h *history) next(block int) {
	if len(h.buf)+block <= cap(h.buf) {
		return
	}
	drop := len(h.buf) - h.window
	copy(h.buf, h.buf[drop:])
	h.buf = h.buf[:h.window]
	h.base += uint32(drop)
}

// forget begins with an empty content, far behind the last.
func (h *history) forget() {
	h.base += uint32(len(h.buf) + h.window)
	h.buf = h.buf[:0]
}

// rebase returns how much is to be taken from all positions before the next
// block, at times; positions that fall below 0 become 0.
func (h *history) rebase() (less uint32) {
	if h.base < rebaseAt {
		return 0
	}
	less = h.base - uint32(h.window)
	h.base = uint32(h.window)
	return less
}

func rebased(pos, less uint32) uint32 {
	if pos < less {
		return 0
	}
	return pos - less
}

// entry is a place in a table: the four bytes there and the position.
type entry uint64

func makeEntry(v uint64, pos uint32) entry { return entry(v<<32 | uint64(pos)) }

func (e entry) pos() uint32   { return uint32(e) }
func (e entry) bytes() uint32 { return uint32(e >> 32) }

func rebaseEntries(t []entry, less uint32) {
	for i, e := range t {
		t[i] = makeEntry(uint64(e.bytes()), rebased(e.pos(), less))
	}
}

func load32(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[i:]) }
func load64(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i:]) }

// matchLen is how many bytes are the same at s and at t, which is before s.
func matchLen(b []byte, s, t int) int {
	x := b[s:]
	y := b[t:]
	y = y[:len(x)]
	n := 0
	for len(x) >= 8 && len(y) >= 8 {
		if d := binary.LittleEndian.Uint64(x) ^ binary.LittleEndian.Uint64(y); d != 0 {
			return n + bits.TrailingZeros64(d)>>3
		}
		x, y = x[8:], y[8:]
		n += 8
	}
	y = y[:len(x)]
	for i := range x {
		if x[i] != y[i] {
			return n + i
		}
	}
	return n + len(x)
}

// finder takes blocks apart.
type finder interface {
	// parse takes the content of h from index from on, which is one block, apart
	// and appends to b. alone is that the block is a frame of its own.
	parse(h *history, from int, b *parsed, alone bool)
	// rebase takes less from all positions.
	rebase(less uint32)
}

func newFinder(p Params) finder {
	switch p.Level {
	case Fastest:
		return &fastFinder{old: p.Class == V1_11}
	case Better:
		return newBetterFinder(p.Class)
	case Best:
		return &bestFinder{sameAll: p.Class >= V1_178}
	}
	return new(doubleFinder)
}
