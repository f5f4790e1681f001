package kpflate

import (
	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

const (
	lazyTokens  = 1 << 15 // of a chunk
	lazyBits    = 17      // of hashes
	lazyBuffer  = 2 * window
	lazyMinimum = 4                               // length of a match
	lazyAhead   = lazyMinimum + deflate.MaxLength // is looked at, but for the end
	lazyOff     = 2                               // bytes that may differ where a match is looked for by its end
	lookSteps   = 8                               // that comparing takes as long as
)

// effort is what levels 7 to 9 differ by.
type effort struct {
	lazy, nice, chain int
}

var efforts = [10]effort{7: {12, 16, 24}, 8: {30, 40, 64}, 9: {258, 258, 1024}}

// weighs tells whether matches are compared by the bits they gain.
func (e effort) weighs() bool { return e.chain > 100 }

// lazyRules are those that changed between versions.
type lazyRules struct {
	dictInside bool // the first chunk is thought to begin with the dictionary: before 1.20.0
	allWeighed bool // bits of literals are those for all of the buffer: before 1.18.2
}

// lazy is the source of levels 7 to 9: they look for a better match at the next
// position too, by chains of positions. The encoder's buffer is filled up to an
// end, and half of it given up when little is left to look at.
type lazy struct {
	effort
	lazyRules
	dict int

	in       *model.Input
	data     []byte
	low, end int  // of the buffer; low may be before the data
	sync     bool // the encoder was told to flush at the end

	index      int
	linkEnd    int // positions from here on are not linked
	linked     int // those before are
	length     int // of the match at the last position
	distance   int
	pending    bool   // the byte before index is no token yet
	plainCount uint16 // literals since the last match
	candidate  int    // -1 if there is none

	began  int  // where the encoder's chunk did
	follow int  // where the next begins
	lost   bool // what it stands for is no more in the buffer
	tokens []deflate.Token
	over   []deflate.Token // those behind the chunk
	full   bool

	head    [1 << lazyBits]uint32 // the last position, plus 1
	prev    [window]uint32        // the one before with the same hash
	builder builder
	bits    []int32 // of literals from bitsAt on up to a position
	bitsAt  int
	steps   int64 // of searches
}

func (z *lazy) begin(in *model.Input, base int, _ *chunk) {
	z.in, z.data = in, in.Data
	clear(z.head[:])
	z.index, z.follow, z.linked = in.From, in.From, max(0, base)
	z.sync, z.lost = false, false
	z.settle()
	z.candidate = -1
	z.began, z.low = in.From, base
	if in.Fresh {
		if z.dictInside {
			z.began = base
		}
		z.link(in.From - lazyMinimum + 1)
		z.linked = in.From
		z.fill(in.From)
		return
	}
	z.link(min(in.From, len(z.data)-lazyMinimum+1))
	began := -max(0, in.Offset) // of the encoder
	low := began - int64(z.dict)
	if n := int64(in.From) + lazyAhead - (low + lazyBuffer); n > 0 {
		low += (n + window - 1) / window * window
		began = low + window - lazyAhead + 1
	}
	z.low = int(low)
	z.fill(max(0, int(min(began, int64(in.From)))))
}

// settle makes the state that which is behind a match.
func (z *lazy) settle() {
	z.length, z.distance, z.plainCount = lazyMinimum-1, 0, 0
	z.pending = false
	z.over = z.over[:0]
}

// link links all positions up to one that are not yet.
func (z *lazy) link(to int) {
	for ; z.linked < to; z.linked++ {
		h := load32(z.data, z.linked) * prime4 >> (32 - lazyBits)
		z.prev[z.linked%window] = z.head[h]
		z.head[h] = uint32(z.linked + 1)
	}
}

// fill fills the buffer. The encoder comes to the new end from a position.
func (z *lazy) fill(from int) {
	z.end = z.low + lazyBuffer
	if z.in.End && z.end >= z.in.To {
		z.end, z.sync = z.in.To, true
	}
	z.end = min(z.end, len(z.data))
	z.linkEnd = z.end - lazyMinimum + 1
	if z.weighs() && from < z.end {
		z.weigh(from)
	}
}

// weigh estimates the bits of literals by the code that they would have alone.
func (z *lazy) weigh(from int) {
	sample := z.data[from:z.end]
	if !z.allWeighed {
		sample = sample[:min(len(sample), lazyTokens)]
	}
	var weight [256]uint16
	for _, c := range sample {
		weight[c]++
	}
	var lengths [256]uint8
	z.builder.lengths(lengths[:], weight[:], deflate.MaxBits)
	if z.bits == nil {
		z.bits = make([]int32, lazyBuffer+window)
	}
	z.bitsAt = from
	total := int32(0)
	z.bits[0] = 0
	for i, c := range z.data[from:z.end] {
		total += int32(lengths[c])
		z.bits[i+1] = total
	}
}

// move gives up half of the buffer and fills it again. It tells whether there is
// more.
func (z *lazy) move() bool {
	if z.end < z.low+lazyBuffer {
		return false
	}
	z.low += window
	if z.began < z.low {
		z.lost = true
	}
	z.fill(z.index)
	return true
}

func (z *lazy) next(c *chunk, from int) {
	c.room(lazyTokens)
	if from != z.follow {
		z.seek(from)
	}
	z.tokens = append(c.tokens, z.over...)
	z.over, z.full = z.over[:0], false
	for !z.full && z.step() {
	}
	c.tokens = z.tokens
	c.from, c.to = from, from
	for _, t := range c.tokens[slack:] {
		c.to += t.Length()
	}
	c.last, c.storable, c.head = z.sync, !z.lost, from-z.began
	z.trim(c)
	c.tally.count(c.tokens[slack:])
	z.began, z.follow, z.lost = c.to, c.to, false
}

// trim makes a chunk end at the end of the run at the latest, and go on in any
// case.
func (z *lazy) trim(c *chunk) {
	to := min(c.to, z.in.To)
	if to == c.from {
		to = min(z.in.To, c.from+lazyTokens/2)
	}
	if c.to == to {
		return
	}
	for c.to > to {
		n := len(c.tokens) - 1
		c.to -= c.tokens[n].Length()
		c.tokens = c.tokens[:n]
	}
	for ; c.to < to; c.to++ {
		c.tokens = append(c.tokens, deflate.Literal(z.data[c.to]))
	}
	z.seek(to)
}

// seek goes to a position that the encoder would not have come to.
func (z *lazy) seek(to int) {
	z.link(min(to, z.linkEnd))
	z.settle()
	z.index = to
}

func (z *lazy) emit(t deflate.Token) {
	if z.full {
		z.over = append(z.over, t)
		return
	}
	z.tokens = append(z.tokens, t)
	z.full = len(z.tokens) == slack+lazyTokens
}

func (z *lazy) literal() { z.emit(deflate.Literal(z.data[z.index-1])) }

func (z *lazy) lead(tokens []deflate.Token) int { return min(len(tokens), lazyTokens) }
