//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"context"
	"errors"
	"math/bits"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/imgpack/imgpack/sandbox/internal/cgroup"
)

// Process is a running sandbox. It is safe for concurrent use. When Run has
// returned, every method but Pid gives ErrEnded.
type Process struct{ b *box }

// life is what can be done to a running sandbox, and has been.
type life struct {
	pausing sync.Mutex // held by Pause, Resume and Kill; it comes before mu

	mu        sync.Mutex
	over      chan struct{} // closed when Run is about to return
	ended     bool          // and so it is
	killed    bool
	paused    bool
	missed    map[int]uint64 // signals that came while it was paused, as bits, by command
	commands  map[int]chan message
	last      int           // ID of a command
	starting  chan struct{} // has room for as many commands as may be started at a time
	noFreezer error         // why there is none; set before the start
}

func newLife(p *plan) *life {
	// Each takes streams of process 1, which has a limit of open files.
	n := 32
	if p.Counted {
		n = 1 // there may be room for one more only
	}
	return &life{
		over: make(chan struct{}), missed: map[int]uint64{}, commands: map[int]chan message{}, starting: make(chan struct{}, n),
	}
}

// tell passes on what process 1 says of a command. It never waits.
func (l *life) tell(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.commands[m.ID] <- m:
	default: // nobody is interested any more
	}
}

func (l *life) wasKilled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.killed
}

// end is when the sandbox is no more.
func (b *box) end() {
	l := b.life
	l.mu.Lock()
	if !l.ended {
		l.ended = true
		close(l.over)
	}
	l.mu.Unlock()
	l.pausing.Lock() // its cgroup is removed next
	defer l.pausing.Unlock()
}

// Pid is process 1 of the sandbox, as the caller sees it.
func (p *Process) Pid() int { return p.b.proc.Pid }

// Signal sends a signal to the command. One that comes while the sandbox is
// paused is sent when it is resumed; but SIGKILL is as Kill then.
func (p *Process) Signal(s syscall.Signal) error { return p.b.signal(0, s) }

// maxSignal is the kernel's last.
const maxSignal = 64

// signal has process 1 send a signal to a command. It writes nothing while
// process 1 does not read.
func (b *box) signal(id int, sig syscall.Signal) error {
	if sig <= 0 || sig > maxSignal {
		return syscall.EINVAL
	}
	l := b.life
	l.mu.Lock()
	switch {
	case l.ended:
		l.mu.Unlock()
		return ErrEnded
	case l.paused && id == 0 && sig == syscall.SIGKILL:
		l.killed = true
		l.mu.Unlock()
		return b.kill()
	case l.paused:
		l.missed[id] |= 1 << (sig - 1)
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	return gone(b.ctl.send(message{ID: id, Signal: int(sig)}))
}

// gone says of an error of writing to process 1 what it means.
func gone(err error) error {
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrProcessDone) {
		return ErrEnded
	}
	return err
}

// Kill ends every process of the sandbox, paused or not, without waiting for
// it: Run then returns a Status with SIGKILL, and no error.
func (p *Process) Kill() error {
	l := p.b.life
	l.mu.Lock()
	ended := l.ended
	l.killed = true
	l.mu.Unlock()
	if ended {
		return ErrEnded
	}
	return gone(p.b.kill())
}

// kill kills process 1; the kernel kills the rest with it.
func (b *box) kill() error {
	err := b.proc.Kill()
	b.life.pausing.Lock()
	defer b.life.pausing.Unlock()
	b.life.mu.Lock()
	frozen := b.life.paused && !b.life.ended
	b.life.mu.Unlock()
	if err == nil && frozen {
		return b.group.Kill()
	}
	return err
}

// Pause stops every process of the sandbox, process 1 too, and returns when
// they stand still. Pausing what is paused does nothing. The error is an
// *UnsupportedError, which says why and what can be done, where there is no
// cgroup that can be frozen, or Spec.Keep was not set. When it fails, or ctx is
// cancelled, nothing stays paused.
func (p *Process) Pause(ctx context.Context) error {
	const patience = 10 * time.Second // it takes less than one of a thousandth
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("not all of them stand still"))
	defer cancel()
	b, l := p.b, p.b.life
	l.pausing.Lock()
	defer l.pausing.Unlock()
	l.mu.Lock()
	was, ended := l.paused, l.ended
	if !ended && b.freezable() {
		l.paused = true // nothing must be written that process 1 does not read
	}
	l.mu.Unlock()
	switch {
	case ended:
		return ErrEnded
	case was:
		return nil
	case !b.freezable():
		return b.cannotPause()
	}
	err := b.group.Freeze(ctx)
	if err != nil {
		return errors.Join(err, b.goOn())
	}
	return nil
}

func (b *box) freezable() bool { return b.plan.Keep && b.group != nil && b.group.Freezable() }

func (b *box) cannotPause() error {
	e := &UnsupportedError{Feature: "pausing", Err: b.life.noFreezer}
	fault := new(cgroup.FreezeError)
	switch {
	case !b.plan.Keep:
		e.Err = errors.New("the sandbox was not started for it")
	case e.Err == nil:
		e.Err = errors.New("process 1 may not be moved into a cgroup that can be frozen")
	case errors.As(e.Err, &fault):
		e.Hint = fault.Remedy
	}
	return e
}

// Resume lets a paused sandbox go on. Resuming what is not paused does nothing.
func (p *Process) Resume(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	b, l := p.b, p.b.life
	l.pausing.Lock()
	defer l.pausing.Unlock()
	l.mu.Lock()
	was, ended := l.paused, l.ended
	l.mu.Unlock()
	switch {
	case ended:
		return ErrEnded
	case !was:
		return nil
	}
	if err := b.group.Thaw(); err != nil {
		return err
	}
	return b.goOn()
}

// goOn sends the signals that came meanwhile.
func (b *box) goOn() error {
	l := b.life
	l.mu.Lock()
	missed := l.missed
	l.paused, l.missed = false, map[int]uint64{}
	l.mu.Unlock()
	for id, set := range missed {
		for ; set != 0; set &= set - 1 {
			if err := b.signal(id, syscall.Signal(bits.TrailingZeros64(set)+1)); err != nil {
				return err
			}
		}
	}
	return nil
}
