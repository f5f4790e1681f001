package goflate

import (
	"math"
	"math/bits"
	"unsafe"

	"github.com/imgpack/imgpack/internal/recompress/model"
)

// What the encoder of levels 2 to 9 is made of.
const (
	window    = 32 << 10
	minMatch  = 4
	maxMatch  = 258
	hashBits  = 17
	hashMul   = 0x1e35a7bd
	near      = 4096 // how far matches of minMatch bytes reach
	blockFull = 1 << 14

	// The encoder's buffer is two windows. It looks for room in it when fewer
	// than a longest match and a shortest are left to look at.
	buffer   = 2 * window
	lastLook = buffer - (minMatch + maxMatch) + 1
)

// chains finds earlier positions with the same hash of minMatch bytes. Levels 4
// to 9 put every position into them, whatever they find; so here all are in them
// well ahead of the search.
type chains struct {
	data []byte
	p    unsafe.Pointer // of data[0]
	// bias is added to positions in head, so that those of earlier runs are far
	// away.
	bias uint32
	head [1 << hashBits]uint32
	// prev is how far back the one before is, 0xffff if farther. rank counts the
	// positions of a chain, so that differences tell how many there are between
	// two. Both are of the last 65536 positions.
	prev [1 << 16]uint16
	rank [1 << 16]uint16
	ins  int // positions from here on are not in the chains yet

	base  int // first position in the encoder's buffer
	shift int // position from which it is a window later
	first int // base at first
	tail  int // end of what the encoder gets, if it is known

	// Up to plain, not all positions that can be reached are in the chains.
	plain int

	steps int64 // of all walks along chains
}

// begin forgets all positions, and starts with an encoder whose buffer was at
// first where it began.
func (c *chains) begin(in model.Input) {
	had := len(c.data)
	if c.bias == 0 || c.bias > 1<<31 {
		clear(c.head[:])
		c.bias, had = 1<<16, 0
	}
	c.bias += uint32(had) + 1<<16
	c.data, c.p = in.Data, unsafe.Pointer(unsafe.SliceData(in.Data))
	switch offset := in.Offset; {
	case in.Fresh:
		c.first = max(0, in.From-window)
	case offset > 2*buffer: // so far on, only what is left of a window matters
		c.first = -int(offset%window + 2*buffer)
	case offset >= 0:
		c.first = -int(offset)
	default: // a dictionary
		c.first = max(0, int(min(-offset, model.Prior))-window)
	}
	if c.tail = math.MaxInt; in.End {
		c.tail = len(in.Data)
	}
	c.plain = 0
	c.place(c.first)
}

// place finds where the encoder's buffer is when it looks at position i.
func (c *chains) place(i int) {
	c.base, c.shift = c.first, c.first+lastLook
	if n := (i - c.shift) / window; i >= c.shift && n > 0 {
		c.base += n * window
		c.shift += n * window
	}
	c.moveIf()
	for i >= c.shift {
		c.move()
	}
}

// baseAt is where the encoder's buffer begins when it looks at position i.
func (c *chains) baseAt(i int) int {
	base, shift := c.base, c.shift
	c.place(i)
	at := c.base
	c.base, c.shift = base, shift
	return at
}

// move moves the buffer on.
func (c *chains) move() {
	c.base += window
	c.shift += window
	c.moveIf()
}

// moveIf has the buffer stay if nothing is left that needs room.
func (c *chains) moveIf() {
	if c.base+buffer >= c.tail {
		c.shift = math.MaxInt
	}
}

// link puts positions up to to into the chains, or a few less at the end.
func (c *chains) link(to int) {
	i, n := c.ins, min(to, len(c.data)-minMatch+1)
	for ; i+4 <= n && i+8 <= len(c.data); i += 4 {
		x := bits.ReverseBytes64(load64(c.p, i))
		c.insert(i, uint32(x>>32))
		c.insert(i+1, uint32(x>>24))
		c.insert(i+2, uint32(x>>16))
		c.insert(i+3, uint32(x>>8))
	}
	for ; i < n; i++ {
		c.insert(i, bits.ReverseBytes32(load32(c.p, i)))
	}
	c.ins = max(c.ins, to)
}

// insert puts position i into the chains; v are the bytes there, the first in
// the highest bits.
func (c *chains) insert(i int, v uint32) {
	h := &c.head[v*hashMul>>(32-hashBits)]
	at := uint32(i) + c.bias
	d := min(at-*h, 0xffff)
	*h = at
	c.prev[uint16(i)] = uint16(d)
	c.rank[uint16(i)] = c.rank[uint16(i-int(d))] + 1
}

// reaches tells if there is anything in the chain of i, which is in it.
func (c *chains) reaches(i int) bool {
	return i-int(c.prev[uint16(i)]) >= max(i-window, c.base)
}

// find looks for a match at i that is longer than best, or than minMatch-1. It
// returns 0 if there is none.
//
// The encoder walks along the chain of i. A match that is longer than the best
// so far has, at any distance, all of its bytes in chains of their own; so this
// walks along the one that gets it back farthest, and ranks tell if the encoder
// would have come so far too.
func (c *chains) find(i, best, chain, nice int) (length, distance int) {
	p, prev, rank := c.p, &c.prev, &c.rank
	limit := min(maxMatch, len(c.data)-i)
	nice = min(nice, limit)
	low := max(i-window, c.base)
	start := load32(p, i)
	end := load32(p, i+best-3)
	j, k, tries := i, 0, chain
	if best >= minMatch {
		_, k = c.farthest(i, i, best, low)
	}
	from, seen := i, 0 // where the best is, and how many the encoder has come by there
	steps := 0
	for {
		steps++
		if j -= int(prev[uint16(j+k)]); j < low {
			break
		}
		n := 0
		if (load32(p, j+best-3)^end)|(load32(p, j)^start) == 0 {
			n = minMatch + common(p, j+minMatch, i+minMatch, limit-minMatch)
		}
		if n <= best {
			if tries--; tries > 0 {
				continue
			}
			if k == 0 {
				break
			}
			// It is no shorter: as the encoder does it.
			j, k, tries = from, 0, chain-seen
			continue
		}
		if seen = int(rank[uint16(i)] - rank[uint16(j)]); seen > chain {
			break
		}
		from, best = j, n
		if n > minMatch || i-j <= near {
			length, distance = n, i-j
		}
		if n >= nice || seen == chain {
			break
		}
		// Farther than near, none will do that is no longer than minMatch.
		end = load32(p, i+best-3)
		j, k = c.farthest(i, j, best, low)
		if tries = chain; k == 0 {
			tries = chain - seen
		}
	}
	c.steps += int64(steps)
	return length, distance
}

// Steps implements model.Worker.
func (c *chains) Steps() int64 { return c.steps }

// farthest tells which bytes of a match at i, that is longer than the n bytes
// it has in common with j, have a chain that goes back farthest from j, and
// where a walk along that begins. The first that goes beyond low will do.
func (c *chains) farthest(i, j, n, low int) (at, k int) {
	far := int(c.prev[uint16(j)])
	if far > j-low || i < c.plain {
		return j, 0
	}
	at = j
	if d := int(c.prev[uint16(i+n-3)]) - (i - j); d > far {
		if at, k, far = i, n-3, d; far > j-low {
			return at, k
		}
	}
	for x := 1; x < min(n-3, 16); x++ {
		if d := int(c.prev[uint16(j+x)]); d > far {
			if at, k, far = j, x, d; far > j-low {
				break
			}
		}
	}
	return at, k
}
