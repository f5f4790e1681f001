package deflate

import (
	"errors"
	"fmt"
)

// errShort is that a unit (a header, a symbol with what belongs to it) reaches
// beyond the input there is. Nothing of it is taken then.
var errShort = errors.New("more input is needed")

// tailRoom is how much input the inner loops want to see.
const (
	tailRoom  = 24
	enterRoom = tailRoom + 8 // and before their first refill
)

// input is bytes, read by bits. Between calls it holds less than 8 bits, so
// that what is not taken can be continued elsewhere.
type input struct {
	in   []byte
	pos  int
	bits uint64
	n    uint
}

// fill takes whole bytes until there are at least 56 bits, or no more input.
func (b *input) fill() {
	for b.n < 56 && b.pos < len(b.in) {
		b.bits |= uint64(b.in[b.pos]) << b.n
		b.n += 8
		b.pos++
	}
}

// unread gives whole bytes back.
func (b *input) unread() {
	b.pos -= int(b.n >> 3)
	b.n &= 7
	b.bits &= 1<<b.n - 1
}

// take returns the next n bits, at most 48, if there are as many.
func (b *input) take(n uint) (uint64, bool) {
	if b.n < n {
		if b.fill(); b.n < n {
			return 0, false
		}
	}
	v := b.bits & (1<<n - 1)
	b.bits >>= n
	b.n -= n
	return v, true
}

// codes are the tables of a block.
type codes struct {
	*tables // own, or the fixed ones
	own     tables
	code    codeTable
}

type tables struct {
	lit  litTable
	dist distTable
}

var (
	errLength = fmt.Errorf("%w: code of a length that stands for nothing", ErrFormat)
	errDist   = fmt.Errorf("%w: code of a distance that stands for nothing", ErrFormat)
	errFar    = fmt.Errorf("%w: a match reaches back before the beginning", ErrFormat)
)

// token reads a literal, a match or the end of the block, near the end of the
// input, where every bit counts.
func (c *codes) token(b *input) (Token, error) {
	b.fill()
	bits, n := b.bits, b.n
	e, used := c.lit[bits&(1<<litBits-1)], uint(0)
	if e&entryExcept != 0 && e&entrySub != 0 {
		bits, used = bits>>litBits, litBits
		e = c.lit[e>>16+uint32(bits)&(1<<(e>>8&15)-1)]
	}
	if e&entryLiteral != 0 {
		return Literal(byte(e >> 16)), b.skip(used + uint(e&63))
	}
	used += uint(e & 63)
	if e&entryExcept != 0 {
		if err := b.skip(used); err != nil || e&entryEnd != 0 {
			return EndOfBlock, err
		}
		return 0, errLength
	}
	length := int(e>>16) + int(bits&(1<<(e&63)-1)>>(e>>8&15))
	long := length == MaxLength && e&63 > e>>8&15
	bits >>= e & 63
	if used > n {
		return 0, errShort
	}
	d := c.dist[bits&(1<<distBits-1)]
	if d&entryExcept != 0 && d&entrySub != 0 {
		bits, used = bits>>distBits, used+distBits
		d = c.dist[d>>16+uint32(bits)&(1<<(d>>8&15)-1)]
	}
	used += uint(d & 63)
	if d&entryExcept != 0 {
		if err := b.skip(used); err != nil {
			return 0, err
		}
		return 0, errDist
	}
	t := Match(length, int(d>>16)+int(bits&(1<<(d&63)-1)>>(d>>8&15)))
	if long {
		t |= LongForm
	}
	return t, b.skip(used)
}

// skip takes n bits if they are there.
func (b *input) skip(n uint) error {
	if n > b.n {
		return errShort
	}
	b.bits >>= n
	b.n -= n
	return nil
}
