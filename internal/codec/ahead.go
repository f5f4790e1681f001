package codec

import (
	"io"
	"sync"
)

// How far ReadAhead runs ahead: enough that neither side waits for the other
// at each turn, and still in the cache of a core.
const (
	aheadBlocks = 4
	aheadBlock  = 128 << 10 // bytes
)

// ReadAhead returns r, read on a goroutine of its own from the first Read on,
// so that decompressing and using what comes out overlap. It pays where fewer
// streams than cores are read. Memory is 512 KiB.
//
// Errors come in their place in the stream. Close waits for a read of r that
// is under way, then closes r; it may be called while another goroutine is in
// Read, which then returns.
func ReadAhead(r io.ReadCloser) io.ReadCloser {
	a := &ahead{r: r, free: make(chan []byte, aheadBlocks), full: make(chan chunk, aheadBlocks), quit: make(chan struct{}), done: make(chan struct{})}
	return a
}

type chunk struct {
	data []byte
	err  error
}

type ahead struct {
	r          io.ReadCloser
	free       chan []byte
	full       chan chunk
	quit, done chan struct{}
	start      sync.Once
	stop       sync.Once
	now        chunk  // what Read is at
	buf        []byte // the whole of now.data, to give back
	err        error  // of Close
}

func (a *ahead) Read(p []byte) (int, error) {
	a.start.Do(func() {
		for range aheadBlocks {
			a.free <- make([]byte, aheadBlock)
		}
		go a.run()
	})
	if len(p) == 0 {
		return 0, nil
	}
	for len(a.now.data) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.buf != nil {
			a.free <- a.buf // never blocks: there are as many places as blocks
			a.buf = nil
		}
		select {
		case a.now = <-a.full:
			a.buf = a.now.data[:cap(a.now.data)]
		case <-a.quit:
			a.now = chunk{err: errClosed}
		}
	}
	n := copy(p, a.now.data)
	a.now.data = a.now.data[n:]
	return n, nil
}

func (a *ahead) run() {
	defer close(a.done)
	for {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.quit:
			return
		}
		n, err := a.fill(buf)
		select {
		case a.full <- chunk{buf[:n], err}:
		case <-a.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

// fill reads until buf is full or r has ended, or nobody wants it any more.
func (a *ahead) fill(buf []byte) (n int, err error) {
	for idle := 0; n < len(buf) && err == nil; {
		select {
		case <-a.quit:
			return n, errClosed
		default:
		}
		var k int
		k, err = a.r.Read(buf[n:])
		n += k
		if idle++; k > 0 {
			idle = 0
		} else if idle >= maxIdle && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

// maxIdle bounds reads that give nothing, as bufio does.
const maxIdle = 100

func (a *ahead) Close() error {
	a.stop.Do(func() {
		close(a.quit)
		a.start.Do(func() { close(a.done) }) // it never ran
		<-a.done
		a.err = a.r.Close()
	})
	return a.err
}
