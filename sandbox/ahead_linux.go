//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"encoding/json"
	"runtime"
	"slices"
	"sync"

	"github.com/imgpack/imgpack/sandbox/early"
	"github.com/imgpack/imgpack/sandbox/internal/cgroup"
)

// Ahead is a process 1 that was started before all is known that a [Run]
// needs: it comes up on another processor while the image is looked up.
type Ahead struct {
	ready   chan struct{} // closed when process 1 has been started, or could not be
	box     *box          // what was started, on a plan of what decides on that
	early   bool          // before Prepare
	failed  error
	mu      sync.Mutex
	done    bool          // by a Run that took it, or by Close
	release chan struct{} // closed when the thread that process 1's life depends on may go
}

// Prepare starts process 1 for a Run of s, of which Network, UIDMap, GIDMap,
// Limits and Keep must be known, and returns at once. The Spec that Run gets has
// the result as its Ahead. A fault is nobody's yet: then, and where the Spec of
// Run differs in the above, Run starts anew. Close is to be called when Run has
// returned, or is not wanted any more.
func Prepare(s Spec) *Ahead {
	a := &Ahead{ready: make(chan struct{}), release: make(chan struct{})}
	begun := early.Take()
	go func() {
		if begun != nil {
			defer begun.Release()
			warm()
			if a.adopt(&s, begun) {
				close(a.ready)
				<-a.release
				return
			}
		}
		// The parent-death signal is tied to the thread that starts the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		a.failed = a.start(&s)
		close(a.ready)
		<-a.release
	}()
	return a
}

// warm does what Run does in any case and what takes its time once: the filter
// of system calls, and what package json finds out of a plan.
func warm() {
	_, _ = usualFilter()
	_, _ = json.Marshal(&plan{})
}

// adopt takes a process 1 that was started even earlier, if it is as s wants
// it, and ends it otherwise.
func (a *Ahead) adopt(s *Spec, begun *early.Begun) bool {
	b := &box{plan: aheadPlan(s)}
	err := b.plan.setOwner(s)
	proc := begun.Process()
	if proc == nil {
		return false
	}
	b.adopt(proc, early.ReadOnlyMount)
	if p := b.plan; err != nil || p.Single || p.Remap || p.Keep || cloneFlags(p) != early.Usual || binds(s.Mounts) {
		b.abandon()
		return false
	}
	a.box, a.early = b, true
	return true
}

func (a *Ahead) start(s *Spec) error {
	a.box = &box{plan: aheadPlan(s)}
	if err := a.box.plan.setOwner(s); err != nil {
		return err
	}
	if a.box.plan.Limited {
		cgroup.Settle()
	}
	return a.box.start()
}

// binds says whether any of mounts is a Bind. Its source may have to be found in
// process 1's own mount namespace, before anything is mounted there.
func binds(mounts []Mount) bool {
	return slices.ContainsFunc(mounts, func(m Mount) bool { return m.Type == Bind })
}

// aheadPlan is what of the plan decides on how process 1 is started.
func aheadPlan(s *Spec) *plan {
	return &plan{Network: s.Network, Limited: s.Limits != Limits{}, Keep: s.Keep}
}

// Close ends process 1, unless Run has. It may be called more than once.
func (a *Ahead) Close() {
	if a == nil {
		return
	}
	if a.take() {
		a.box.abandon()
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

// takeAhead has the process 1 that was started ahead, if it is as it is needed.
func (b *box) takeAhead(a *Ahead) {
	switch {
	case !a.take():
	case a.box.plan.startsLike(b.plan) && !(a.early && b.plan.binds() > 0):
		b.proc, b.ctl, b.how, b.waiting = a.box.proc, a.box.ctl, a.box.how, true
	default:
		a.box.abandon()
	}
}

// startsLike says whether process 1 is started in the same way for both.
func (p *plan) startsLike(q *plan) bool {
	return p.Network == q.Network && p.Limited == q.Limited && p.Keep == q.Keep && p.UserNS == q.UserNS && p.Single == q.Single &&
		p.Remap == q.Remap && slices.Equal(p.UIDs, q.UIDs) && slices.Equal(p.GIDs, q.GIDs)
}

// abandon ends a process 1 that waits for its plan.
func (b *box) abandon() {
	_ = b.proc.Kill() // a process that is gone is as good
	_, _ = b.proc.Wait()
	b.ctl.f.Close()
	b.waiting = false
}
