package gunzip

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/imgpack/imgpack/internal/deflate"
)

// pieceSize is how much content is handed on at once: enough that copying the
// window before each costs little, and little enough to stay in a core's cache.
const pieceSize = 256 << 10

// piece is content, with what was before it as far as matches reach.
type piece struct {
	buf      []byte    // deflate.Window of what was before, the content, slack
	from, to int       // the content
	low      int       // where the member begins, or what is still known of it
	copies   *copyList // to do again when it is known what was before
}

const pieceRoom = deflate.Window + pieceSize + deflate.MinRoom

var pieces = sync.Pool{New: func() any { return &piece{buf: make([]byte, pieceRoom)} }}

// free gives a piece back.
func (p *piece) free() {
	p.freeCopies()
	pieces.Put(p)
}

// newPiece returns a piece before which nothing is.
func newPiece() *piece {
	p := pieces.Get().(*piece)
	p.from, p.to, p.low = deflate.Window, deflate.Window, deflate.Window
	return p
}

// follow makes p an empty piece that goes on after q, which may be p itself.
func (p *piece) follow(q *piece) {
	p.precede(q)
	p.from, p.to = deflate.Window, deflate.Window
}

// precede puts before p the end of q.
func (p *piece) precede(q *piece) {
	known := min(q.to-q.low, deflate.Window)
	copy(p.buf[deflate.Window-known:deflate.Window], q.buf[q.to-known:q.to])
	p.low = deflate.Window - known
}

// isFull tells that decoding into p what comes next is not worth while.
func (p *piece) isFull() bool { return len(p.buf)-p.to < pieceSize/4 }

func (p *piece) content() []byte { return p.buf[p.from:p.to] }

// segment is input. Before it there is room for what was left of the last one.
type segment struct {
	room []byte
	data []byte // from headroom on in room
	last bool   // it has no data: err is how the input ended
	err  error
	spec *spec // decodes it already; may be nil
}

// inputs are segments for one job.
var inputs = sync.Pool{New: func() any { return &segment{room: make([]byte, headroom+inputSize)} }}

const inputSize = 64 << 10

// reset makes a segment empty.
func (g *segment) reset() *segment {
	*g = segment{room: g.room, data: g.room[headroom:headroom]}
	return g
}

// What is left of a segment is less than a header of a block, whose code lengths
// take at most 318 × 14 bits.
const headroom = 1 << 10

// phase is what comes next in the stream.
type phase uint8

const (
	inHeader phase = iota
	inContent
	inTrailer
	betweenMembers
	inPadding
)

// decoder decodes a stream in order.
type decoder struct {
	f     *deflate.Inflater
	p     *piece // decoded into
	g     *segment
	other *segment // for the next input, with one job

	phase phase
	head  header
	crc   uint32 // of the member so far
	size  uint32
}

func (d *decoder) start(p *piece) {
	d.f, d.p = inflaters.Get().(*deflate.Inflater), p
	d.f.Reset()
}

// spare returns the segment for the next input, with one job.
func (d *decoder) spare() *segment {
	if d.other == nil {
		d.other = inputs.Get().(*segment)
	}
	return d.other.reset()
}

// free gives back what a decoder with one job holds.
func (d *decoder) free() {
	if d.p != nil {
		inflaters.Put(d.f)
		d.p.free()
	}
	for _, g := range []*segment{d.g, d.other} {
		if g != nil {
			inputs.Put(g)
		}
	}
	*d = decoder{}
}

// feed goes on with another segment, before which it puts what is left.
func (d *decoder) feed(g *segment) {
	rest := d.f.Rest()
	at := headroom - len(rest)
	copy(g.room[at:], rest)
	d.f.Feed(g.room[at : headroom+len(g.data)])
	d.g, d.other = g, d.g
}

// run decodes into the piece. It returns nil when that is full,
// io.ErrShortBuffer when the input is used up, and otherwise how the stream ended.
func (d *decoder) run() error {
	for {
		var err error
		switch d.phase {
		case inHeader:
			err = d.header()
		case inContent:
			err = d.content()
			if err == nil {
				return nil
			}
			if err == io.EOF {
				d.phase, err = inTrailer, nil
			}
		case inTrailer:
			err = d.trailer()
		case betweenMembers:
			err = d.between()
		case inPadding:
			rest := d.f.Rest()
			if len(bytes.TrimLeft(rest, "\x00")) > 0 {
				return errTrailing
			}
			d.f.Take(len(rest))
			return io.ErrShortBuffer
		}
		if err != nil {
			return err
		}
	}
}

func (d *decoder) header() error {
	for _, b := range d.f.Rest() {
		d.f.Take(1)
		if err := d.head.step(b); err != nil {
			return err
		}
		if d.head.part == headerDone {
			d.f.Restart()
			d.phase, d.crc, d.size = inContent, 0, 0
			d.p.low = d.p.to
			return nil
		}
	}
	return io.ErrShortBuffer
}

func (d *decoder) content() error {
	p := d.p
	had := p.to
	var err error
	p.to, err = d.f.Inflate(p.buf, p.to, p.low)
	d.count(p.buf[had:p.to])
	if err != nil && err != io.EOF && err != io.ErrShortBuffer {
		err = fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return err
}

// count takes content into the checksum.
func (d *decoder) count(b []byte) {
	d.crc = crc32.Update(d.crc, crc32.IEEETable, b)
	d.size += uint32(len(b))
}

func (d *decoder) trailer() error {
	b, ok := d.f.Take(8)
	if !ok {
		return io.ErrShortBuffer
	}
	if binary.LittleEndian.Uint32(b) != d.crc || binary.LittleEndian.Uint32(b[4:]) != d.size {
		return errChecksum
	}
	d.phase = betweenMembers
	return nil
}

// between sees whether another member follows.
func (d *decoder) between() error {
	switch rest := d.f.Rest(); {
	case len(rest) > 0 && rest[0] == 0:
		d.phase = inPadding
	case len(rest) > 0 && rest[0] != magic[0], len(rest) > 1 && rest[1] != magic[1]:
		return errTrailing
	case len(rest) < 2:
		return io.ErrShortBuffer
	default:
		d.phase, d.head = inHeader, header{}
	}
	return nil
}

// end is what it means that the input ended, with err.
func (d *decoder) end(err error) error {
	if err != io.EOF {
		return err
	}
	if d.phase == inPadding || d.phase == betweenMembers && len(d.f.Rest()) == 0 {
		return io.EOF
	}
	return io.ErrUnexpectedEOF
}
