package kpzstd

import (
	"encoding/binary"
	"errors"
	"io"
)

// ErrEncode is a content that the modelled encoder would have failed at.
var ErrEncode = errors.New("no zstd stream of this content exists")

var errClosed = errors.New("write to a closed zstd encoder")

// Encoder writes one frame. Its memory is twice the window and 8 MiB, 40 MiB at level
// "best", whatever the content. It is not safe for concurrent use, but works in two goroutines of its
// own until Close.
type Encoder struct {
	p    Params
	w    io.Writer
	h    history
	f    finder
	c    *coder
	from int // where the current block begins in h.buf
	full int // where it ends
	cut  int // of p.Cuts

	begun   bool // the header is written
	several bool // it is no frame of one block
	closed  bool
	sum     xxh64
	emit    func(*parsed) error // writes a block, in the second goroutine

	blocks [2]parsed
	free   chan *parsed
	work   chan *parsed
	done   chan error // of the second goroutine, when it ends
	failed chan error // holds its error
	err    error
}

var _ io.WriteCloser = (*Encoder)(nil)

// NewEncoder returns an encoder that writes a frame to w. What it writes depends on
// the parameters and the content alone, not on how the content is cut into
// writes. An error of w is returned by one of the next calls. Close ends the frame
// and must be called in any case; it does not close w.
func NewEncoder(w io.Writer, p Params) (*Encoder, error) {
	e := new(Encoder)
	return e, e.Reset(w, p)
}

// Reset makes an encoder that is closed ready for another frame, as NewEncoder
// does, and keeps its memory if the parameters allow that.
func (e *Encoder) Reset(w io.Writer, p Params) error {
	if err := p.check(); err != nil {
		return err
	}
	old := e.p
	if e.c == nil || p.Level != old.Level || p.WindowLog != old.WindowLog || p.blockSize() != old.blockSize() || p.Level != Default && p.Class != old.Class {
		e.h, e.f, e.c = newHistory(p), newFinder(p), newCoder(p)
		for i := range e.blocks {
			e.blocks[i].lits = make([]byte, 0, p.blockSize()+8)
			e.blocks[i].seqs = make([]sequence, 0, p.blockSize()/4+1)
		}
	} else {
		e.h.forget()
		e.c.reset(p.Class)
	}
	e.p, e.w, e.emit, e.err = p, w, e.write, nil
	e.cut, e.begun, e.closed, e.several = 0, false, false, p.Flush
	e.free, e.work, e.done, e.failed = nil, nil, nil, nil
	e.sum.reset()
	e.begin()
	return nil
}

// begin makes room for the next block.
func (e *Encoder) begin() {
	n := e.p.blockSize()
	if e.cut < len(e.p.Cuts) {
		n = int(e.p.Cuts[e.cut])
		e.cut++
	}
	if len(e.h.buf)+n > cap(e.h.buf) {
		e.wait()
	}
	e.h.next(n)
	e.from = len(e.h.buf)
	e.full = e.from + n
}

// Write takes content.
func (e *Encoder) Write(b []byte) (int, error) {
	if e.closed {
		return 0, errClosed
	}
	n := 0
	for e.err == nil && len(b) > 0 {
		k := min(len(b), e.full-len(e.h.buf))
		e.h.buf = append(e.h.buf, b[:k]...)
		b = b[k:]
		n += k
		if len(e.h.buf) == e.full {
			e.block(false)
			e.begin()
		}
	}
	return n, e.err
}

// Close ends the frame and the goroutine.
func (e *Encoder) Close() error {
	if e.closed {
		return e.err
	}
	e.closed = true
	rest := len(e.h.buf) - e.from
	if e.err == nil && !e.begun && rest > 0 && !e.several && len(e.p.Cuts) == 0 {
		e.alone()
	} else {
		if rest > 0 && e.p.Flush {
			e.block(false)
			e.from = len(e.h.buf)
		}
		e.block(true)
	}
	e.stop()
	if e.err == nil && e.p.Checksum {
		var b [4]byte
		binary.LittleEndian.PutUint32(b[:], uint32(e.sum.sum()))
		_, e.err = e.w.Write(b[:])
	}
	return e.err
}

// alone writes a frame of one block.
func (e *Encoder) alone() {
	n := len(e.h.buf)
	e.header(uint64(n), n > leastForAlone)
	if e.err != nil {
		return
	}
	b := &e.blocks[0]
	*b = parsed{src: e.h.buf, lits: b.lits[:0], seqs: b.seqs[:0], last: true}
	e.rebase()
	e.f.parse(&e.h, 0, b, true)
	e.err = e.emit(b)
}

func (e *Encoder) rebase() {
	if less := e.h.rebase(); less > 0 {
		e.f.rebase(less)
	}
}

func (e *Encoder) header(size uint64, single bool) {
	if !e.begun {
		e.begun = true
		_, e.err = e.w.Write(appendFrameHeader(nil, e.p, size, single))
	}
}

// block gives the block from e.from on to the second goroutine.
func (e *Encoder) block(last bool) {
	e.header(e.p.Size, false)
	if e.err != nil {
		return
	}
	b := e.take()
	e.rebase()
	if len(e.h.buf) > e.from {
		e.f.parse(&e.h, e.from, b, false)
	}
	e.send(b, e.from, last)
}

// take returns a block that is not in work.
func (e *Encoder) take() *parsed {
	if e.free == nil {
		e.free = make(chan *parsed, len(e.blocks))
		e.work = make(chan *parsed, len(e.blocks))
		e.done, e.failed = make(chan error, 1), make(chan error, 1)
		for i := range e.blocks {
			e.free <- &e.blocks[i]
		}
		go e.run()
	}
	b := <-e.free
	b.lits, b.seqs = b.lits[:0], b.seqs[:0]
	return b
}

func (e *Encoder) send(b *parsed, from int, last bool) {
	b.src, b.last = e.h.buf[from:], last
	e.work <- b
	select {
	case e.err = <-e.failed:
	default:
	}
}

// wait waits until nothing is in work.
func (e *Encoder) wait() {
	if e.free == nil {
		return
	}
	for range e.blocks {
		<-e.free
	}
	for i := range e.blocks {
		e.free <- &e.blocks[i]
	}
}

// stop ends the second goroutine.
func (e *Encoder) stop() {
	if e.work == nil {
		return
	}
	close(e.work)
	if err := <-e.done; e.err == nil {
		e.err = err
	}
}

// run is the second goroutine: it turns what is parsed into bytes.
func (e *Encoder) run() {
	var err error
	for b := range e.work {
		if err == nil {
			if err = e.emit(b); err != nil {
				e.failed <- err
			}
		}
		e.free <- b
	}
	e.done <- err
}

// write is what is done to each block.
func (e *Encoder) write(b *parsed) error {
	if e.p.Checksum {
		e.sum.write(b.src)
	}
	_, err := e.w.Write(e.c.encode(b))
	if e.c.broken {
		return ErrEncode
	}
	return err
}
