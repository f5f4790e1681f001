package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/imgpack/imgpack/sandbox"
)

// Kill sends a signal to the container's process. SIGKILL ends all processes,
// and Kill returns when they have. A paused container takes other signals when
// it is resumed, but its StopSignal resumes it. A container that does not run is
// a *StateError.
func (c *Container) Kill(ctx context.Context, sig syscall.Signal) error {
	_, err := c.ask(ctx, request{Op: opKill, Signal: sig})
	return err
}

// StopOptions says how to stop a container.
type StopOptions struct {
	Signal  syscall.Signal // 0: the container's StopSignal
	Timeout *time.Duration // nil: the container's StopTimeout
}

// Stop sends the container's process the signal to stop, kills all processes
// when it has not ended in time, and returns when it has. A container that does
// not run stays so, and is no error.
func (c *Container) Stop(ctx context.Context, o StopOptions) error {
	r := request{Op: opStop, Signal: o.Signal, Grace: int64(c.stopTimeout())}
	if r.Signal == 0 {
		r.Signal = c.stopSignal()
	}
	if o.Timeout != nil {
		r.Grace = int64(*o.Timeout)
	}
	_, err := c.ask(ctx, r)
	if isStateError(err) {
		return nil
	}
	return err
}

// Pause stops every process of the container where it stands. The error is a
// *sandbox.UnsupportedError where there is no cgroup that can be frozen, and a
// *StateError when it is not running.
func (c *Container) Pause(ctx context.Context) error {
	_, err := c.ask(ctx, request{Op: opPause})
	return err
}

// PauseFor is Pause until resume is called, or the caller is killed. What is
// resumed or ends meanwhile is no error of resume.
func (c *Container) PauseFor(ctx context.Context) (resume func() error, err error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(conn)
	if err := c.exchange(ctx, conn, dec, request{Op: opPause, Held: true}, &reply{}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return func() error {
		defer conn.Close()
		var last reply
		if err := conn.CloseWrite(); err != nil || dec.Decode(&last) != nil || last.Error == nil {
			return nil // the monitor is gone, and all with it, or has done it
		}
		return last.Error.err()
	}, nil
}

// Resume lets a paused container go on.
func (c *Container) Resume(ctx context.Context) error {
	_, err := c.ask(ctx, request{Op: opResume})
	return err
}

// Wait waits until the container does not run, and returns its state then. Of
// one that does not run it is the state as it is.
func (c *Container) Wait(ctx context.Context) (State, error) {
	st, err := c.ask(ctx, request{Op: opWait})
	if st != nil {
		return *st, nil
	}
	if err != nil && !isStateError(err) {
		return State{}, err
	}
	return c.State()
}

// ask asks the monitor for something, and waits for the answer. When the
// monitor is killed meanwhile the state is nil and so is the error.
func (c *Container) ask(ctx context.Context, r request) (*State, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var last reply
	err = c.exchange(ctx, conn, json.NewDecoder(conn), r, &last)
	return last.State, err
}

// exchange sends a request and reads one reply. What that reports is the error.
func (c *Container) exchange(ctx context.Context, conn *net.UnixConn, dec *json.Decoder, r request, answer *reply) error {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := sendRequest(conn, r); err != nil {
		return c.broken(ctx, err)
	}
	if err := dec.Decode(answer); err != nil {
		return c.broken(ctx, err)
	}
	if answer.Error != nil {
		return answer.Error.err()
	}
	return nil
}

// broken is what the end of a connection means. A monitor that is killed lets
// go of its connections a moment before its lock.
func (c *Container) broken(ctx context.Context, err error) error {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		there, merr := c.monitored()
		switch {
		case merr != nil:
			return merr
		case !there:
			return &StateError{c.config.Name, Exited, "is not running"}
		case time.Now().After(deadline):
			return fmt.Errorf("ask the monitor of container %s: %w", c.config.Name, err)
		}
	}
}

// lockPatience is how long a lock may outlive its process's connections.
const lockPatience = time.Second

// dialPatience is how long a monitor that lives may not be asked. One that has a
// container to remove at its end takes as long as that does.
var dialPatience = 10 * time.Second

// dial connects to the monitor. There is a moment after its start, and one
// before its end, in which it cannot be asked.
func (c *Container) dial(ctx context.Context) (*net.UnixConn, error) {
	for deadline := time.Now().Add(dialPatience); ; {
		conn, err := c.dialOnce()
		if err == nil {
			return conn, nil
		}
		there, merr := c.monitored()
		switch {
		case merr != nil && !isDamaged(merr):
			return nil, merr
		case there && time.Now().After(deadline) && !c.isDead():
			return nil, c.mute(err)
		case !there:
			// The state is put right by the way.
			st, err := c.State()
			if err != nil {
				return nil, err
			}
			return nil, &StateError{c.config.Name, st.Status, "is not running"}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// mute says which process cannot be asked: its end is that of the container.
func (c *Container) mute(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err // the address is good for no more than a moment
	}
	st, serr := c.State()
	if serr != nil {
		return serr
	}
	return fmt.Errorf("ask the monitor of container %s, process %d: %s: %w", c.config.Name, st.Monitor, socketFile, err)
}

func (c *Container) dialOnce() (*net.UnixConn, error) {
	dir, err := os.Open(c.path)
	if err != nil {
		return nil, c.gone(err)
	}
	defer dir.Close()
	return net.DialUnix("unix", nil, shortAddress(dir))
}

// Exec runs one more command in the container, as sandbox.Process.Exec does;
// what e leaves out is the container's. When the caller is killed, so is the
// command. A container that does not run, or stops, is a *StateError.
func (c *Container) Exec(ctx context.Context, e sandbox.ExecSpec) (sandbox.Status, error) {
	return c.exec(ctx, e, false)
}

// ExecDetached is Exec that returns when the command has been executed. It has
// no standard streams of the caller's.
func (c *Container) ExecDetached(ctx context.Context, e sandbox.ExecSpec) error {
	e.Stdin, e.Stdout, e.Stderr, e.Signals = nil, nil, nil, nil
	_, err := c.exec(ctx, e, true)
	return err
}

func (c *Container) exec(ctx context.Context, e sandbox.ExecSpec, detach bool) (sandbox.Status, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return sandbox.Status{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return sandbox.Status{}, err
	}
	defer null.Close()
	files := []*os.File{e.Stdin, e.Stdout, e.Stderr}
	for i, f := range files {
		if f == nil {
			files[i] = null
		}
	}
	if err := sendRequest(conn, request{Op: opExec, Exec: &e, Detach: detach}, files...); err != nil {
		return sandbox.Status{}, c.broken(ctx, err)
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case sig, ok := <-e.Signals:
				n, isNumber := sig.(syscall.Signal)
				if !ok || isNumber && sendRequest(conn, request{Signal: n}) != nil {
					return
				}
			case <-ended:
				return
			}
		}
	}()
	for dec := json.NewDecoder(conn); ; {
		var r reply
		if err := dec.Decode(&r); err != nil {
			return sandbox.Status{}, c.broken(ctx, err)
		}
		switch {
		case r.Error != nil:
			return sandbox.Status{}, r.Error.err()
		case r.Exit != nil:
			return *r.Exit, nil
		case r.Started && e.Started != nil:
			e.Started()
		}
		if r.Started && detach {
			return sandbox.Status{}, nil
		}
	}
}

var errNoAnswer = errors.New("it ended without an answer")
