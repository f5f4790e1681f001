package gunzip

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// ahead decodes beside its reader, who reads the input. That is cut into
// segments, if it can be where a block or a member seems to begin. One worker at
// a time has the turn: it decodes in order and hands on content. Where cores are
// idle others decode later segments on speculation; who gets the turn at such a
// segment proves what was speculated and goes on from there. Nobody ever waits
// for a turn: a worker that can do no more for a segment leaves it.
type ahead struct {
	jobs  int
	cores int32 // of the machine
	cut   cutter
	over  atomic.Bool  // nothing more is wanted
	held  atomic.Int32 // pieces of which it is not known yet whether they are right
	ended bool         // the input; known to the reader only
	last  *piece       // that the reader has

	mu      sync.Mutex
	line    []*segment // under way: the first has the turn
	turn    *decoder   // when there is no segment
	workers int
	results []result
	hungry  bool // the reader waits for wake: for results, or
	few     int  // for so few segments under way
	full    bool // who has the turn waits for room

	wake, room chan struct{}
	done       chan struct{} // closed by close
	once       sync.Once
}

// result is content, or the end.
type result struct {
	b   []byte
	p   *piece // that is not needed any more when b was read; may be nil
	err error
}

// The reader is woken for so many results: waking it takes long. With maxResults
// who has the turn waits.
const (
	someResults = 3
	maxResults  = 6
)

func newAhead(jobs int) *ahead {
	d := new(decoder)
	d.start(newPiece())
	a := &ahead{
		jobs: jobs, cores: int32(runtime.GOMAXPROCS(0)), turn: d, cut: cutter{min: segmentMin},
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if jobs == 1 {
		a.cut.without = patience
	}
	return a
}

func (a *ahead) close() {
	a.over.Store(true)
	a.once.Do(func() { close(a.done) })
}

// more gets more content or the error. It reads on when no content is there yet.
func (a *ahead) more(src *source) ([]byte, error) {
	if a.last != nil {
		a.last.free()
		a.last = nil
	}
	for {
		r, under := a.get()
		switch {
		case r.b != nil || r.err != nil:
			a.last = r.p
			return r.b, r.err
		case under < 0:
			<-a.wake
		default:
			a.send(src, under == 0)
		}
	}
}

// get takes a result. If there is none it returns how many segments are under
// way, or if these are as many as may be, -1: the reader is woken then.
func (a *ahead) get() (result, int) {
	limit, few := 3, 1
	if a.cut.searches() {
		limit, few = a.jobs+2, a.jobs+1
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.results) > 0 {
		r := a.results[0]
		a.results = slices.Delete(a.results, 0, 1)
		if a.full && len(a.results) < someResults {
			a.full = false
			a.room <- struct{}{}
		}
		return r, 0
	}
	if !a.ended && len(a.line) < limit {
		return result{}, len(a.line)
	}
	a.hungry, a.few = true, few
	return result{}, -1
}

// call wakes the reader. It is called with mu held.
func (a *ahead) call() {
	if a.hungry {
		a.hungry = false
		a.wake <- struct{}{}
	}
}

// put gives the reader a result.
func (a *ahead) put(r result) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.results = append(a.results, r); r.err != nil || len(a.results) >= someResults {
		a.call()
	}
	if len(a.results) >= maxResults {
		a.full = true
		a.mu.Unlock()
		defer a.mu.Lock()
		select {
		case <-a.room:
		case <-a.done:
			return false
		}
	}
	return !a.over.Load()
}

// decoding is how many workers there are, of all readers. Speculation is only for
// cores that would be idle: it costs more.
var decoding atomic.Int32

// heldPieces bounds for each job what is decoded on speculation.
const heldPieces = 6

// send reads a segment and sends it on its way.
func (a *ahead) send(src *source, waits bool) {
	g := a.cut.next(src, waits)
	a.ended = g.last
	a.mu.Lock()
	defer a.mu.Unlock()
	a.line = append(a.line, g)
	d := a.turn
	if a.turn = nil; d == nil {
		if a.workers >= a.jobs || decoding.Load() >= a.cores {
			return
		}
		if g = a.speculation(); g == nil {
			return
		}
	}
	a.workers++
	decoding.Add(1)
	go a.work(g, d)
}

// speculation takes the first segment that can be decoded on speculation, or nil.
// It is called with mu held.
func (a *ahead) speculation() *segment {
	if a.over.Load() || int(a.held.Load()) >= heldPieces*a.jobs {
		return nil
	}
	for _, g := range a.line[min(1, len(a.line)):] {
		if g.spec != nil && g.spec.state == unbegun {
			g.spec.state = begun
			return g
		}
	}
	return nil
}

// work decodes a segment: in order with d, which has the turn, or else on
// speculation. Then it goes on with others, as long as there are some.
func (a *ahead) work(g *segment, d *decoder) {
	for g != nil {
		if d == nil {
			d = a.speculate(g)
		}
		for d != nil {
			if err := a.take(d, g); err != nil {
				a.over.Store(true)
				a.put(result{err: err})
				break
			}
			if g = a.pass(d); g == nil {
				break
			}
		}
		d, g = nil, a.next()
	}
}

// next is what a worker without the turn does next. If that is nothing, it is
// none any more.
func (a *ahead) next() *segment {
	a.mu.Lock()
	defer a.mu.Unlock()
	if decoding.Load() <= a.cores {
		if g := a.speculation(); g != nil {
			return g
		}
	}
	a.workers--
	decoding.Add(-1)
	return nil
}

// pass ends the turn of the first segment. It returns the next, if nobody is at
// work on that; otherwise d is handed over.
func (a *ahead) pass(d *decoder) *segment {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.line = slices.Delete(a.line, 0, 1); len(a.line) <= a.few {
		a.call()
	}
	if len(a.line) == 0 {
		a.turn = d
		return nil
	}
	g := a.line[0]
	if s := g.spec; s != nil {
		if s.state == begun {
			s.turn.Store(d)
			return nil
		}
		s.state = begun
	}
	return g
}

// speculate decodes a segment until it has the turn, which it returns, or can do
// no more.
func (a *ahead) speculate(g *segment) *decoder {
	s := g.spec
	for !a.over.Load() && int(a.held.Load()) < heldPieces*a.jobs {
		had := len(s.pieces)
		more := s.step(g.data)
		a.held.Add(int32(len(s.pieces) - had))
		if !more {
			break
		}
		if d := s.turn.Load(); d != nil {
			return d
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.state = left
	return s.turn.Load()
}

var errStopped = errors.New("stopped")

// waiting tells that nothing more can be decoded than the segment that is now.
func (a *ahead) waiting() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.line) == 1
}

// take decodes a segment in order.
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
		if p := d.p; p.to > p.from && (err != io.ErrShortBuffer || a.waiting()) {
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
	if s.d.f == nil {
		// Decoding it in order costs less.
		if !fits {
			a.cut.judge(false)
		}
		return false, nil
	}
	a.held.Add(-int32(len(s.pieces)))
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
	inflaters.Put(d.f)
	if s.member {
		*d = s.d
	} else {
		d.f, d.p, d.phase = s.d.f, s.d.p, s.d.phase
	}
	for _, p := range s.pieces {
		if !s.member {
			d.count(p.content())
		}
		if p != d.p && !a.put(result{b: p.content(), p: p}) {
			return false, errStopped
		}
	}
	return true, nil
}
