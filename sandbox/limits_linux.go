//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/internal/cgroup"
)

// setupThreads is how many threads process 1 may have, beside the limit of
// processes, until the command is to be started and they can be counted.
const setupThreads = 32

// makeGroup makes the cgroup, if anything is to be limited, or could be paused.
func (b *box) makeGroup() error {
	if !b.plan.Limited && !b.plan.Keep {
		return nil
	}
	g, err := cgroup.New(cgroup.Limits(b.limits))
	if err == nil && b.limits.Pids > 0 {
		if err = g.SetPids(b.limits.Pids + setupThreads); err != nil {
			err = errors.Join(err, g.Remove())
		}
	}
	if err != nil {
		return limitFault(err)
	}
	if b.plan.Keep {
		if err := g.MakeFreezable(); err != nil {
			b.life.noFreezer = err
			b.explain("degraded: it cannot be paused: " + err.Error())
			if !b.plan.Limited {
				return g.Remove()
			}
		}
	}
	b.group, b.plan.Limited = g, true
	return nil
}

func limitFault(err error) error {
	e := &StartError{Step: "set limits", Code: CodeStart, Err: err}
	if un, ok := errors.AsType[*cgroup.UnenforceableError](err); ok {
		e.Hint = un.Remedy
	}
	return e
}

// joinGroup moves process 1, which waits for its plan, into the cgroup.
func (b *box) joinGroup() error {
	if b.group == nil {
		return nil
	}
	if err := b.group.Join(b.proc.Pid); err != nil {
		return limitFault(err)
	}
	return nil
}

func (b *box) removeGroup() error {
	if b.group == nil {
		return nil
	}
	if err := b.group.Remove(); err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}

// limitPids sets the limit of processes to what was asked for and the threads
// of process 1: when only the command is left to start, and when the thread
// that starts it is gone.
func (b *box) limitPids() error {
	if b.limits.Pids == 0 {
		return nil
	}
	threads, err := threadsOf(b.proc.Pid)
	if err == nil {
		err = b.group.SetPids(b.limits.Pids + threads)
	}
	if err != nil {
		return limitFault(fmt.Errorf("limit processes: %w", err))
	}
	return nil
}

// threadsOf is how many threads a process has.
func threadsOf(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if n, ok := strings.CutPrefix(line, "Threads:"); ok {
			return strconv.ParseInt(strings.TrimSpace(n), 10, 64)
		}
	}
	return 0, errors.New("it has no number of threads")
}

// outOfMemory adds to how a sandbox ended whether the limit of memory had a
// part in it. When process 1 is what was killed, so was all else.
func (b *box) outOfMemory(st Status, err error) (Status, error) {
	if b.group == nil {
		return st, err
	}
	kills, oerr := b.group.OOMKills()
	if oerr != nil || kills == 0 {
		return st, err // an unread counter is no reason to lose how it ended
	}
	if errors.Is(err, errEndedEarly) {
		st, err = killed, nil
	}
	st.OutOfMemory = true
	return st, err
}

func (b *box) explainLimits() {
	if b.group != nil {
		for _, note := range b.group.Notes() {
			b.explain(note)
		}
	}
	var free []string
	for _, l := range []struct {
		what string
		free bool
	}{
		{"memory", b.limits.Memory == 0},
		{"processor time", b.limits.CPUs == 0},
		{"number of processes", b.limits.Pids == 0},
	} {
		if l.free {
			free = append(free, l.what)
		}
	}
	if len(free) > 0 {
		b.explain("not limited: " + strings.Join(free, ", "))
	}
}

// cgroupNamespace makes the namespace in which the sandbox's cgroup is the
// root, where that could not be had at the start of process 1. The thread is
// that from which the command is started; process 1's others need none.
func (s *setup) cgroupNamespace() error {
	if !s.plan.Limited {
		return nil
	}
	return unix.Unshare(unix.CLONE_NEWCGROUP)
}

// awaitGo lets the caller count the threads that there will be.
func awaitGo(ctl *control) error {
	haveThreads()
	if err := ctl.send(message{Ready: true}); err != nil {
		return err
	}
	for {
		var m message
		if err := ctl.dec.Decode(&m); err != nil || m.Go {
			return err
		}
		ctl.early = append(ctl.early, m)
	}
}

// haveThreads makes the runtime keep as many threads as process 1 will ever
// need. A command that has used up the limit of processes would otherwise let
// the runtime fail to make one more, and so end the sandbox.
func haveThreads() {
	const enough = 6 // two wait in system calls, one runs, three to spare
	var all, done sync.WaitGroup
	all.Add(enough)
	for range enough {
		done.Go(func() {
			runtime.LockOSThread() // one each, until all are there
			all.Done()
			all.Wait()
			runtime.UnlockOSThread()
		})
	}
	done.Wait()
}
