package kpzstd

// Types of blocks and of literals (RFC 8878, 3.1.1.2.2 and 3.1.1.3.1.1).
const (
	blockRaw = iota
	blockRLE
	blockCompressed

	litsRaw = iota - 3
	litsRLE
	litsCompressed
	litsTreeless
)

// coderRoom is room for a block at its worst: literals of 11 bits and sequences
// of 12 bytes, of which there is at most one for four bytes.
const coderRoom = (128<<10)/4*12 + 64<<10

// parsed is a block as literals and sequences.
type parsed struct {
	src  []byte // the content
	lits []byte
	seqs []sequence
	last bool // in its frame
}

// coder writes blocks. It is not safe for concurrent use.
type coder struct {
	class  Class
	agree  classSet // the classes that would have written the same so far
	level  Level
	size   int // of a full block
	huff   huffCoder
	seq    seqCoder
	out    []byte
	broken bool // the encoder itself would have failed
}

func newCoder(p Params) *coder {
	return &coder{class: p.Class, agree: allClasses, level: p.Level, size: p.blockSize(), huff: newHuffCoder(), seq: newSeqCoder(), out: make([]byte, 0, coderRoom)}
}

// reset makes ready for another frame.
func (c *coder) reset(class Class) {
	c.class, c.agree, c.broken = class, allClasses, false
	c.huff.reuse = false
	c.seq.reset()
}

func blockHeader(out []byte, last bool, kind, size int) []byte {
	v := kind<<1 | size<<3
	if last {
		v |= 1
	}
	return append(out, byte(v), byte(v>>8), byte(v>>16))
}

func (c *coder) raw(b *parsed) []byte {
	return append(blockHeader(c.out[:0], b.last, blockRaw, len(b.src)), b.src...)
}

// encode returns a block in its bytes, which hold until the next call.
func (c *coder) encode(b *parsed) []byte {
	full := len(b.lits) == len(b.src) && len(b.src) == c.size
	if full && c.class < V1_16 {
		if c.level >= Better && c.wouldShrink(b.src) {
			c.agree &= sameSide(c.class, V1_16)
		}
		return c.raw(b)
	}
	if len(b.seqs) == 0 {
		return c.onlyLiterals(b, full)
	}
	if len(b.seqs) == 1 && len(b.lits) <= 1 {
		q := b.seqs[0]
		if int(q.lits) == len(b.lits) && q.offset == 1+minMatch {
			c.agree &= sameSide(c.class, V1_178)
			if c.class >= V1_178 {
				n := int(q.lits + q.match + minMatch)
				return append(blockHeader(c.out[:0], b.last, blockRLE, n), b.src[0])
			}
		}
	}
	saved := len(b.src) - len(b.lits)
	few5, few6 := saved-len(b.src)>>5 < 16, saved-len(b.src)>>6 < 16
	if few5 != few6 {
		c.agree &= sameSide(c.class, V1_16)
	}
	if few6 || few5 && c.class < V1_16 {
		return c.onlyLiterals(b, false)
	}
	return c.compressed(b)
}

// allLiterals is whether blocks without matches are compressed.
func (c *coder) allLiterals() bool {
	return c.level >= Better || c.level == Default && c.class < V1_16
}

// wouldShrink is whether bytes shrink by a table for literals; nothing changes.
func (c *coder) wouldShrink(b []byte) bool {
	if len(b) < 17 {
		return false
	}
	h := newHuffCoder()
	*h.last, h.reuse = *c.huff.last, c.huff.reuse
	_, how := h.encode(make([]byte, 0, len(b)*2+512), b, len(b) >= 1024)
	return how != asTheyAre
}

// onlyLiterals writes a block without sequences.
func (c *coder) onlyLiterals(b *parsed, full bool) []byte {
	n := len(b.src)
	if n < 32 {
		return c.raw(b)
	}
	if old := sameSide(c.class, V1_16); c.class >= V1_16 && c.agree&^old != 0 {
		if (c.level == Default && !full || c.level >= Better && full) && c.wouldShrink(b.src) {
			c.agree &= old
		}
	}
	if !c.allLiterals() {
		return c.raw(b)
	}
	if n == 32 {
		c.agree &= sameSide(c.class, V1_17)
	}
	var how huffResult
	var body []byte
	const room = 3 + 5 // for the headers
	if n > c.oneStreamFrom() {
		body, how = c.huff.encode(c.out[:room], b.src, n >= 1024)
		body = body[room:]
	}
	if how >= newTable && len(body)+5 > n && len(body)+litsHeaderSize(len(body), n) >= n {
		c.agree &= sameSide(c.class, V1_17)
		if c.class >= V1_17 {
			how = asTheyAre
		}
	}
	switch how {
	case asTheyAre:
		return c.raw(b)
	case oneByte:
		return append(blockHeader(c.out[:0], b.last, blockRLE, n), b.src[0])
	}
	c.huff.reuse = true
	header := litsHeaderSize(len(body), n)
	out := blockHeader(c.out[:0], b.last, blockCompressed, header+len(body)+1)
	out = appendLitsHeader(out, how, len(body), n)
	out = append(out, body...)
	return append(out, 0)
}

// oneStreamFrom is how many literals stay as they are at most.
func (c *coder) oneStreamFrom() int {
	if c.class < V1_17 {
		return 32
	}
	return 16
}

// compressed writes a block of literals and sequences, or raw if that is shorter.
func (c *coder) compressed(b *parsed) []byte {
	out := c.literals(c.out[:3], b.lits)
	out, tables, ok := c.seq.header(out, b.seqs, c.class, &c.agree)
	if !ok {
		c.broken = true
		return c.raw(b)
	}
	out = tables.write(out, b.seqs)
	if len(out)-3 >= len(b.src) {
		c.huff.reuse = false
		return c.raw(b)
	}
	blockHeader(out[:0], b.last, blockCompressed, len(out)-3)
	c.seq.keep(&tables)
	return out
}

// literals appends the literals section.
func (c *coder) literals(out, lits []byte) []byte {
	n := len(lits)
	const room = 5 // for the header
	from := len(out) + room
	var body []byte
	var how huffResult
	if n > c.oneStreamFrom() {
		body, how = c.huff.encode(out[:from], lits, n >= 1024)
		body = body[from:]
	}
	if n > 16 && n <= 32 && (how != asTheyAre || c.class < V1_17) {
		c.agree &= sameSide(c.class, V1_17)
	}
	if how >= newTable && len(body)+5 > n && len(body)+litsHeaderSize(len(body), n) >= n+rawLitsHeaderSize(n) {
		c.agree &= sameSide(c.class, V1_17)
		if c.class >= V1_17 {
			how = asTheyAre
		}
	}
	switch how {
	case asTheyAre:
		return append(appendRawLitsHeader(out, litsRaw, n), lits...)
	case oneByte:
		return append(appendRawLitsHeader(out, litsRLE, n), lits[0])
	}
	c.huff.reuse = true
	out = appendLitsHeader(out, how, len(body), n)
	return append(out, body...)
}

func rawLitsHeaderSize(n int) int {
	switch {
	case n < 1<<4:
		return 1
	case n < 1<<11:
		return 2
	}
	return 3
}

func appendRawLitsHeader(out []byte, kind, n int) []byte {
	switch rawLitsHeaderSize(n) {
	case 1:
		return append(out, byte(kind|n<<3))
	case 2:
		v := kind | 1<<2 | n<<4
		return append(out, byte(v), byte(v>>8))
	}
	v := kind | 3<<2 | n<<4
	return append(out, byte(v), byte(v>>8), byte(v>>16))
}

func litsHeaderSize(size, n int) int {
	switch m := max(size, n); {
	case m < 1<<10:
		return 3
	case m < 1<<14:
		return 4
	}
	return 5
}

// appendLitsHeader appends the header of n literals in size bytes. Less than 1024
// literals are in one stream.
func appendLitsHeader(out []byte, how huffResult, size, n int) []byte {
	v := uint64(litsCompressed)
	if how == oldTable {
		v = litsTreeless
	}
	k := litsHeaderSize(size, n)
	v |= uint64(n) << 4
	switch k {
	case 3:
		if n >= 1024 {
			v |= 1 << 2
		}
		v |= uint64(size) << 14
	case 4:
		v |= 2<<2 | uint64(size)<<18
	default:
		v |= 3<<2 | uint64(size)<<22
	}
	for range k {
		out = append(out, byte(v))
		v >>= 8
	}
	return out
}
