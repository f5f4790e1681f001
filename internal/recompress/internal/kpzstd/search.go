package kpzstd

import (
	"bytes"
	"errors"
	"io"
)

// ErrDiffers is a frame that none of the modelled encoders made.
var ErrDiffers = errors.New("no model of a zstd encoder makes the frame")

// trialContent is how much content is kept until it is clear what encoder to go
// on with: enough for differences between levels to show.
const trialContent = 1 << 20

// Search finds the parameters of a frame: it takes the content and compares what
// the encoders make of it with the frame. It is not safe for concurrent use. Its
// memory is that of an Encoder and 3 MiB.
type Search struct {
	list    []candidate
	stream  io.Reader
	seen    []byte // of the stream, while it may be needed again
	content []byte // the same
	e       *Encoder
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
	list := candidates(head)
	if len(list) == 0 {
		return nil, ErrDiffers
	}
	return &Search{list: list, stream: stream}, nil
}

// Write takes content. ErrDiffers is that no model is left, at the latest when
// a little more than a block behind the difference has been written.
func (s *Search) Write(b []byte) (int, error) {
	if s.closed {
		return 0, errClosed
	}
	if s.err != nil {
		return 0, s.err
	}
	if s.e != nil {
		n, err := s.e.Write(b)
		s.err = err
		return n, err
	}
	n := min(len(b), trialContent-len(s.content))
	s.content = append(s.content, b[:n]...)
	if len(s.content) < trialContent {
		return n, nil
	}
	if s.err = s.choose(false); s.err != nil {
		return n, s.err
	}
	s.content = nil
	m, err := s.e.Write(b[n:])
	s.err = err
	return n + m, err
}

// Close is the end of the content. If it returns nil, Params makes the frame.
func (s *Search) Close() error {
	if s.closed {
		return s.err
	}
	s.closed = true
	if s.e == nil && s.err == nil {
		s.err = s.choose(true)
	}
	if s.e != nil {
		if err := s.e.Close(); s.err == nil {
			s.err = err
		}
		s.p = s.e.p
		s.p.Class = s.e.c.class
	}
	return s.err
}

// Params returns what was found, after Close returned nil.
func (s *Search) Params() Params { return s.p }

// choose goes on with the first candidate that makes the beginning of the frame.
func (s *Search) choose(all bool) error {
	for _, c := range s.list {
		t := &trial{s: s, set: c.set}
		e, err := NewEncoder(t, c.Params)
		if err != nil {
			return err
		}
		t.e = e
		e.emit = t.block
		_, err = e.Write(s.content)
		if all && err == nil {
			err = e.Close()
		}
		e.wait()
		if err == nil {
			select {
			case err = <-e.failed:
			default:
			}
		}
		if err == nil {
			s.e = e
			t.kept = true
			return nil
		}
		e.Close()
		if !errors.Is(err, ErrDiffers) {
			return err
		}
	}
	return ErrDiffers
}

// trial compares what an encoder writes with the stream.
type trial struct {
	s    *Search
	e    *Encoder
	set  classSet // that made the same so far
	at   int      // in s.seen
	kept bool
}

// next returns the next n bytes of the stream; fewer at its end.
func (t *trial) next(n int) ([]byte, error) {
	s := t.s
	if t.kept && t.at >= len(s.seen) {
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
	b := s.seen[t.at:min(t.at+n, len(s.seen))]
	return b, nil
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
	e, c := t.e, t.e.c
	if e.p.Checksum {
		e.sum.write(b.src)
	}
	saved := c.save()
	c.agree &= t.set
	for {
		before := c.agree
		same, err := t.same(c.encode(b))
		if err != nil {
			return err
		}
		if same {
			t.set = c.agree
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
