package gunzip

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/imgpack/imgpack/internal/deflate"
)

// spec decodes a segment on speculation that a block or a member begins there. A
// member is decoded like a stream. Before a block the window is unknown; what
// content repeats of that is put right later.
type spec struct {
	member bool
	state  specState               // guarded by the mutex of who uses it
	turn   atomic.Pointer[decoder] // handed over to who is at work on it
	wrong  bool                    // no block or member can begin there

	d        decoder // how far it got
	pieces   []*piece
	unknown  *deflate.Unknown // in the last piece; nil when nothing is
	doubtful int              // pieces that may have something unknown
}

type specState uint8

const (
	unbegun specState = iota
	begun
	left
)

var inflaters = sync.Pool{New: func() any { return new(deflate.Inflater) }}

var unknowns = sync.Pool{New: func() any { return deflate.NewUnknown(pieceRoom) }}

// copyLists are for copies; they are large enough for most pieces.
var copyLists = sync.Pool{New: func() any { return &copyList{make([]deflate.Copy, 0, 24<<10)} }}

type copyList struct{ copies []deflate.Copy }

// newSpec returns what is to decode from a border on.
func newSpec(member bool) *spec {
	s := &spec{member: member}
	if s.d.phase = inContent; member {
		s.d.phase = inHeader
	}
	return s
}

// stepSize is how much is decoded on speculation until it is seen whether the
// turn has come.
const stepSize = 64 << 10

// step decodes some of the segment, whose data it is given, and perhaps begins
// a piece for it. It tells whether there is more to do.
func (s *spec) step(data []byte) bool {
	if s.d.p == nil || s.d.p.isFull() {
		s.begin(data)
	}
	p := s.d.p
	out := p.buf[:min(p.to+stepSize, len(p.buf))]
	var err error
	switch {
	case s.member:
		err = s.d.run()
	case s.unknown != nil:
		p.to, err = s.d.f.InflateUnknown(out, p.to, s.unknown)
	default:
		p.to, err = s.d.f.Inflate(out, p.to, p.low)
	}
	if !s.member && err == io.EOF {
		// Who has the turn knows the checksum.
		s.d.phase = inTrailer
		return false
	}
	s.wrong = err != nil && err != io.ErrShortBuffer
	return err == nil
}

// begin makes room for a piece.
func (s *spec) begin(data []byte) {
	p := newPiece()
	if s.d.p == nil {
		s.d.start(p)
		s.d.f.Feed(data)
		if !s.member {
			p.low = 0
			s.unknown = unknowns.Get().(*deflate.Unknown)
			s.unknown.Reset()
		}
	} else {
		p.follow(s.d.p)
		if s.unknown != nil && !s.unknown.Follow(s.d.p.to) {
			s.release()
		} else {
			s.keep()
		}
	}
	s.d.p = p
	if s.pieces = append(s.pieces, p); s.unknown != nil {
		s.doubtful = len(s.pieces)
		p.copies = copyLists.Get().(*copyList)
		s.unknown.Copies = p.copies.copies[:0]
	}
}

// release gives back what only speculation needs.
func (s *spec) release() {
	if s.unknown != nil {
		s.keep()
		unknowns.Put(s.unknown)
		s.unknown = nil
	}
}

// keep puts into the last piece what is to put right there.
func (s *spec) keep() {
	if s.unknown != nil {
		s.d.p.copies.copies = s.unknown.Copies
		s.unknown.Copies = nil
	}
}

// resolve puts content right that repeats what is at the end of before. It is
// false if there is not as much there as the content repeats.
func (s *spec) resolve(before *piece) bool {
	if s.member {
		return true
	}
	s.release()
	for _, p := range s.pieces[:s.doubtful] {
		p.precede(before)
		if !deflate.Redo(p.buf, p.low, p.copies.copies) {
			return false
		}
		p.freeCopies()
		before = p
	}
	return true
}

// freeCopies gives back what is done again, or never.
func (p *piece) freeCopies() {
	if p.copies != nil {
		copyLists.Put(p.copies)
		p.copies = nil
	}
}

// free gives back what was decoded.
func (s *spec) free() {
	s.release()
	for _, p := range s.pieces {
		p.free()
	}
	s.pieces = nil
}
