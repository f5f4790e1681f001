//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"runtime"
	"slices"
	"sync"

	"github.com/imgpack/imgpack/sandbox/internal/cgroup"
)

// Ahead is a process 1 that was started before all is known that a [Run]
// needs: it comes up on another processor while the image is looked up.
type Ahead struct {
	ready   chan struct{} // closed when process 1 has been started, or could not be
	box     *box          // what was started, on a plan of what decides on that
	failed  error
	mu      sync.Mutex
	done    bool          // by a Run that took it, or by Close
	release chan struct{} // closed when the thread that process 1's life depends on may go
}

// Prepare starts process 1 for a Run of s, of which Network, UIDMap, GIDMap,
// Limits, Stdin, Stdout and Stderr must be known, and returns at once. The
// Spec that Run gets has the result as its Ahead. A fault is nobody's yet:
// then, and where the Spec of Run differs in the above, Run starts anew. Close
// is to be called when Run has returned, or is not wanted any more.
func Prepare(s Spec) *Ahead {
	a := &Ahead{ready: make(chan struct{}), release: make(chan struct{})}
	go func() {
		// The parent-death signal is tied to the thread that starts the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		a.failed = a.start(&s)
		close(a.ready)
		<-a.release
	}()
	return a
}

func (a *Ahead) start(s *Spec) error {
	p := &plan{Network: s.Network, Limited: s.Limits != Limits{}}
	if err := p.setOwner(s); err != nil {
		return err
	}
	if p.Limited {
		cgroup.Settle()
	}
	a.box = &box{plan: p}
	var err error
	if a.box.io, err = openStdio(s, p); err != nil {
		return err
	}
	if err := a.box.start(); err != nil {
		a.box.io.close()
		return err
	}
	return nil
}

// Close ends process 1, unless Run has. It may be called more than once.
func (a *Ahead) Close() {
	if a == nil {
		return
	}
	if a.take() {
		a.box.abandon()
		a.box.io.close()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.release:
	default:
		close(a.release)
	}
}

// take says whether there is a process 1, and nobody has it.
func (a *Ahead) take() bool {
	if a == nil {
		return false
	}
	<-a.ready
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := a.done
	a.done = true
	return !taken && a.failed == nil
}

// openStreams opens the streams of s. With them comes process 1, where it was
// started ahead and as it is needed.
func (b *box) openStreams(s *Spec) (err error) {
	if s.Ahead.take() {
		with := s.Ahead.box
		if with.plan.startsLike(b.plan) && !s.Terminal {
			b.proc, b.ctl, b.how, b.io, b.waiting = with.proc, with.ctl, with.how, with.io, true
			b.plan.Null = with.plan.Null
			return nil
		}
		with.abandon()
		with.io.close()
	}
	b.io, err = openStdio(s, b.plan)
	return err
}

// startsLike says whether process 1 is started in the same way for both.
func (p *plan) startsLike(q *plan) bool {
	return p.Network == q.Network && p.Limited == q.Limited && p.UserNS == q.UserNS && p.Single == q.Single &&
		p.Remap == q.Remap && slices.Equal(p.UIDs, q.UIDs) && slices.Equal(p.GIDs, q.GIDs)
}

// abandon ends a process 1 that waits for its plan.
func (b *box) abandon() {
	_ = b.proc.Kill() // a process that is gone is as good
	_, _ = b.proc.Wait()
	b.ctl.f.Close()
	b.waiting = false
}
