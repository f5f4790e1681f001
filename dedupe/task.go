package dedupe

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/imgpack/imgpack/manifests"
)

// task is work that is done once for all who wait for it. It runs in a
// goroutine of its own for as long as anybody waits: who gives up takes nothing
// from the others, and when the last one has, the work is cancelled and will
// begin anew for who comes next. Content that is at fault stays so; another
// error is tried again.
type task struct {
	group *taskGroup
	do    func(context.Context) error

	ready atomic.Bool
	bad   error   // a *manifests.ContentError; guarded by group.mu, as is run
	run   *oneRun // nil when it is not running
}

type oneRun struct {
	cancel  context.CancelFunc
	waiting int
	left    bool // by all who waited; guarded by the group's mu, as is waiting
	err     error
	ended   chan struct{} // closed when err is set
}

// taskGroup ends its tasks.
type taskGroup struct {
	mu      sync.Mutex
	closed  bool
	running map[*oneRun]bool
	work    sync.WaitGroup
}

var (
	errBundleClosed = errors.New("the bundle is closed")
	errCircle       = &manifests.NotFoundError{Subject: "base that does not lean on the bundle in turn"}
)

// wait returns once the work is done, or ctx is. The work may not wait for
// itself, by however many detours: ctx knows what it is part of.
func (t *task) wait(ctx context.Context) error {
	if ctx.Value(t) != nil {
		return errCircle
	}
	for !t.ready.Load() {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := t.join(ctx)
		if r == nil || err != nil {
			return err
		}
		select {
		case <-r.ended:
			if !t.leave(r) {
				return r.err
			}
		case <-ctx.Done():
			t.leave(r)
			return ctx.Err()
		}
	}
	return nil
}

// join makes the caller one of those who wait; nil if the work has been done
// meanwhile.
func (t *task) join(ctx context.Context) (*oneRun, error) {
	t.group.mu.Lock()
	defer t.group.mu.Unlock()
	switch {
	case t.ready.Load():
		return nil, nil
	case t.bad != nil:
		return nil, t.bad
	case t.group.closed:
		return nil, errBundleClosed
	case t.run == nil:
		run, cancel := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), t, true))
		t.run = &oneRun{cancel: cancel, ended: make(chan struct{})}
		t.group.begin(t.run)
		go t.perform(run, t.run)
	}
	t.run.waiting++
	return t.run, nil
}

// leave ends the caller's waiting. It reports whether the run was given up and
// says nothing of the work.
func (t *task) leave(r *oneRun) (givenUp bool) {
	t.group.mu.Lock()
	defer t.group.mu.Unlock()
	givenUp = r.left
	if r.waiting--; r.waiting == 0 {
		r.left = true
		r.cancel()
	}
	return givenUp
}

func (t *task) perform(ctx context.Context, r *oneRun) {
	defer t.group.work.Done()
	err := t.do(ctx)
	t.group.mu.Lock()
	defer t.group.mu.Unlock()
	var content *manifests.ContentError
	switch {
	case err == nil:
		t.ready.Store(true)
	case errors.As(err, &content):
		t.bad = err
	}
	t.run = nil
	r.err = err
	r.cancel()
	delete(t.group.running, r)
	close(r.ended)
}

// begin is called with mu held.
func (g *taskGroup) begin(r *oneRun) {
	if g.running == nil {
		g.running = map[*oneRun]bool{}
	}
	g.running[r] = true
	g.work.Add(1)
}

// close cancels what runs and waits for its end; nothing begins afterwards.
func (g *taskGroup) close() {
	g.mu.Lock()
	g.closed = true
	for r := range g.running {
		r.cancel()
	}
	g.mu.Unlock()
	g.work.Wait()
}
