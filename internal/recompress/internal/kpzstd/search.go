package kpzstd

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
)

// ErrDiffers is a frame that none of the modelled encoders made.
var ErrDiffers = errors.New("no model of a zstd encoder makes the frame")

// A candidate is settled on when it has made so much content into blocks that
// are not raw: differences between levels show much earlier. Until then, content
// and stream are kept for the next candidates, but no more than maxKept of content.
const (
	settles = 512 << 10
	maxKept = 8 << 20
)

// Search finds the parameters of a frame: it takes the content and compares what
// the encoders make of it with the frame. It is not safe for concurrent use. Its
// memory is that of an Encoder and 16 MiB.
type Search struct {
	list    []candidate // first the one that t is of
	stream  io.Reader
	seen    []byte // of the stream, while it may be needed again
	content []byte // the same
	settled bool
	e       *Encoder
	t       *trial
	found   bool // p is of the frame before
	p       Params
	err     error
	closed  bool
}

var _ io.WriteCloser = (*Search)(nil)

// NewSearch begins with a frame whose first bytes are head, 64 or more unless it
// is shorter. stream gives the whole frame, head again included; as many bytes are
// read of it as have been compared, in another goroutine, no earlier than the
// content they stand for is written or the Search closed, and none behind the
// frame. ErrDiffers is that no encoder makes frames that begin so. After a nil
// error, Close must be called.
func NewSearch(stream io.Reader, head []byte) (*Search, error) {
	s := new(Search)
	return s, s.Reset(stream, head)
}

// Reset begins with another frame, as NewSearch does, after Close returned nil. The
// parameters found last are tried first.
func (s *Search) Reset(stream io.Reader, head []byte) error {
	list := candidates(head)
	if len(list) == 0 {
		return ErrDiffers
	}
	if s.found {
		for i, c := range list {
			if c.Level == s.p.Level && c.set.has(s.p.Class) {
				c.Class = s.p.Class
				copy(list[1:], list[:i])
				list[0] = c
				break
			}
		}
	}
	e := s.e
	if e == nil {
		e = new(Encoder)
	}
	*s = Search{list: list, stream: stream, seen: s.seen[:0], content: s.content[:0], e: e, p: s.p, found: s.found}
	return s.begin()
}

// begin begins with the first candidate.
func (s *Search) begin() error {
	c := s.list[0]
	s.t = &trial{s: s, set: c.set}
	if err := s.e.Reset(s.t, c.Params); err != nil {
		return err
	}
	s.e.emit, s.e.several = s.t.block, c.several
	return nil
}

// Write takes content. ErrDiffers is that no model is left, at the latest when
// a little more than a block behind the difference has been written.
func (s *Search) Write(b []byte) (int, error) {
	switch {
	case s.closed:
		return 0, errClosed
	case s.err != nil:
		return 0, s.err
	}
	if !s.settled {
		s.content = append(s.content, b...)
	}
	_, s.err = s.e.Write(b)
	for s.mayRetry() {
		s.retry(false)
	}
	if s.err != nil {
		return 0, s.err
	}
	if !s.settled && (len(s.content) > maxKept || s.t.made.Load() >= settles) {
		s.settled = true
		s.t.settled.Store(true)
		s.content = s.content[:0]
	}
	return len(b), nil
}

// Close is the end of the content. If it returns nil, Params makes the frame.
func (s *Search) Close() error {
	if s.closed {
		return s.err
	}
	s.closed = true
	if err := s.e.Close(); s.err == nil {
		s.err = err
	}
	for s.mayRetry() {
		s.retry(true)
	}
	s.p = s.e.p
	s.p.Class = s.e.c.class
	s.found = s.err == nil
	return s.err
}

// Params returns what was found, after Close returned nil.
func (s *Search) Params() Params { return s.p }

func (s *Search) mayRetry() bool {
	return !s.settled && len(s.list) > 1 && errors.Is(s.err, ErrDiffers)
}

// retry takes the next candidate through the content that there is.
func (s *Search) retry(all bool) {
	s.e.Close() // what it failed with is known
	s.list = s.list[1:]
	if s.err = s.begin(); s.err != nil {
		return
	}
	_, s.err = s.e.Write(s.content)
	if all {
		if err := s.e.Close(); s.err == nil {
			s.err = err
		}
	}
}

// trial compares what an encoder writes with the stream.
type trial struct {
	s       *Search
	set     classSet     // that made the same so far
	at      int          // in s.seen
	made    atomic.Int64 // content of blocks that are not raw
	settled atomic.Bool  // what was compared may be forgotten
}

// next returns the next n bytes of the stream; fewer at its end.
func (t *trial) next(n int) ([]byte, error) {
	s := t.s
	if t.at >= len(s.seen) && t.settled.Load() {
		s.seen, t.at = s.seen[:0], 0
	}
	if more := t.at + n - len(s.seen); more > 0 {
		from := len(s.seen)
		s.seen = append(s.seen, make([]byte, more)...)
		k, err := io.ReadFull(s.stream, s.seen[from:])
		s.seen = s.seen[:from+k]
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return nil, err
		}
	}
	return s.seen[t.at:min(t.at+n, len(s.seen))], nil
}

// Write compares the frame's header or checksum.
func (t *trial) Write(b []byte) (int, error) {
	same, err := t.same(b)
	if err == nil && !same {
		err = ErrDiffers
	}
	return len(b), err
}

// same compares b with what comes next in the stream. Of a block that has another
// length no more than the header is read: there may be nothing behind it yet.
func (t *trial) same(b []byte) (bool, error) {
	for _, n := range [...]int{min(len(b), 3), len(b)} {
		want, err := t.next(n)
		if err != nil || !bytes.Equal(b[:n], want) {
			return false, err
		}
	}
	t.at += len(b)
	return true, nil
}

// block compares a block, and takes another class if that makes the stream's.
func (t *trial) block(b *parsed) error {
	e, c := t.s.e, t.s.e.c
	if e.p.Checksum {
		e.sum.write(b.src)
	}
	saved := c.save()
	c.agree &= t.set
	for {
		before := c.agree
		out := c.encode(b)
		same, err := t.same(out)
		if err == nil && !same && b.last && len(b.src) > 0 && !e.p.Flush {
			same, err = t.flushed(out)
			e.p.Flush = same
		}
		if err != nil {
			return err
		}
		if same {
			t.set = c.agree
			if out[0]&6 == blockCompressed<<1 {
				t.made.Add(int64(len(b.src)))
			}
			return nil
		}
		others := before &^ c.agree
		if others == 0 || c.broken {
			return ErrDiffers
		}
		c.restore(saved)
		c.class, c.agree = others.highest(), others
	}
}

// flushed compares the last block as one that is not, and the empty block behind.
func (t *trial) flushed(out []byte) (bool, error) {
	out[0] &^= 1
	at := t.at
	same, err := t.same(out)
	if same {
		same, err = t.same(blockHeader(nil, true, blockRaw, 0))
	}
	if !same {
		t.at = at
	}
	return same, err
}

// coderState is what a coder knows of the blocks before.
type coderState struct {
	reuse bool
	huff  huffTable
	seq   [numKinds]fseTable
}

func (c *coder) save() *coderState {
	s := &coderState{reuse: c.huff.reuse, huff: *c.huff.last}
	for k, t := range c.seq.last {
		s.seq[k] = *t
	}
	return s
}

func (c *coder) restore(s *coderState) {
	c.huff.reuse = s.reuse
	*c.huff.last = s.huff
	for k := range s.seq {
		*c.seq.last[k] = s.seq[k]
	}
}
