package segment

import (
	"bytes"
	"encoding/binary"
)

// columns collects copies for writing.
type columns struct {
	count              int
	lits, lens, places []byte
	next               int // where the next copy is expected to copy from, less its literals
}

func (c *columns) reset() {
	c.count, c.next = 0, 0
	c.lits, c.lens, c.places = c.lits[:0], c.lens[:0], c.places[:0]
}

// add appends a copy of n bytes from position src, lit literals after the last.
func (c *columns) add(lit, n, src int) {
	c.lits = binary.AppendUvarint(c.lits, uint64(lit))
	c.lens = binary.AppendUvarint(c.lens, uint64(n))
	c.places = binary.AppendVarint(c.places, int64(src-c.next-lit))
	c.next = src + n
	c.count++
}

func (c *columns) size() int { return len(c.lits) + len(c.lens) + len(c.places) }

func (c *columns) appendTo(dst []byte) []byte {
	dst = append(dst, c.lits...)
	dst = append(dst, c.lens...)
	return append(dst, c.places...)
}

// copies reads the columns of a segment, copy by copy. It is a value: a copy
// of it goes on from the same place by itself.
type copies struct {
	lits, lens, places []byte
	left               int // copies
	content            int // bytes of content not yet accounted for
	literals           int // literals not yet accounted for
	next               int
	pos                int // position in prefix and content
}

// parseCopies splits the columns of count copies that make content bytes of
// literals bytes behind a prefix of the given length.
func parseCopies(cols []byte, count, content, literals, prefix int) (copies, error) {
	c := copies{left: count, content: content, literals: literals, pos: prefix}
	rest := cols
	for _, column := range []*[]byte{&c.lits, &c.lens, &c.places} {
		n := skipUvarints(rest, count)
		if n < 0 {
			return c, badf("copies: %w", errShort)
		}
		*column, rest = rest[:n], rest[n:]
	}
	if len(rest) != 0 {
		return c, badf("copies: data follows them")
	}
	return c, nil
}

// skipUvarints returns how many bytes of p the first count uvarints are, or -1.
func skipUvarints(p []byte, count int) int {
	if count > len(p) {
		return -1
	}
	ends := 0
	for i, b := range p {
		if ends == count {
			return i
		}
		if b < 0x80 {
			ends++
		}
	}
	if ends == count {
		return len(p)
	}
	return -1
}

// read returns the next copy: it follows lit literals, and takes n bytes from
// position src. All is checked: literals and content suffice, src is earlier
// than the place copied to. After the last copy n is 0, and lit the literals
// that remain; it must not be called again.
func (c *copies) read() (lit, n, src int, err error) {
	if c.left == 0 {
		if c.literals != c.content {
			return 0, 0, 0, badf("%d literals remain for %d bytes", c.literals, c.content)
		}
		return c.literals, 0, 0, nil
	}
	c.left--
	if lit, c.lits, err = bounded(c.lits, c.literals); err != nil {
		return 0, 0, 0, badf("copies: literals: %w", err)
	}
	c.literals -= lit
	c.content -= lit
	c.pos += lit
	// What the literals need is taken: a copy must leave room for them.
	if n, c.lens, err = bounded(c.lens, max(0, c.content-c.literals)); err != nil {
		return 0, 0, 0, badf("copies: length: %w", err)
	}
	if n == 0 {
		return 0, 0, 0, badf("copies: empty copy")
	}
	z, rest, err := uvarint(c.places)
	if err != nil {
		return 0, 0, 0, badf("copies: place: %w", err)
	}
	c.places = rest
	off := int64(z>>1) ^ -int64(z&1)
	if off < -(MaxPrefix+MaxContent) || off > MaxPrefix+MaxContent {
		return 0, 0, 0, badf("copies: place: %w", errBound)
	}
	src = c.next + lit + int(off)
	if src < 0 || src >= c.pos {
		return 0, 0, 0, badf("copies: from %d to %d", src, c.pos)
	}
	c.next = src + n
	c.content -= n
	c.pos += n
	return lit, n, src, nil
}

// place appends a copy as the decoder does: n bytes from position src to
// dst[w:], where dst[:w] follows the prefix.
func place(dst, prefix []byte, w, n, src int) {
	if src < len(prefix) {
		k := copy(dst[w:w+n], prefix[src:])
		w, n, src = w+k, n-k, src+k
	}
	if n == 0 {
		return
	}
	from := dst[src-len(prefix) : w]
	for n > 0 { // a copy may reach into itself: each round doubles from
		k := copy(dst[w:w+n], from)
		w, n = w+k, n-k
		from = from[:len(from)+k]
	}
}

// placed reports whether place would leave dst as it is.
func placed(dst, prefix []byte, w, n, src int) bool {
	if src < len(prefix) {
		k := min(n, len(prefix)-src)
		if !bytes.Equal(dst[w:w+k], prefix[src:src+k]) {
			return false
		}
		w, n, src = w+k, n-k, src+k
	}
	if n == 0 {
		return true
	}
	src -= len(prefix)
	return bytes.Equal(dst[w:w+n], dst[src:src+n])
}
