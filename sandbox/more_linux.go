//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxExecReport bounds what process 1 may say of one more command.
const maxExecReport = 64 << 10

// Exec runs one more command in the sandbox, to its end, and returns how it
// ended. It has what the first command has and no more: namespaces, cgroup,
// root filesystem, system call filter, capabilities, no_new_privs and limits;
// its user and environment are as e says, and its session is its own. What it
// leaves behind stays until the sandbox ends, which does not wait for it.
//
// When ctx is cancelled the command's process group is killed and the error is
// ctx's cause. A command that could not be started is a *StartError. When the
// sandbox ends first, the error is ErrEnded. In a paused sandbox it is
// ErrPaused, and nothing is run. Spec.Keep must have been set.
func (p *Process) Exec(ctx context.Context, e ExecSpec) (Status, error) {
	if ctx.Err() != nil {
		return Status{}, context.Cause(ctx)
	}
	b := p.b
	x, err := b.newExec(&e)
	if err != nil {
		return Status{}, err
	}
	o, err := openStdio(&Spec{Terminal: e.Terminal, Size: e.Size, Stdin: e.Stdin, Stdout: e.Stdout, Stderr: e.Stderr}, &x.streams)
	if err != nil {
		return Status{}, &StartError{Step: "prepare standard streams", Code: CodeStart, Err: err}
	}
	defer o.close()
	if b.plan.Remap {
		if err := b.giveStreams(o); err != nil {
			return Status{}, &StartError{Step: "give standard streams away", Code: CodeStart, Err: err}
		}
	}
	x.io, x.spec = o, &e
	if x.id, x.news, err = b.life.enroll(); err != nil {
		return Status{}, err
	}
	defer b.life.dismiss(x.id)
	st, err := x.run(ctx)
	o.endOutput()
	if werr := o.finish(ctx); err == nil {
		err = werr
	}
	return st, err
}

// extra is one more command, seen from outside.
type extra struct {
	b       *box
	id      int
	spec    *ExecSpec
	plan    execPlan
	streams plan // for openStdio alone
	io      *stdio
	news    chan message
}

// newExec checks an ExecSpec, as newPlan does the Spec.
func (b *box) newExec(e *ExecSpec) (*extra, error) {
	fail := func(step string, err error) (*extra, error) {
		return nil, &StartError{Step: step, Code: CodeStart, Err: err}
	}
	if err := b.plan.keeps(); err != nil {
		return nil, &UnsupportedError{Feature: "running another command", Err: err}
	}
	x := &extra{b: b, plan: execPlan{Args: e.Args, Env: b.plan.Env, User: e.User, Cwd: e.Cwd}}
	if err := checkArgs(e.Args); err != nil {
		return fail("check command", err)
	}
	if x.plan.Cwd == "" {
		x.plan.Cwd = b.plan.Cwd
	}
	if err := checkCwd(x.plan.Cwd); err != nil {
		return fail("check working directory", err)
	}
	if e.Env != nil {
		x.plan.Env = cleanEnv(e.Env, nil)
	}
	if e.Terminal {
		x.plan.Env = withTerm(slices.Clip(x.plan.Env))
	}
	return x, nil
}

// enroll gives a new command an ID, and where to learn of it.
func (l *life) enroll() (int, chan message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
		return 0, nil, ErrEnded
	case l.paused:
		return 0, nil, ErrPaused
	}
	l.last++
	news := make(chan message, 2) // it is started, and it ends
	l.commands[l.last] = news
	return l.last, news, nil
}

func (l *life) dismiss(id int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.commands, id)
	delete(l.missed, id)
}

// run has process 1 start the command, and waits for its end.
func (x *extra) run(ctx context.Context) (Status, error) {
	l := x.b.life
	select {
	case l.starting <- struct{}{}:
	case <-ctx.Done():
		return Status{}, context.Cause(ctx)
	case <-l.over:
		return Status{}, ErrEnded
	}
	started := func() { <-l.starting }
	defer func() { started() }()
	restore, err := x.b.makeRoom()
	if err != nil {
		return Status{}, err
	}
	defer func() { restore() }()

	x.b.ctl.budget.left.Add(maxExecReport)
	x.plan.Null, x.plan.Terminal, x.plan.Size = x.streams.Null, x.streams.Terminal, x.streams.Size
	if err := gone(x.b.ctl.sendExec(message{ID: x.id, Exec: &x.plan}, x.io.child())); err != nil {
		return Status{}, err
	}
	signals := x.spec.Signals
	for {
		select {
		case m := <-x.news:
			if st, over, err := m.outcome(); over {
				return st, err
			}
			restore()
			started()
			restore, started = func() {}, func() {}
			if err := x.begun(); err != nil {
				return Status{}, err
			}
		case sig := <-signals:
			if n, ok := sig.(syscall.Signal); ok && !x.io.resized(n) {
				_ = x.b.signal(x.id, n) // it may just have ended
			} else if !ok {
				signals = nil // closed
			}
		case <-ctx.Done():
			_ = x.b.signal(x.id, syscall.SIGKILL) // it may just have ended
			return killed, context.Cause(ctx)
		case <-l.over:
			return x.last()
		}
	}
}

func (x *extra) begun() error {
	if err := x.io.started(); err != nil {
		_ = x.b.signal(x.id, syscall.SIGKILL) // it may just have ended
		return err
	}
	if x.spec.Started != nil {
		x.spec.Started()
	}
	return nil
}

// last is how the command ended when the sandbox has: process 1 may have
// said so before.
func (x *extra) last() (Status, error) {
	for {
		select {
		case m := <-x.news:
			if st, over, err := m.outcome(); over {
				return st, err
			}
		default:
			return killed, ErrEnded
		}
	}
}

// outcome is how a command has ended, if that is what m tells.
func (m message) outcome() (st Status, over bool, err error) {
	switch {
	case m.Error != nil:
		return Status{}, true, m.Error.err()
	case m.Exit != nil:
		return *m.Exit, true, nil
	}
	return Status{}, false, nil
}

// makeRoom lets process 1 have the threads that it may need to start a command,
// where they are counted, until the result is called.
func (b *box) makeRoom() (restore func(), err error) {
	if !b.plan.Counted {
		return func() {}, nil
	}
	fault := func(err error) error { return &StartError{Step: "start command", Code: CodeStart, Err: err} }
	free, err := b.group.FreePids()
	if err != nil {
		return nil, fault(err)
	}
	if free < 1 {
		return nil, fault(fmt.Errorf("there are %d processes already, which is the limit", b.limits.Pids))
	}
	threads, err := threadsOf(b.proc.Pid)
	if err == nil {
		const spare = 4 // one starts the command, and the runtime may want others
		err = b.group.SetPids(b.limits.Pids + threads + spare)
	}
	if err != nil {
		return nil, fault(err)
	}
	return func() { _ = b.limitPids() }, nil // it may just have ended
}

// endOutput has relays of output end when they have passed on what is there
// now, although somebody may hold the other end.
func (o *stdio) endOutput() {
	for _, r := range o.reads {
		_ = r.SetReadDeadline(time.Unix(1, 0)) // closed is as good
	}
}

// copyOutput copies until the other end is closed, or until endOutput.
func copyOutput(to io.Writer, r *os.File) error {
	_, err := io.Copy(struct{ io.Writer }{to}, r)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if err := r.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	raw, err := r.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	cerr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	if err = errors.Join(cerr, err); err != nil {
		return err
	}
	_, err = io.CopyN(struct{ io.Writer }{to}, r, int64(n)) // all there: it does not wait
	return err
}
