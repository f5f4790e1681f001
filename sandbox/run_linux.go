//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/early"
	"github.com/imgpack/imgpack/sandbox/internal/cgroup"
)

// Run runs the process of s to its end and returns how it ended. Signals from
// s.Signals are passed on; when ctx is cancelled everything is killed and the
// error is ctx's cause. When Run returns, and also when the calling process is
// killed, no process of the sandbox is left and no mount of it remains.
//
// Errors before the process has started are *StartError, or *UnsupportedError
// when this host forbids the sandbox. Several Runs may go on at once. Each
// occupies an OS thread, on which the life of its processes depends.
func Run(ctx context.Context, s Spec) (st Status, err error) {
	if err := ctx.Err(); err != nil {
		return Status{}, context.Cause(ctx)
	}
	p, err := newPlan(&s)
	if err != nil {
		return Status{}, err
	}
	explain := s.Explain
	if explain == nil {
		explain = func(string) {}
	}
	dir, err := p.makeRunDir(&s)
	if err != nil {
		return Status{}, &StartError{Step: "prepare state directory", Code: CodeStart, Err: err}
	}
	if dir != nil {
		defer func() {
			if rerr := dir.remove(); rerr != nil {
				err = errors.Join(err, rerr)
			}
		}()
	}
	b := &box{plan: p, explain: explain, limits: s.Limits, told: s.Started, life: newLife(p), dir: dir}
	b.takeAhead(s.Ahead)
	defer func() {
		if b.waiting {
			b.abandon()
		}
	}()
	if b.io, err = openStdio(&s, p); err != nil {
		return Status{}, &StartError{Step: "prepare standard streams", Code: CodeStart, Err: err}
	}
	defer b.io.close()

	defer b.closeSources()
	if err := b.openSources(); err != nil {
		return Status{}, err
	}
	if err := b.makeGroup(); err != nil {
		return Status{}, err
	}
	defer func() { err = errors.Join(err, b.removeGroup()) }()
	defer b.end() // before its cgroup is gone
	st, err = b.run(ctx, s.Signals)
	if un := new(UnsupportedError); errors.As(err, &un) && !p.Single && !p.Remap {
		explain("degraded: no user namespace: " + un.Error())
		p.UserNS = false
		st, err = b.run(ctx, s.Signals)
	}
	if werr := b.io.finish(ctx); err == nil {
		err = werr
	}
	return st, err
}

// run makes one attempt.
func (b *box) run(ctx context.Context, signals <-chan os.Signal) (Status, error) {
	if !b.waiting {
		// The parent-death signal is tied to the thread that starts the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := b.start(); err != nil {
			return Status{}, err
		}
	}
	b.waiting = false
	b.explainNamespaces(b.how)
	err := b.joinGroup()
	if err == nil {
		err = b.handOver()
	}
	if err != nil {
		_ = b.proc.Kill() // it waits for more
		_, werr := b.proc.Wait()
		b.ctl.f.Close()
		return Status{}, errors.Join(err, werr)
	}
	return b.outOfMemory(b.supervise(ctx, signals))
}

// box is a running sandbox, seen from outside.
type box struct {
	plan    *plan
	explain func(string)
	io      *stdio
	proc    *early.Process
	ctl     *control
	limits  Limits
	group   *cgroup.Group // nil: no limits, and nothing to freeze
	sources []int         // of the plan's Binds, opened
	how     string        // this program was protected, for process 1
	waiting bool          // process 1 was started ahead, and has no plan yet
	told    func(*Process)
	life    *life
	dir     *runDir // nil: there is none
}

// start brings up process 1.
func (b *box) start() error {
	program, how, err := protectedExe(b.plan.Single, b.plan.Remap)
	if err != nil {
		return &StartError{Step: "protect own program", Code: CodeStart, Err: err}
	}
	o := &early.Options{Program: program, Namespaces: cloneFlags(b.plan), Env: early.Env}
	if b.plan.Keep {
		o.Env = keeperEnv
	}
	if b.plan.UserNS {
		if err := mapIDs(o, b.plan); err != nil {
			unix.Close(program)
			return &StartError{Step: "map user ids", Code: CodeStart, Err: err}
		}
	}
	proc, err := early.Start(o)
	if err != nil {
		return startFault(b.plan, err)
	}
	b.adopt(proc, how)
	return nil
}

// adopt has process 1 be that of the box.
func (b *box) adopt(proc *early.Process, how string) {
	b.proc, b.ctl, b.how = proc, callerControl(proc.Control), how
}

func (b *box) explainNamespaces(how string) {
	b.explain(how)
	names := "pid, mount, ipc, uts and cgroup"
	if b.plan.Network == None {
		names = "pid, mount, network, ipc, uts and cgroup"
	}
	if b.plan.UserNS {
		names = "user, " + names
	}
	b.explain("namespaces: " + names)
	if b.plan.Remap {
		b.explain(fmt.Sprintf("ids: user 0 is %d outside, group 0 is %d; the layers keep their owners, and are seen through mounts with that map", rootOf(b.plan.UIDs), rootOf(b.plan.GIDs)))
	}
	if b.plan.Single {
		b.explain("degraded: one user id is mapped; every file of the image appears to belong to one user")
	}
	b.explainLimits()
	b.explain(b.plan.filterText())
}

func cloneFlags(p *plan) uintptr {
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if !p.Limited {
		flags |= unix.CLONE_NEWCGROUP // otherwise its root would be the caller's cgroup
	}
	if p.Network == None {
		flags |= unix.CLONE_NEWNET
	}
	if p.UserNS {
		flags |= unix.CLONE_NEWUSER
	}
	return uintptr(flags)
}

// outcome is how the conversation with process 1 ended.
type outcome struct {
	status  Status
	err     error
	settled bool // status or err is valid
	started bool // the command was
}

// supervise sends the plan, passes signals on and waits for the end.
func (b *box) supervise(ctx context.Context, signals <-chan os.Signal) (Status, error) {
	news := make(chan message)
	ended := make(chan outcome, 1)
	go func() { ended <- b.listen(news) }()
	sent := make(chan error, 1)
	go func() { sent <- b.ctl.send(b.plan) }()

	stop := ctx.Done()
	var failed error
	for {
		select {
		case m, ok := <-news:
			switch {
			case !ok:
				news = nil
			case m.Ready:
				if failed = b.limitPids(); failed != nil {
					_ = b.proc.Kill()
				}
				_ = b.ctl.send(message{Go: true}) // process 1 may just have ended
			case m.Started:
				_ = b.limitPids() // by one thread less, if at all
				if err := b.io.started(); err != nil {
					failed = err
					_ = b.proc.Kill()
				} else if b.told != nil {
					b.told(&Process{b})
				}
			default:
				b.explain(m.Explain)
			}
		case sig := <-signals:
			if n, ok := sig.(syscall.Signal); ok && !b.io.resized(n) {
				_ = b.signal(0, n) // process 1 may just have ended
			} else if !ok {
				signals = nil // closed
			}
		case <-stop:
			stop = nil
			_ = b.kill() // it may just have ended
		case out := <-ended:
			st, err := b.settle(ctx, out, <-sent)
			if failed != nil {
				return Status{}, failed
			}
			return st, err
		}
	}
}

// listen reads what process 1 reports until it is gone.
func (b *box) listen(news chan<- message) (out outcome) {
	defer close(news)
	for {
		var m message
		if err := b.ctl.dec.Decode(&m); err != nil {
			return out
		}
		switch {
		case m.ID != 0:
			b.life.tell(m)
		case m.Explain != "", m.Ready, m.Started:
			out.started = out.started || m.Started
			news <- m
		case m.Error != nil:
			out = outcome{err: m.Error.err(), settled: true}
		case m.Exit != nil:
			out = outcome{status: *m.Exit, settled: true}
			b.dir.hurry()
		}
	}
}

// settle waits until every process of the sandbox is gone.
func (b *box) settle(ctx context.Context, out outcome, sendErr error) (Status, error) {
	how, err := b.proc.Wait()
	b.ctl.f.Close()
	if err != nil {
		return Status{}, fmt.Errorf("wait for sandbox: %w", err)
	}
	if out.settled {
		return out.status, out.err
	}
	if ctx.Err() != nil {
		return killed, context.Cause(ctx)
	}
	// Where somebody else kills it, be it the program by a limit that it gives it,
	// that is the end of a container elsewhere, too.
	if b.life.wasKilled() || out.started && how == "signal: "+syscall.SIGKILL.String() {
		return killed, nil
	}
	return Status{}, &StartError{
		Step: "run sandbox", Code: CodeStart,
		Err:  errors.Join(fmt.Errorf("%w: %s", errEndedEarly, how), sendErr),
		Hint: "it may have been killed for want of memory",
	}
}

// killed is how what was killed ends.
var killed = Status{Code: 128 + int(syscall.SIGKILL), Signal: syscall.SIGKILL}

var errEndedEarly = errors.New("process 1 ended early")

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// drainTime is how long a cancelled Run still waits for the last output to be
// taken by a terminal or file that does not take it.
const drainTime = time.Second
