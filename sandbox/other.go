//go:build !linux || 386 || arm || mips || mipsle

package sandbox

import (
	"context"
	"syscall"
)

// Run reports an UnsupportedError: the sandbox is made of Linux namespaces, and
// of system calls whose user ids have 32 bits.
func Run(context.Context, Spec) (Status, error) {
	return Status{}, &UnsupportedError{Feature: "Linux namespaces"}
}

// Ahead is a process 1 started early; there is none on this system.
type Ahead struct{}

// Prepare does nothing on this system.
func Prepare(Spec) *Ahead { return nil }

// Close does nothing on this system.
func (*Ahead) Close() {}

// Sweep finds nothing: nothing has run.
func Sweep(string) (int, error) { return 0, nil }

// RemoveUpper finds nothing: nothing has run.
func RemoveUpper(string) error { return nil }

// Process is a running sandbox; there is none on this system.
type Process struct{}

func (*Process) Pid() int { return 0 }

func (*Process) Signal(syscall.Signal) error { return ErrEnded }

func (*Process) Kill() error { return ErrEnded }

func (*Process) Resize(Size) error { return ErrEnded }

func (*Process) Pause(context.Context) error { return ErrEnded }

func (*Process) Resume(context.Context) error { return ErrEnded }

func (*Process) Exec(context.Context, ExecSpec) (Status, error) { return Status{}, ErrEnded }
