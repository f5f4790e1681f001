package kpflate

import (
	"math"

	"github.com/imgpack/imgpack/internal/deflate"
)

// tally counts what a chunk is made of.
type tally struct {
	lit    [numLit]uint16 // with deflate.EndSymbol, which is 0
	dist   [numDist]uint16
	tokens int
}

func (t *tally) count(tokens []deflate.Token) {
	t.tokens += len(tokens)
	for _, k := range tokens {
		if !k.IsMatch() {
			t.lit[uint8(k)]++
			continue
		}
		t.lit[k.LengthSymbol()]++
		t.dist[k.DistSymbol()]++
	}
}

// extra is the number of extra bits.
func (t *tally) extra() (bits int) {
	for i, x := range deflate.LengthExtra {
		bits += int(x) * int(t.lit[deflate.FirstMatch+i])
	}
	for i, x := range deflate.DistExtra {
		bits += int(x) * int(t.dist[i])
	}
	return bits
}

// remove takes back what count added.
func (t *tally) remove(tokens []deflate.Token) {
	t.tokens -= len(tokens)
	for _, k := range tokens {
		if !k.IsMatch() {
			t.lit[uint8(k)]--
			continue
		}
		t.lit[k.LengthSymbol()]--
		t.dist[k.DistSymbol()]--
	}
}

// size is the number of bits that codes of these lengths take.
func (t *tally) size(lit *[numLit]uint8, dist *[numDist]uint8) (bits int) {
	for s, n := range t.lit {
		bits += int(n) * int(lit[s])
	}
	for s, n := range t.dist {
		bits += int(n) * int(dist[s])
	}
	return bits
}

// fits tells whether codes of these lengths have all symbols.
func (t *tally) fits(lit *[numLit]uint8, dist *[numDist]uint8) bool {
	for s, n := range t.dist {
		if n > 0 && dist[s] == 0 {
			return false
		}
	}
	for s, n := range t.lit {
		if n > 0 && lit[s] == 0 {
			return false
		}
	}
	return true
}

// fixedLit and fixedDist are the lengths of the codes of a fixed block.
var fixedLit, fixedDist = func() (l [numLit]uint8, d [numDist]uint8) {
	all := deflate.FixedLit()
	copy(l[:], all[:])
	for i := range d {
		d[i] = 5
	}
	return l, d
}()

// Rules that changed between versions.
type rules uint8

const (
	// allSymbols: a header that may be used again has all symbols, also those
	// at the end that have no code. Until 1.18.0.
	allSymbols rules = iota
	// noEnd: the end of the block is not counted where sizes are compared, and
	// headers have no symbols too many. 1.18.1.
	noEnd
	// countEnd: the end of the block is counted. Since 1.18.2.
	countEnd
)

// coder decides how chunks are written: as a block of their own, or with the
// codes of the chunk before, as more of the same block. A block of which that
// may become true stays open until the next chunk is known.
type coder struct {
	rules   rules
	penalty uint // of a new header: its size is estimated too great by 1 / 1<<penalty
	state
	header *deflate.Header // is set where a block begins
	builder
}

// state is what the coder knows of the open block.
type state struct {
	open     int  // bits of its header; 0 if no block is open
	literals bool // it has codes for literals only
	lit      [numLit]uint8
	dist     [numDist]uint8
}

// verdict is how a chunk is written.
type verdict struct {
	begins bool // a block begins with the chunk
	closed bool // it ends with the chunk, whatever follows
}

const fewTokens = 250 // a fixed block is thought of below

// chunk decides for a chunk of tokens. size is the bytes that it stands for if
// they may be stored, 0 if not. last tells that the encoder flushes behind it.
func (c *coder) chunk(tokens *tally, size int, last bool) (v verdict) {
	t := *tokens
	if last {
		t.tokens++
		t.lit[deflate.EndSymbol] = 1
	}
	if c.open > 0 && (c.literals || !t.fits(&c.lit, &c.dist)) {
		c.open = 0
		c.literals = false
	}
	guess := 0
	if c.open > 0 {
		guess = t.estimate()
	}
	lits, dists := c.symbols(&t, last)
	extra := 0
	if size > 0 || c.open > 0 {
		extra = t.extra()
	}
	stored := math.MaxInt
	if size > 0 {
		stored = (size + 5) * 8
	}
	if c.open > 0 {
		fresh := c.open + guess
		fresh += int(c.lit[deflate.EndSymbol]) + fresh>>c.penalty
		bits := t.size(&c.lit, &c.dist) + extra
		if fresh < bits {
			c.open = 0
			bits = fresh
		}
		if stored <= bits {
			return c.simple(deflate.Stored)
		}
		if t.tokens < fewTokens && t.size(&fixedLit, &fixedDist)+3+extra+7 < bits {
			return c.simple(deflate.Fixed)
		}
	}
	if c.open == 0 {
		t.lit[deflate.EndSymbol] = 1
		if kind := c.begin(&t, lits, dists, extra, stored); kind != deflate.Dynamic {
			return c.simple(kind)
		}
		v.begins = true
		c.literals = false
	}
	if last {
		c.open = 0
	}
	v.closed = last
	return v
}

// simple is the verdict for a stored or fixed block.
func (c *coder) simple(kind deflate.Type) verdict {
	c.open = 0
	*c.header = deflate.Header{Type: kind}
	return verdict{begins: true, closed: true}
}

// symbols tells how many symbols a header would have.
func (c *coder) symbols(t *tally, last bool) (lits, dists int) {
	if c.rules == allSymbols && !last {
		return numLit, numDist
	}
	if c.rules == countEnd {
		t.lit[deflate.EndSymbol] = 1
	}
	lits, dists = numLit, numDist
	for lits > deflate.FirstMatch && t.lit[lits-1] == 0 {
		lits--
	}
	for dists > 0 && t.dist[dists-1] == 0 {
		dists--
	}
	if dists == 0 {
		t.dist[0] = 1
		dists = 1
	}
	return lits, dists
}

// begin makes codes, and the header of a block unless a fixed or stored one is
// no longer.
func (c *coder) begin(t *tally, lits, dists, extra, stored int) deflate.Type {
	c.lengths(c.lit[:], t.lit[:], deflate.MaxBits)
	c.lengths(c.dist[:], t.dist[:], deflate.MaxBits)
	*c.header = deflate.Header{Type: deflate.Dynamic}
	header := c.trees(&c.header.Trees, c.lit[:lits], c.dist[:dists])
	bits := header + t.size(&c.lit, &c.dist) + extra
	if t.tokens < fewTokens {
		if fixed := t.size(&fixedLit, &fixedDist) + 3 + extra; fixed <= bits {
			if stored <= fixed {
				return deflate.Stored
			}
			return deflate.Fixed
		}
	}
	if stored <= bits {
		return deflate.Stored
	}
	c.open = header
	return deflate.Dynamic
}

const guessedHeader = 70 * 8 // bits of a header for literals only

// plain decides for a chunk that is written as literals, or stored.
func (c *coder) plain(content []byte, last bool) (v verdict) {
	var t tally
	for _, b := range content {
		t.lit[b]++
	}
	size := len(content)
	storable := size <= deflate.MaxStored
	if storable && size > 1024 && flat(&t, size) {
		return c.simple(deflate.Stored)
	}
	t.lit[deflate.EndSymbol] = 1
	var lit [numLit]uint8
	c.lengths(lit[:deflate.FirstMatch], t.lit[:deflate.FirstMatch], deflate.MaxBits)
	var none [numDist]uint8
	bits := t.size(&lit, &none)
	if c.open > 0 {
		bits += c.open
	} else {
		bits += guessedHeader
	}
	bits += bits >> c.penalty
	if storable && (size+5)*8 <= bits {
		return c.simple(deflate.Stored)
	}
	if c.open > 0 {
		t.lit[deflate.EndSymbol] = 0
		if !t.fits(&c.lit, &none) || bits < t.size(&c.lit, &none) {
			c.open = 0
		}
	}
	if c.open == 0 {
		c.lit = lit
		c.literals = true
		*c.header = deflate.Header{Type: deflate.Dynamic}
		c.open = c.trees(&c.header.Trees, lit[:deflate.FirstMatch], []uint8{1})
		v.begins = true
	}
	if last {
		c.open = 0
		c.literals = false
	}
	v.closed = last
	return v
}

// flat tells whether bytes are so evenly spread that nothing can be gained: the
// sum of squares of the differences to the mean is below twice the size. Both
// are taken 1<<16 times to stay whole numbers.
func flat(t *tally, size int) bool {
	var sum uint64
	for _, n := range t.lit[:256] {
		d := int64(n)<<8 - int64(size)
		sum += uint64(d * d)
	}
	return sum < uint64(size)<<17
}
