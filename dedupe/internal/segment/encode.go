package segment

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// minCopied is the least share of its content that a segment must copy to hold
// copies at all: 1/minCopied. Otherwise any zstd program can read it.
const minCopied = 10

// Encoder makes segments. It keeps its buffers from one to the next, and is
// for one goroutine.
//
// Beyond content and prefix it needs, at most: as much as the content for the
// segment, of which only what is filled is touched; 8 bytes for each 64 of
// content or, with a prefix, for each 16 of both; the columns of the copies,
// some MiB; and for each job three buffers of a frame's content and the tables
// of zstd, which are 1 to 34 MiB. With two jobs and no prefix that is 190 MiB at
// Default and 460 at Max.
type Encoder struct {
	settings
	jobs    int
	coder   *zstd.Encoder
	matcher *matcher
	cols    columns
	out     []byte
	free    chan *scratch
}

type scratch struct{ gathered, decoded []byte }

// NewEncoder returns an Encoder that compresses up to jobs frames at a time.
func NewEncoder(l Level, jobs int) *Encoder {
	e := &Encoder{settings: l.settings(), jobs: max(1, jobs)}
	e.coder = newCoder(e.level, e.frame, e.jobs)
	e.free = make(chan *scratch, e.jobs)
	for range e.jobs {
		e.free <- new(scratch)
	}
	if e.match {
		e.matcher = new(matcher)
	}
	return e
}

// Encode returns a segment that holds content, 1 to MaxContent bytes, leaning
// on prefix, at most MaxPrefix bytes. The segment is valid until the next call.
// It depends on level, content and prefix only. It has been read back through
// the code of Decode and compared with content.
func (e *Encoder) Encode(content, prefix []byte) ([]byte, error) {
	if len(content) == 0 || len(content) > MaxContent || len(prefix) > MaxPrefix {
		return nil, fmt.Errorf("segment of %d bytes behind %d: out of bounds", len(content), len(prefix))
	}
	count, packed := e.findCopies(content, prefix)
	c := copies{content: len(content), literals: len(content), pos: len(prefix)}
	if count > 0 {
		cols, err := decodeCopies(packed, count)
		if err != nil {
			return nil, fmt.Errorf("prove copies: %w", err)
		}
		literals := len(content) - e.matcher.copied
		if c, err = parseCopies(cols, count, len(content), literals, len(prefix)); err != nil {
			return nil, fmt.Errorf("prove copies: %w", err)
		}
	}
	starts, err := e.proveCopies(content, prefix, c)
	if err != nil {
		return nil, fmt.Errorf("prove copies: %w", err)
	}
	return e.pack(content, starts, c.literals, count, packed)
}

// findCopies returns the number of copies and their columns as a frame.
func (e *Encoder) findCopies(content, prefix []byte) (int, []byte) {
	if !e.match {
		return 0, nil
	}
	e.cols.reset()
	if e.matcher.find(content, prefix, &e.cols) < len(content)/minCopied || e.cols.count == 0 || e.cols.size() > MaxCopies {
		return 0, nil
	}
	return e.cols.count, e.coder.EncodeAll(e.cols.appendTo(nil), nil)
}

var errProof = errors.New("content read back differs")

// A start is where the literals of a frame begin: skip bytes into those before
// the next copy of c, whose first literal is content's byte at.
type start struct {
	c        copies
	at, skip int
}

// proveCopies walks the copies as the decoder does, and compares. It returns
// where the literals of each frame begin.
func (e *Encoder) proveCopies(content, prefix []byte, c copies) ([]start, error) {
	starts := make([]start, 0, c.literals/e.frame+1)
	seen, w := 0, 0
	for {
		s := start{c: c, at: w}
		lit, n, src, err := c.read()
		if err != nil {
			return nil, err
		}
		for len(starts)*e.frame < seen+lit {
			s.skip = len(starts)*e.frame - seen
			starts = append(starts, s)
		}
		seen += lit
		w += lit
		if n == 0 {
			return starts, nil
		}
		if !placed(content, prefix, w, n, src) {
			return nil, errProof
		}
		w += n
	}
}

// gather returns the n literals of content that follow s, in buf or in place.
func (s start) gather(buf, content []byte, n int) ([]byte, error) {
	if s.c.left == 0 {
		return content[s.at+s.skip:][:n], nil
	}
	if cap(buf) < n {
		buf = make([]byte, 0, n)
	}
	buf = buf[:0]
	for {
		lit, length, _, err := s.c.read()
		if err != nil {
			return nil, err
		}
		buf = append(buf, content[s.at+s.skip:][:min(lit-s.skip, n-len(buf))]...)
		if len(buf) == n {
			return buf, nil
		}
		s.at, s.skip = s.at+lit+length, 0
	}
}

// pack compresses the literals, frame by frame, and joins the segment.
func (e *Encoder) pack(content []byte, starts []start, literals, count int, packed []byte) ([]byte, error) {
	room := frameCap(e.frame)
	head := 64 + 10*len(starts) + len(packed)
	if need := head + len(starts)*room; cap(e.out) < need {
		e.out = make([]byte, need)
	}
	out := e.out[:cap(e.out)]
	sizes := make([]int, 2*len(starts))
	var failed atomic.Bool
	var g errgroup.Group
	g.SetLimit(e.jobs)
	for i, s := range starts {
		n := min(e.frame, literals-i*e.frame)
		dst := out[head+i*room:][:0:room]
		g.Go(func() error {
			if failed.Load() {
				return nil
			}
			size, err := e.packFrame(dst, content, s, n)
			if err != nil {
				failed.Store(true)
				return fmt.Errorf("prove frame %d: %w", i, err)
			}
			sizes[2*i], sizes[2*i+1] = n, size
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	end := head
	for i := range starts {
		end += copy(out[end:], out[head+i*room:][:sizes[2*i+1]])
	}
	table := appendTable(nil, len(content), sizes, count, packed)
	blob := out[head-len(table) : end]
	copy(blob, table)
	return blob, e.proveTable(blob, sizes, len(content), literals, count, packed)
}

// packFrame compresses the n literals after s into dst, and unpacks them again.
func (e *Encoder) packFrame(dst, content []byte, s start, n int) (size int, err error) {
	t := <-e.free
	defer func() { e.free <- t }()
	p, err := s.gather(t.gathered, content, n)
	if err != nil {
		return 0, err
	}
	if s.c.left > 0 {
		t.gathered = p
	}
	frame := compressFrame(dst, p, e.coder)
	if cap(t.decoded) < n {
		t.decoded = make([]byte, n)
	}
	if err := decodeFrame(t.decoded[:n], frame); err != nil {
		return 0, err
	}
	if !bytes.Equal(t.decoded[:n], p) {
		return 0, errProof
	}
	return len(frame), nil
}

// proveTable takes the segment apart and compares with what was put into it.
func (e *Encoder) proveTable(blob []byte, sizes []int, content, literals, count int, packed []byte) error {
	t, err := parseTable(blob)
	if err != nil {
		return fmt.Errorf("prove table: %w", err)
	}
	same := t.content == content && t.literals == literals && t.frames == len(sizes)/2 &&
		t.count == count && bytes.Equal(t.copies, packed)
	for i := 0; same && i < len(sizes); i += 2 {
		n, frame := t.next()
		same = n == sizes[i] && len(frame) == sizes[i+1]
	}
	if !same {
		return fmt.Errorf("prove table: %w", errProof)
	}
	return nil
}
