// Package split takes a tar apart by offset: into heads (headers, padding, end
// blocks) and bodies (the contents of entries), and cuts bodies into chunks at
// boundaries that their content chooses. Heads and bodies in the order told are
// the input byte for byte, whatever the input is: a reader needs to know
// nothing of tars to put it together again.
//
// Where chunks end is specified in docs/bundle-format.md ("Receipts") and never
// changes: receipts are compared across years. What is a head and what a body
// is nobody's promise; it only decides how well things compress.
//
// Out of scope: whether a tar is sound. What does not parse as one is, from
// there on, one body without a name.
package split

import (
	"io"
	"math"
)

// Sink is told what a tar is made of, in the order of the tar and from one
// goroutine. The bytes given are valid during the call only. An error ends the
// work and is returned by Tar as it is.
type Sink interface {
	// Head gives the next bytes of the heads, any number: header blocks, names
	// and pax records that stand before a header, padding, end blocks.
	Head(p []byte) error
	// Body begins the body of an entry; it is never empty. The name is that of
	// the entry without leading "./" and "/", cut after MaxName bytes, and ""
	// for what is no tar.
	Body(name string) error
	// Chunk gives the next chunk of that body.
	Chunk(p []byte, sum Sum) error
}

// MaxName bounds the names given to a Sink, in bytes; no kernel takes a longer
// path. They serve to put alike things together, so a cut one does no harm.
const MaxName = 4096

// bufSize is large enough for the largest of maxSpecial with its header and
// padding, and so large that moving what is left of a chunk costs nothing.
const bufSize = maxSpecial + 64<<10

// Tar reads r to its end and tells s what it is made of. It uses 1.1 MiB of
// memory whatever it reads. Content never makes it fail: its errors are those
// of r and s.
func Tar(r io.Reader, s Sink) error {
	t := splitter{r: r, sink: s, buf: make([]byte, bufSize)}
	for {
		more, err := t.entry()
		if err != nil || !more {
			return err
		}
	}
}

// splitter holds a window of the tar: buf[:head] has been told, buf[head:pos]
// are heads not yet told, buf[pos:end] is to be looked at.
type splitter struct {
	r              io.Reader
	sink           Sink
	buf            []byte
	head, pos, end int
	eof            bool

	long string // the name a GNU 'L' entry gives to the next
	pax  paxRecords
}

// entry deals with one block and what belongs to it.
func (t *splitter) entry() (more bool, err error) {
	if err := t.fill(blockSize); err != nil {
		return false, err
	}
	n := min(t.end-t.pos, blockSize)
	block := t.buf[t.pos : t.pos+n]
	switch {
	case n == 0:
		return false, t.tell()
	case isZero(block):
		t.pos += n
		t.long, t.pax = "", paxRecords{}
		return true, nil
	case n < blockSize:
		return true, t.rest()
	}
	h, ok := parseHeader((*[blockSize]byte)(block))
	if !ok {
		return true, t.rest()
	}
	if h.special() {
		return true, t.special(h)
	}
	return true, t.ordinary(h)
}

// special takes the content of an entry that speaks of others into the heads.
func (t *splitter) special(h header) error {
	n := int(h.size)
	if err := t.fill(blockSize + n); err != nil {
		return err
	}
	if t.end-t.pos < blockSize+n {
		return t.rest()
	}
	content := t.buf[t.pos+blockSize:][:n]
	switch h.kind {
	case kindPAX:
		t.pax = parsePAX(content)
	case kindLongName:
		t.long = cut(cstring(content))
	}
	t.pos += blockSize + n
	return t.pad(h.size)
}

// ordinary passes over the header of an entry and tells its body.
func (t *splitter) ordinary(h header) error {
	name, size := cut(h.name), h.size
	if t.long != "" {
		name = t.long
	}
	if t.pax.path != "" {
		name = t.pax.path
	}
	if t.pax.hasSize {
		size = t.pax.size
	}
	t.long, t.pax = "", paxRecords{}
	t.pos += blockSize
	for more := h.extended; more; {
		if err := t.fill(blockSize); err != nil {
			return err
		}
		if t.end-t.pos < blockSize {
			return t.rest()
		}
		more = t.buf[t.pos+sparseMore] != 0
		t.pos += blockSize
	}
	if h.bare() {
		return nil
	}
	if err := t.body(name, size); err != nil {
		return err
	}
	return t.pad(size)
}

// pad passes over what fills the last block of a content of so many bytes.
func (t *splitter) pad(size int64) error {
	n := int(-size & (blockSize - 1))
	if err := t.fill(n); err != nil {
		return err
	}
	t.pos += min(n, t.end-t.pos)
	return nil
}

// rest tells all that is left as one body.
func (t *splitter) rest() error { return t.body("", math.MaxInt64) }

// body tells the next size bytes, or those there are, as a body.
func (t *splitter) body(name string, size int64) error {
	for begun := false; size > 0; {
		if err := t.fill(int(min(size, MaxChunk))); err != nil {
			return err
		}
		p := t.buf[t.pos:t.end]
		p = p[:min(size, int64(len(p)))]
		if len(p) == 0 {
			return nil // cut short
		}
		if !begun {
			begun = true
			if err := t.begin(name); err != nil {
				return err
			}
		}
		n, err := t.chunks(p, int64(len(p)) == size || t.eof)
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

func (t *splitter) begin(name string) error {
	if err := t.tell(); err != nil {
		return err
	}
	return t.sink.Body(clean(name))
}

// chunks tells the chunks at the start of p for which it holds enough; last
// says that the body ends with p. It returns their length.
func (t *splitter) chunks(p []byte, last bool) (int, error) {
	done := 0
	for left := p; len(left) >= MaxChunk || last && len(left) > 0; left = p[done:] {
		n := Cut(left)
		if err := t.sink.Chunk(left[:n], SumOf(left[:n])); err != nil {
			return done, err
		}
		done += n
	}
	t.pos += done
	t.head = t.pos
	return done, nil
}

// tell gives the heads passed over to the sink.
func (t *splitter) tell() error {
	p := t.buf[t.head:t.pos]
	t.head = t.pos
	if len(p) == 0 {
		return nil
	}
	return t.sink.Head(p)
}

// fill makes sure that the next n bytes are in the buffer, or all there are.
func (t *splitter) fill(n int) error {
	if t.end-t.pos >= n || t.eof {
		return nil
	}
	if err := t.tell(); err != nil {
		return err
	}
	t.end = copy(t.buf, t.buf[t.pos:t.end])
	t.head, t.pos = 0, 0
	for idle := 0; t.end < len(t.buf); {
		n, err := t.r.Read(t.buf[t.end:])
		t.end += n
		if err == io.EOF {
			t.eof = true
			return nil
		}
		if err != nil {
			return err
		}
		if idle++; n > 0 {
			idle = 0
		}
		if idle == maxIdle {
			return io.ErrNoProgress
		}
	}
	return nil
}

// maxIdle is how often r may give nothing, as bufio has it.
const maxIdle = 100
