package sandbox

import (
	"errors"
	"os"
)

// ErrEnded is what a Process says of a sandbox that has ended.
var ErrEnded = errors.New("the sandbox has ended")

// ErrPaused is what Process.Exec says of a sandbox that is paused.
var ErrPaused = errors.New("the sandbox is paused")

// ExecSpec says what to run in a running sandbox. The zero value of every field
// but Args is usable.
type ExecSpec struct {
	// Args is the complete argument vector. Args[0] without a slash is looked
	// up in the PATH of Env, inside the root filesystem.
	Args []string

	// Env is the complete environment, by the rules of Spec.Env. Nil is that of
	// the Spec.
	Env []string

	// User is by the rules of Spec.User, looked up in /etc/passwd and
	// /etc/group as they are in the sandbox now. "" is the first command's user.
	User string

	// Cwd is the absolute working directory, which must be there. "" is the
	// Spec's.
	Cwd string

	// Terminal, Size, Stdin, Stdout and Stderr are by the rules of the Spec's,
	// but that there is no /dev/console. What is still written to a relayed
	// stream when the command has ended, by processes that it left behind, is
	// lost.
	Terminal              bool
	Size                  Size
	Stdin, Stdout, Stderr *os.File `json:"-"`

	// Signals, when not nil, delivers signals that Exec passes to the command.
	Signals <-chan os.Signal `json:"-"`

	// Started, when not nil, is called once, when the command has been
	// executed. It must return soon.
	Started func() `json:"-"`
}
