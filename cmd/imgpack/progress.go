package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/schollz/progressbar/v3"

	"github.com/imgpack/imgpack/manifests"
)

// progress shows how far an operation is: as a bar on a terminal, as a line
// now and then elsewhere, as JSON, or not at all. One exists at a time.
type progress struct {
	done  atomic.Int64
	open  func(op string, total int64) display // nil when nobody looks
	every time.Duration
	now   func() time.Time
	stop  chan struct{}
	wait  sync.WaitGroup

	mu   sync.Mutex
	show display // of the phase at hand; nil before the first
}

// display is one way to show progress. It is called from one goroutine at a
// time.
type display interface {
	tick(now time.Time, done int64)
	finish(now time.Time, done int64)
}

// startProgress shows the progress of op, which moves total bytes; 0 where
// that is not known. It must be ended.
func (a *app) startProgress(op string, total int64) *progress {
	p := a.newProgress()
	p.next(op, total)
	return p
}

// newProgress is startProgress for what will say by next what it does.
func (a *app) newProgress() *progress {
	p := &progress{stop: make(chan struct{}), now: a.now, every: time.Second}
	switch a.progressMode() {
	case "bar":
		p.open = func(op string, total int64) display { return newBar(a.Err, op, total) }
		p.every = 100 * time.Millisecond
	case "plain":
		p.open = func(op string, total int64) display {
			return &heartbeat{out: a.Err, op: op, total: total, start: a.now(), last: a.now()}
		}
	case "json":
		p.open = func(op string, total int64) display {
			return &ticks{out: a.Err, op: op, total: total, start: a.now()}
		}
	default:
		return p
	}
	p.wait.Go(p.loop)
	return p
}

func (a *app) progressMode() string {
	switch {
	case a.g.quiet:
		return "none"
	case a.g.progress == "bar" && !a.errTerminal:
		return "plain" // a bar in a file is kilobytes of carriage returns
	case a.g.progress != "auto":
		return a.g.progress
	case a.errTerminal && a.env("TERM") != "dumb" && a.env("CI") == "":
		return "bar"
	}
	return "plain"
}

// next ends what is shown and goes on with another operation. It must not be
// called while report is told of anything.
func (p *progress) next(op string, total int64) {
	if p.open == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.show != nil {
		p.show.finish(p.now(), p.done.Load())
	}
	p.done.Store(0)
	p.show = p.open(op, total)
}

func (p *progress) loop() {
	t := time.NewTicker(p.every)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
			p.mu.Lock()
			if p.show != nil {
				p.show.tick(p.now(), p.done.Load())
			}
			p.mu.Unlock()
		}
	}
}

// report is what libraries are given; nil when nobody looks.
func (p *progress) report() manifests.Progress {
	if p.open == nil {
		return nil
	}
	return func(_ ocispec.Descriptor, n int64) { p.done.Add(n) }
}

// end takes the display away. Ending twice does nothing.
func (p *progress) end() {
	select {
	case <-p.stop:
		return
	default:
	}
	close(p.stop)
	p.wait.Wait()
	if p.show != nil {
		p.show.finish(p.now(), p.done.Load())
	}
}

// bar is a bar on a terminal; it vanishes at the end.
type bar struct{ b *progressbar.ProgressBar }

func newBar(out io.Writer, op string, total int64) *bar {
	if total <= 0 {
		total = -1
	}
	width := progressbar.OptionFullWidth()
	if _, columns := terminal(out); columns == 0 { // a terminal that does not say
		width = progressbar.OptionSetWidth(20)
	}
	return &bar{progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(out),
		progressbar.OptionSetDescription(op),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(false),
		progressbar.OptionShowTotalBytes(true),
		width,
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionSetTheme(progressbar.ThemeASCII),
		progressbar.OptionClearOnFinish(),
	)}
}

// The bar is never set to its end by a tick: reaching it would end it.
func (b *bar) tick(_ time.Time, done int64) {
	if limit := b.b.GetMax64() - 1; limit >= 0 {
		done = min(done, limit)
	}
	_ = b.b.Set64(done)
}

func (b *bar) finish(time.Time, int64) { _ = b.b.Clear() }

// Times between the lines of a heartbeat.
const (
	heartbeatEvery = 10 * time.Second
	heartbeatSoon  = 2 * time.Second // for another tenth
)

// heartbeat prints a line every ten seconds, and for each further tenth of
// the work unless those come quickly: enough to see that it lives, little
// enough for a log.
type heartbeat struct {
	out         io.Writer
	op          string
	total       int64
	start, last time.Time
	tenth       int64
}

func (h *heartbeat) tick(now time.Time, done int64) {
	since := now.Sub(h.last)
	tenth := int64(0)
	if h.total > 0 {
		tenth = done * 10 / h.total
	}
	if since < heartbeatEvery && (tenth <= h.tenth || since < heartbeatSoon) {
		return
	}
	h.last, h.tenth = now, tenth
	rate, eta := speed(now.Sub(h.start), done, h.total)
	if h.total <= 0 {
		fmt.Fprintf(h.out, "%s: %s, %s/s\n", h.op, size(done), size(rate))
		return
	}
	line := fmt.Sprintf("%s: %s of %s (%d%%), %s/s", h.op, size(done), size(h.total), min(100, done*100/h.total), size(rate))
	if eta >= time.Second {
		line += fmt.Sprintf(", %v left", eta)
	}
	fmt.Fprintln(h.out, line)
}

func (h *heartbeat) finish(time.Time, int64) {}

// speed is the mean rate in bytes per second, and the time left at that rate;
// -1 when there is no telling.
func speed(elapsed time.Duration, done, total int64) (rate int64, eta time.Duration) {
	if elapsed <= 0 || done <= 0 {
		return 0, -1
	}
	r := float64(done) / elapsed.Seconds()
	if total <= 0 || done > total {
		return int64(r), -1
	}
	return int64(r), time.Duration(float64(total-done) / r * float64(time.Second)).Round(time.Second)
}

// ticks prints one object per second.
type ticks struct {
	out   io.Writer
	op    string
	total int64
	start time.Time
}

type tickDoc struct {
	envelope
	Op    string   `json:"op"`
	Done  int64    `json:"done"`
	Total int64    `json:"total"`
	Rate  int64    `json:"bytesPerSecond"`
	Left  *float64 `json:"secondsLeft"`
	Final bool     `json:"final"`
}

func (t *ticks) tick(now time.Time, done int64)   { t.print(now, done, false) }
func (t *ticks) finish(now time.Time, done int64) { t.print(now, done, true) }

func (t *ticks) print(now time.Time, done int64, final bool) {
	doc := tickDoc{envelope: kind("progress"), Op: t.op, Done: done, Total: t.total, Final: final}
	var eta time.Duration
	doc.Rate, eta = speed(now.Sub(t.start), done, t.total)
	if eta >= 0 && !final {
		left := eta.Seconds()
		doc.Left = &left
	}
	raw, _ := json.Marshal(doc)
	fmt.Fprintf(t.out, "%s\n", raw)
}
