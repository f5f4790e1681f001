package gunzip

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/imgpack/imgpack/internal/deflate"
)

// specPieces bounds what a segment is decoded to on speculation. What is beyond
// is decoded when its turn comes.
const specPieces = 8

// mark is the first of the values that stand for a byte of the window before a
// segment, which is not known yet.
const mark = 1 << 15

// marked is content some of which are marks, with the window before it.
type marked struct {
	buf []uint16
	to  int // from deflate.Window on
}

const markedSize = 128 << 10

var markeds = sync.Pool{New: func() any {
	return &marked{buf: make([]uint16, deflate.Window+markedSize+deflate.MinRoom)}
}}

// spec decodes a segment on speculation that a block or a member begins there. A
// member is decoded like a stream. Before a block the window is unknown: content
// has marks where it repeats that, until the last 32 KiB have none any more.
type spec struct {
	member  bool
	number  int64  // of the segment
	data    []byte // of the segment; only who has claimed it may look
	claimed atomic.Bool
	stop    atomic.Bool
	ready   chan struct{} // closed when it is done
	wrong   bool          // no block or member can begin there

	d      decoder   // how far it got
	marked []*marked // content with marks
	pieces []*piece  // content that follows
}

// claim makes the caller the one who decodes the segment, if nobody is.
func (s *spec) claim() bool { return s.claimed.CompareAndSwap(false, true) }

// run decodes the segment.
func (s *spec) run(done chan struct{}) {
	defer close(s.ready)
	s.d.f = new(deflate.Inflater)
	s.d.f.Feed(s.data)
	more := true
	if !s.member {
		more = s.runMarked(done)
	}
	if more {
		s.runBytes(done)
	}
}

func (s *spec) halted(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return s.stop.Load()
	}
}

// runMarked decodes up to where content has no marks any more, and tells
// whether it got there.
func (s *spec) runMarked(done chan struct{}) bool {
	var m *marked
	for len(s.marked) < specPieces*pieceSize/markedSize/2 {
		n := markeds.Get().(*marked)
		n.to = deflate.Window
		if m == nil {
			for i := range n.buf[:deflate.Window] {
				n.buf[i] = mark | uint16(i)
			}
		} else {
			copy(n.buf[:deflate.Window], m.buf[m.to-deflate.Window:m.to])
		}
		m = n
		s.marked = append(s.marked, m)
		var err error
		m.to, err = s.d.f.InflateMarked(m.buf, m.to, 0)
		switch {
		case err == io.ErrShortBuffer:
			return false
		case err == io.EOF:
			s.d.phase = inTrailer
			return false
		case err != nil || s.halted(done):
			s.wrong = true
			return false
		}
		if window := m.buf[m.to-deflate.Window : m.to]; !anyMarks(window) {
			p := newPiece()
			for i, v := range window {
				p.buf[i] = byte(v)
			}
			p.low = 0
			s.d.p = p
			return true
		}
	}
	return false
}

func anyMarks(w []uint16) bool {
	var all uint16
	for _, v := range w {
		all |= v
	}
	return all >= mark
}

// runBytes decodes where all is known.
func (s *spec) runBytes(done chan struct{}) {
	if s.d.p == nil {
		s.d.p = newPiece()
	}
	for {
		var err error
		if s.member {
			err = s.d.run()
		} else if err = s.content(); err == io.EOF {
			s.d.phase = inTrailer
		}
		p := s.d.p
		s.pieces = append(s.pieces, p)
		switch {
		case err == io.ErrShortBuffer, err == io.EOF && !s.member:
			return
		case err != nil || s.halted(done):
			s.wrong = true
			return
		case len(s.pieces) == specPieces:
			return
		}
		s.d.p = newPiece()
		s.d.p.follow(p)
	}
}

// content decodes, and leaves the checksum to who knows what was before.
func (s *spec) content() (err error) {
	p := s.d.p
	p.to, err = s.d.f.Inflate(p.buf, p.to, p.low)
	return err
}

// resolve puts bytes in the place of marks, that of the window at the end of
// before. It is false if there is not as much there as the content repeats.
func (s *spec) resolve(before *piece) bool {
	if s.member {
		return true
	}
	known := min(before.to-before.low, deflate.Window)
	var bytes [mark + deflate.Window]byte
	for i := range 256 {
		bytes[i] = byte(i)
	}
	copy(bytes[len(bytes)-known:], before.buf[before.to-known:before.to])
	var all []*piece
	last := before
	for _, m := range s.marked {
		if known < deflate.Window && !within(m.buf[deflate.Window:m.to], mark+deflate.Window-known) {
			for _, p := range all {
				pieces.Put(p)
			}
			return false
		}
		p := newPiece()
		p.follow(last)
		to := p.buf[p.to:][:m.to-deflate.Window]
		for i, v := range m.buf[deflate.Window:m.to] {
			to[i] = bytes[v]
		}
		p.to += len(to)
		all = append(all, p)
		last = p
		markeds.Put(m)
	}
	s.marked = nil
	s.pieces = append(all, s.pieces...)
	return true
}

// within tells that all marks are from lowest on.
func within(w []uint16, lowest int) bool {
	for _, v := range w {
		if v >= mark && int(v) < lowest {
			return false
		}
	}
	return true
}

// free gives back what was decoded.
func (s *spec) free() {
	for _, m := range s.marked {
		markeds.Put(m)
	}
	for _, p := range s.pieces {
		pieces.Put(p)
	}
	s.marked, s.pieces = nil, nil
}

// lead is how many segments ahead one must be to be begun. The stream's own
// decoder is a third faster, and would have to wait for what is nearer.
const lead = 2

// crew is who decodes on speculation.
type crew struct {
	room  int   // for so many more
	cores int32 // of the machine
	done  chan struct{}
	at    atomic.Int64 // number of the segment that is being decoded in order

	mu    sync.Mutex
	tasks []*spec
}

// add gives the crew a segment, and forgets those that were claimed by others.
func (c *crew) add(s *spec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tasks = slices.DeleteFunc(c.tasks, func(s *spec) bool { return s.claimed.Load() })
	c.tasks = append(c.tasks, s)
	if c.room > 0 && decoding.Load() < c.cores {
		c.room--
		go c.work()
	}
}

// work decodes what is furthest ahead first: the stream's own decoder comes from
// the other end.
func (c *crew) work() {
	for {
		c.mu.Lock()
		n := len(c.tasks) - 1
		if n < 0 || c.tasks[n].number-c.at.Load() < lead || decoding.Load() >= c.cores {
			c.room++
			c.mu.Unlock()
			return
		}
		s := c.tasks[n]
		c.tasks = c.tasks[:n]
		c.mu.Unlock()
		if s.claim() {
			decoding.Add(1)
			s.run(c.done)
			decoding.Add(-1)
		}
	}
}
