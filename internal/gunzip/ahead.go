package gunzip

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

// ahead decodes beside its reader, who reads the input. That is cut into
// segments, if it can be where a block or a member seems to begin; those are
// decoded on speculation while the ones before still are. One goroutine takes all
// of them in order, proves what was speculated, and hands on content.
type ahead struct {
	crew   crew
	flight int           // segments that may be under way while borders are looked for
	in     chan *segment // never full
	out    chan result
	done   chan struct{} // closed by close
	once   sync.Once
	cut    cutter
	sent   int   // segments that are under way
	number int64 // of the next segment
	ended  bool
	last   *piece // that the reader has
}

// result is content, the end of a segment, or the end.
type result struct {
	b    []byte
	p    *piece // that is not needed any more when b was read; may be nil
	used bool
	err  error
}

func newAhead(jobs int) *ahead {
	flight := 2*jobs + 1
	a := &ahead{
		flight: flight, in: make(chan *segment, flight+1), out: make(chan result, 2), done: make(chan struct{}),
	}
	a.crew = crew{room: jobs - 1, cores: int32(runtime.GOMAXPROCS(0)), done: a.done}
	go a.run()
	return a
}

func (a *ahead) close() {
	a.once.Do(func() { close(a.done) })
}

// more gets more content or the error. It reads on when no content is there yet.
func (a *ahead) more(src *source) ([]byte, error) {
	if a.last != nil {
		pieces.Put(a.last)
		a.last = nil
	}
	for {
		var r result
		select {
		case r = <-a.out:
		default:
			if !a.ended && (a.sent < 3 || a.sent < a.flight && a.cut.searches()) {
				a.send(src)
				continue
			}
			r = <-a.out
		}
		switch {
		case r.used:
			a.sent--
		case r.b != nil:
			a.last = r.p
			return r.b, nil
		default:
			return nil, r.err
		}
	}
}

// send reads a segment and sends it on its way.
func (a *ahead) send(src *source) {
	g := a.cut.next(src, a.sent == 0)
	a.ended = g.last
	a.sent++
	if g.spec != nil {
		g.spec.data, g.spec.number = g.data, a.number
		a.crew.add(g.spec)
	}
	a.number++
	a.in <- g
}

// decoding is how many goroutines decode, of all readers. Speculation is only for
// cores that would be idle: it costs a third more.
var decoding atomic.Int32

var errStopped = errors.New("stopped")

// run takes the segments in order.
func (a *ahead) run() {
	var d decoder
	d.start(newPiece())
	for {
		var g *segment
		select {
		case g = <-a.in:
		case <-a.done:
			return
		}
		decoding.Add(1)
		err := a.take(&d, g)
		decoding.Add(-1)
		a.crew.at.Add(1)
		if err == nil && !a.put(result{used: true}) {
			return
		}
		if err != nil {
			a.put(result{err: err})
			return
		}
	}
}

func (a *ahead) put(r result) bool {
	select {
	case a.out <- r:
		return true
	case <-a.done:
		return false
	}
}

// take decodes a segment.
func (a *ahead) take(d *decoder, g *segment) error {
	if g.last {
		defer segments.Put(g)
		if d.g != nil {
			defer segments.Put(d.g)
		}
		if d.p.to > d.p.from && !a.put(result{b: d.p.content(), p: d.p}) {
			return errStopped
		}
		return d.end(g.err)
	}
	old := d.g
	if taken, err := a.adopt(d, g); err != nil {
		return err
	} else if !taken {
		d.feed(g)
	}
	d.g = g
	if old != nil {
		segments.Put(old)
	}
	for {
		err := d.run()
		// What there is goes out when the piece is full or the reader may wait.
		if p := d.p; p.to > p.from && (err != io.ErrShortBuffer || len(a.in) == 0) {
			r := result{b: p.content()}
			if p.from = p.to; p.isFull() {
				r.p, d.p = p, newPiece()
				d.p.follow(p)
			}
			if !a.put(r) {
				return errStopped
			}
		}
		if err == io.ErrShortBuffer {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// adopt takes over what was decoded on speculation, if it begins just where the
// stream got to.
func (a *ahead) adopt(d *decoder, g *segment) (bool, error) {
	s := g.spec
	if s == nil {
		return false, nil
	}
	fits := len(d.f.Rest()) == 0
	if s.member {
		fits = fits && d.phase == betweenMembers
	} else {
		fits = fits && d.phase == inContent && d.f.AtBorder()
	}
	if s.claim() {
		// Nobody has begun it; decoding it here costs less than on speculation.
		if !fits {
			a.cut.judge(false)
		}
		return false, nil
	}
	if !fits {
		s.stop.Store(true)
	}
	select {
	case <-s.ready:
	case <-a.done:
		return false, errStopped
	}
	before := d.p
	fits = fits && !s.wrong && s.resolve(before)
	if a.cut.judge(fits); !fits {
		s.free()
		return false, nil
	}
	// The reader may still have the beginning of before.
	if !a.put(result{b: before.content(), p: before}) {
		return false, errStopped
	}
	for _, p := range s.pieces {
		if !s.member {
			d.count(p.content())
		}
		if p == s.pieces[len(s.pieces)-1] {
			next := newPiece()
			next.follow(p)
			s.d.p = next
		}
		if !a.put(result{b: p.content(), p: p}) {
			return false, errStopped
		}
	}
	if s.member {
		*d = s.d
	} else {
		d.f, d.p, d.phase = s.d.f, s.d.p, s.d.phase
	}
	return true, nil
}
