package dedupe

import (
	"context"
	"errors"
)

// readAhead is how many parts that a reader has not come to are unpacked
// beside it.
const readAhead = 2

// restoredTar puts a tar together.
type restoredTar struct {
	c     *contents
	next  func() (spoolRange, error)
	wait  func(*part) error
	close context.CancelFunc

	order   []*part // in which parts are met first
	entered int     // how many of them have been
	begun   int     // how many are being unpacked, or have been

	now   spoolRange
	last  *part // that is known to be there
	views [4]view
	clock int
	err   error // sticky
}

// Read fills p unless the tar ends.
func (r *restoredTar) Read(p []byte) (n int, err error) {
	for n < len(p) && r.err == nil {
		if r.now.length == 0 {
			if r.now, r.err = r.next(); r.err == nil {
				r.err = r.enter(r.now.part)
			}
			continue
		}
		var k int
		k, r.err = r.copy(p[n:])
		n += k
	}
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

// Close ends what is being unpacked for this reader alone.
func (r *restoredTar) Close() error {
	r.close()
	if r.err == nil {
		r.err = errReaderClosed
	}
	return nil
}

var errReaderClosed = errors.New("read of a closed layer")

// enter waits for a part, and begins those that will be met next.
func (r *restoredTar) enter(p *part) error {
	if p == r.last {
		return nil
	}
	if r.entered < len(r.order) && p == r.order[r.entered] {
		r.entered++
		r.begun = max(r.begun, r.entered)
		for ; r.begun < min(r.entered+readAhead, len(r.order)); r.begun++ {
			if ahead := r.order[r.begun]; !ahead.ready.Load() {
				go r.wait(ahead)
			}
		}
	}
	r.last = p
	return r.wait(p)
}

// A view is a stretch of the spool in memory: small ranges lie close together
// in it, heads among heads and bodies among bodies.
type view struct {
	buf  []byte
	at   int64 // in the spool
	used int   // when, on the reader's clock
}

// Memory of a reader is four views. They begin small, for ranges that are
// scattered, and double while what is wanted lies just behind them.
const (
	minView = 16 << 10
	maxView = 256 << 10
	// direct is the length from which a range is read without a view.
	direct = 16 << 10
)

// copy reads from the range at hand.
func (r *restoredTar) copy(p []byte) (int, error) {
	p = p[:min(int64(len(p)), r.now.length)]
	w := r.holding(r.now.at)
	switch {
	case w != nil:
		p = p[:copy(p, w.buf[r.now.at-w.at:])]
	case len(p) >= direct:
		if err := r.c.spool.read(p, r.now.at); err != nil {
			return 0, err
		}
	default:
		return 0, r.load()
	}
	r.now.at += int64(len(p))
	r.now.length -= int64(len(p))
	return len(p), nil
}

// holding returns the view that holds the byte at an offset.
func (r *restoredTar) holding(at int64) *view {
	for i := range r.views {
		if w := &r.views[i]; at >= w.at && at < w.at+int64(len(w.buf)) {
			r.clock++
			w.used = r.clock
			return w
		}
	}
	return nil
}

// load fills a view from where the range at hand begins. It goes no further
// than its part, beyond which nothing need be there yet.
func (r *restoredTar) load() error {
	w := &r.views[0]
	size := minView
	for i := range r.views {
		x := &r.views[i]
		if end := x.at + int64(len(x.buf)); len(x.buf) > 0 && r.now.at >= end && r.now.at-end <= int64(len(x.buf)) {
			w, size = x, min(2*len(x.buf), maxView)
			break
		}
		if x.used < w.used {
			w = x
		}
	}
	size = int(min(int64(size), r.now.part.end-r.now.at))
	if cap(w.buf) < size {
		w.buf = make([]byte, size)
	}
	r.clock++
	w.buf, w.at, w.used = w.buf[:size], r.now.at, r.clock
	if err := r.c.spool.read(w.buf, w.at); err != nil {
		w.buf = w.buf[:0]
		return err
	}
	return nil
}
