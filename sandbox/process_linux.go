//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"context"
	"errors"
	"syscall"
)

// Process is a running sandbox. It is safe for concurrent use. When Run has
// returned, every method but Pid gives ErrEnded.
type Process struct{ b *box }

var errUnfinished = errors.New("this version of the sandbox cannot do that yet")

// Pid is process 1 of the sandbox, as the caller sees it.
func (p *Process) Pid() int { return p.b.proc.Pid }

// Signal sends a signal to the command. One that comes while the sandbox is
// paused is sent when it is resumed; but SIGKILL is as Kill then.
func (p *Process) Signal(s syscall.Signal) error { return errUnfinished }

// Kill ends every process of the sandbox, paused or not, without waiting for
// it: Run then returns a Status with SIGKILL, and no error.
func (p *Process) Kill() error { return errUnfinished }

// Pause stops every process of the sandbox, process 1 too, and returns when
// they stand still. Pausing what is paused does nothing. The error is an
// *UnsupportedError, which says why and what can be done, where there is no
// cgroup that can be frozen, or Spec.Keep was not set. When it fails, or ctx is
// cancelled, nothing stays paused.
func (p *Process) Pause(ctx context.Context) error { return errUnfinished }

// Resume lets a paused sandbox go on. Resuming what is not paused does nothing.
func (p *Process) Resume(ctx context.Context) error { return errUnfinished }

// Exec runs one more command in the sandbox, to its end, and returns how it
// ended. It has what the first command has and no more: namespaces, cgroup,
// root filesystem, system call filter, capabilities, no_new_privs and limits;
// its user and environment are as e says, and its session is its own. What it leaves
// behind stays until the sandbox ends, which does not wait for it.
//
// When ctx is cancelled the command's process group is killed and the error is
// ctx's cause. A command that could not be started is a *StartError. When the
// sandbox ends first, the error is ErrEnded. In a paused sandbox it is
// ErrPaused, and nothing is run. Spec.Keep must have been set.
func (p *Process) Exec(ctx context.Context, e ExecSpec) (Status, error) {
	return Status{}, errUnfinished
}
