package container

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox"
)

// IO is what of a run belongs to who started it. The zero value is that of a
// detached one.
type IO struct {
	Stdin, Stdout, Stderr *os.File         // beside the log; by the rules of sandbox.Spec
	Signals               <-chan os.Signal // as sandbox.Spec's
	Explain               func(step string)
}

// Run runs the container in the foreground: the caller is its monitor.
// How it ends is kept as the container's state, and returned as sandbox.Run does. A container that runs already is a
// *StateError.
func (c *Container) Run(ctx context.Context, io IO) (sandbox.Status, error) {
	return c.attend(ctx, io, nil)
}

// watch is one run of a container as its monitor sees it.
type watch struct {
	c       *Container
	life    *os.File // holds the lock
	spare   *spare   // for the last state
	log     *logger
	ctl     *server
	began   Status        // the status before
	started chan struct{} // closed when the command runs
	ended   chan struct{} // closed when the end is written down, and the lock free

	mu    sync.Mutex
	proc  *sandbox.Process // from started on
	rec   record
	fault error // why a state could not be written down
}

// attend runs the container to its end. started is told when the command runs.
func (c *Container) attend(ctx context.Context, io IO, started func()) (st sandbox.Status, err error) {
	w := &watch{c: c, started: make(chan struct{}), ended: make(chan struct{})}
	w.log = c.newLogger(w.logFailed)
	if err := w.begin(); err != nil {
		return st, err
	}
	st, err = w.run(ctx, io, started)
	err = errors.Join(err, w.finish(st, err))
	w.ctl.close()
	return st, err
}

// begin takes the container over.
func (w *watch) begin() (err error) {
	c := w.c
	f, err := c.change()
	if err != nil {
		return err
	}
	defer f.Close()
	if c.isDead() {
		return &StateError{c.config.Name, Dead, "is being removed"}
	}
	if w.life, err = c.openLock(); err != nil {
		return c.gone(err)
	}
	defer func() {
		if err != nil {
			w.life.Close()
		}
	}()
	if err := lockByte(w.life, lifeByte, false); errors.Is(err, unix.EAGAIN) {
		return &StateError{c.config.Name, Running, "is running already"}
	} else if err != nil {
		return err
	}
	r, err := c.load()
	if err != nil {
		return c.gone(err)
	}
	if r.live() {
		r = lost(r, c.dir.bootID(), time.Now())
	}
	w.began = r.Status
	r.Starting, r.Monitor, r.Boot = true, os.Getpid(), c.dir.bootID()
	if w.spare, err = newSpare(c.file("state.next")); err != nil {
		return err
	}
	if w.ctl, err = w.listen(); err == nil {
		err = c.save(r)
	}
	if err != nil {
		w.spare.close()
		if w.ctl != nil {
			os.Remove(w.ctl.path)
			w.ctl.close()
		}
	}
	w.rec = r
	return err
}

// run runs the sandbox, with its output to the log.
func (w *watch) run(ctx context.Context, io IO, started func()) (sandbox.Status, error) {
	spec := w.c.config.Spec
	spec.State, spec.Upper, spec.Keep = "", w.c.file(upperDir), true
	spec.Signals, spec.Explain = io.Signals, io.Explain
	out, err := w.openStreams(&spec, io)
	if err != nil {
		return sandbox.Status{}, &sandbox.StartError{Step: "prepare standard streams", Code: sandbox.CodeStart, Err: err}
	}
	spec.Started = func(p *sandbox.Process) {
		out.started()
		if err := w.running(p); err != nil {
			_ = p.Kill() // it is not to run as what it is not
			return
		}
		if started != nil {
			started()
		}
	}
	st, err := sandbox.Run(ctx, spec)
	if werr := out.finish(); err == nil {
		err = werr
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return st, errors.Join(w.fault, err)
}

// running writes down that the command runs.
func (w *watch) running(p *sandbox.Process) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proc = p
	w.rec.Starting, w.rec.Status, w.rec.Pid = false, Running, p.Pid()
	w.rec.Started, w.rec.Error, w.rec.OOMKilled = time.Now().UTC(), "", false
	close(w.started)
	w.fault = w.c.save(w.rec)
	return w.fault
}

// maxReason bounds what is kept of an error, so that there is room for the last
// state whatever it was.
const maxReason = 1 << 10

// finish writes down the end, frees the lock and tells who waits.
func (w *watch) finish(st sandbox.Status, err error) error {
	w.mu.Lock()
	r := &w.rec
	wasStarted := w.proc != nil
	r.Starting, r.Monitor, r.Pid = false, 0, 0
	r.Status, r.ExitCode, r.OOMKilled = Exited, st.Code, st.OutOfMemory
	if err != nil {
		text := err.Error()
		r.Error = text[:min(len(text), maxReason)]
	}
	if wasStarted {
		r.Finished = time.Now().UTC()
	} else {
		r.Status, r.ExitCode = w.began, sandbox.CodeStart
		if start, ok := errors.AsType[*sandbox.StartError](err); ok {
			r.ExitCode = start.Code
		}
	}
	n, why := w.log.lostSoFar()
	w.noteLost(n, why)
	rec := w.rec
	w.mu.Unlock()

	w.log.close()
	err = w.spare.put(rec, w.c.file(stateFile))
	if w.c.config.Remove {
		if f, cerr := w.c.change(); cerr == nil {
			err = errors.Join(err, w.c.erase())
			f.Close()
		}
	}
	os.Remove(w.ctl.path) // from now on it may be another monitor's
	w.life.Close()
	close(w.ended)
	return err
}

func (w *watch) noteLost(n int64, why error) {
	if n > 0 {
		w.rec.LogLost, w.rec.LogError = w.rec.LogLost+n, why.Error()
	}
}

// logFailed keeps in the state that output is being lost, if there is room for
// that.
func (w *watch) logFailed(err error, lost int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec := w.rec
	if rec.State.Live() {
		rec.LogLost, rec.LogError = rec.LogLost+lost, err.Error()
		_ = w.c.save(rec)
	}
}

// stop sends a signal, and SIGKILL when the container does not end in time.
func (w *watch) stop(sig syscall.Signal, grace time.Duration) error {
	if err := w.kill(sig); err != nil {
		return err
	}
	if grace < 0 {
		<-w.ended
		return nil
	}
	select {
	case <-w.ended:
		return nil
	case <-time.After(grace):
		return w.kill(unix.SIGKILL)
	}
}

// kill sends a signal. One that is to end a paused container resumes it.
func (w *watch) kill(sig syscall.Signal) error {
	if sig == unix.SIGKILL {
		if err := w.notRunning(w.proc.Kill()); err != nil {
			return err
		}
		<-w.ended
		return nil
	}
	if err := w.proc.Signal(sig); err != nil {
		return w.notRunning(err)
	}
	w.mu.Lock()
	paused := w.rec.Status == Paused
	w.mu.Unlock()
	if paused && sig == w.c.stopSignal() {
		return w.resume(context.Background())
	}
	return nil
}

func (c *Container) stopSignal() syscall.Signal {
	if c.config.StopSignal == 0 {
		return unix.SIGTERM
	}
	return c.config.StopSignal
}

func (c *Container) stopTimeout() time.Duration {
	if c.config.StopTimeout == nil {
		return DefaultStopTimeout
	}
	return *c.config.StopTimeout
}

// notRunning makes a sandbox's answers those of a container.
func (w *watch) notRunning(err error) error {
	switch {
	case errors.Is(err, sandbox.ErrEnded):
		return &StateError{w.c.config.Name, Exited, "is not running"}
	case errors.Is(err, sandbox.ErrPaused):
		return &StateError{w.c.config.Name, Paused, "is paused: unpause it first"}
	}
	return err
}

func (w *watch) pause(ctx context.Context) error {
	return w.turn(ctx, Paused, "is already paused", w.proc.Pause, w.proc.Resume)
}

func (w *watch) resume(ctx context.Context) error {
	return w.turn(ctx, Running, "is not paused", w.proc.Resume, w.proc.Pause)
}

// turn changes between running and paused; what cannot be written down is
// undone.
func (w *watch) turn(ctx context.Context, to Status, already string, do, undo func(context.Context) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rec.Status == to {
		return &StateError{w.c.config.Name, to, already}
	}
	if err := do(ctx); err != nil {
		return w.notRunning(err)
	}
	rec := w.rec
	rec.Status = to
	if err := w.c.save(rec); err != nil {
		return errors.Join(err, undo(context.WithoutCancel(ctx)))
	}
	w.rec = rec
	return nil
}
