package sandbox

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
)

// Network chooses what the process can reach.
type Network int

const (
	// None gives the process a loopback interface of its own, up, and nothing
	// else.
	None Network = iota
	// Host leaves the process in the caller's network namespace: every
	// interface, every listening port of 127.0.0.1, every abstract socket.
	Host
)

// Spec says what to run and over what. The zero value of every field but
// Lower and Args is usable. Run does not modify it. As JSON it is what one run
// was asked for, without what belongs to the process that asks.
type Spec struct {
	// Lower holds the overlay's lower directories, topmost first, absolute.
	// They are never written to. Whiteouts are character devices 0:0 and
	// opaque directories carry user.overlay.opaque=y.
	Lower []string

	// State is an existing directory owned by the caller with mode 0700, where
	// Run makes the overlay's upper directory and removes it again; what a
	// killed Run left there is removed by the next one. When empty, the upper
	// directory is on a tmpfs and its content counts as memory.
	State string

	// Upper is an existing directory owned by the caller with mode 0700, where
	// Run makes the directories "upper" and "work" when they are missing, has
	// all changes in "upper", and leaves them there for the next Run over the
	// same Lower. State is then ignored. Of several Runs over one Upper at a
	// time, all but the first are refused. With UIDMap, it is given to the
	// sandbox's root. RemoveUpper removes both directories.
	Upper string

	// UIDMap and GIDMap, when not empty, say which ids the user namespace has,
	// for root alone; id 0 must be among them. The layers keep their owners:
	// they are seen through mounts with that map. Where the kernel or their
	// filesystem has no such mounts, Run gives an *UnsupportedError.
	UIDMap, GIDMap []IDMap

	// ReadOnly makes / read-only for the process.
	ReadOnly bool

	// Args is the complete argument vector. Args[0] without a slash is looked
	// up in the PATH of Env, inside the root filesystem.
	Args []string

	// Env is the complete environment as K=V; of equal names the last counts.
	// Entries without "=" or with an empty name are left out and reported to
	// Explain; they are never looked up in the caller's environment. HOME is
	// added from the image's /etc/passwd when absent.
	Env []string

	// User is the image's user: "", "uid", "name", "uid:gid", "name:group" or
	// a mixture. Digits are always numbers: out of range is an error, never a
	// name.
	User string

	// Cwd is the absolute working directory, made when missing. "" is "/".
	Cwd string

	// Hostname is "localhost" when empty.
	Hostname string

	// Network is None unless said otherwise.
	Network Network

	// Capabilities names the capabilities to keep ("CAP_CHOWN" or "chown").
	// Nil means DefaultCapabilities; empty means none. A process that is not
	// uid 0 gets none of them in effect.
	Capabilities []string

	// Limits is what all processes together may use. A limit that cannot be
	// had is a *StartError; nothing is ever run without it. Without limits, no
	// cgroup is made.
	Limits Limits

	// Seccomp is the policy on system calls, a profile in docker's JSON form.
	// Nil is docker's own, with pushing input into terminals refused as well.
	// Rules by capability go by Capabilities, whoever the user is.
	Seccomp []byte

	// Unconfined leaves system calls unfiltered; Seccomp is then ignored.
	Unconfined bool

	// Mounts are laid over the root filesystem, after /proc, /sys, /dev and the
	// generated files of /etc, those nearest to / first.
	Mounts []Mount

	// Hosts is added to /etc/hosts.
	Hosts []HostEntry

	// Rlimits are the limits of each process. One that the caller may not set
	// is a *StartError.
	Rlimits []Rlimit

	// Keep makes Process.Exec possible, for which process 1 keeps the
	// capabilities that starting commands takes, and Process.Pause, where the
	// host has a cgroup for it. That there is none is no error of Run.
	Keep bool

	// Started, when not nil, is called once, when the command has been
	// executed. It must return soon: Run waits for it. The Process may be used
	// from anywhere then, but Exec and Pause not from within Started.
	Started func(*Process) `json:"-"`

	// Stdin, Stdout and Stderr are the caller's and stay open. Nil is
	// /dev/null. Pipes and sockets are handed to the process; anything else (a
	// terminal, a file) is reached through a pipe that Run serves, so that the
	// process never holds a file of the host that it could reopen, chmod or
	// push input into.
	Stdin, Stdout, Stderr *os.File `json:"-"`

	// Terminal gives the process a terminal of the sandbox's own: it is the
	// controlling one, /dev/console and all three standard streams, and
	// TERM=xterm is added to Env unless that has a TERM. Run types what Stdin
	// gives and writes what is displayed to Stdout; Stderr is not used. A
	// terminal that is Stdin is in raw mode from the start of the process until
	// Run returns, and when it hangs up so does the sandbox's. The end of any
	// other Stdin is not passed on, nor is it of none.
	Terminal bool

	// Size is the terminal's first size. Zero is that of Stdin or else Stdout,
	// as far as these are terminals, whose size is then taken over again with
	// each SIGWINCH from Signals; otherwise 24 rows of 80 columns.
	Size Size

	// Init sends the signals from Signals to the process group of the process,
	// not to it alone. Process 1 reaps orphans with it and without.
	Init bool

	// Ahead, when not nil, is what Prepare made for this Run.
	Ahead *Ahead `json:"-"`

	// Signals, when not nil, delivers signals that Run passes to the process,
	// but SIGWINCH when it has a Terminal.
	Signals <-chan os.Signal `json:"-"`

	// Explain, when not nil, is told each isolation step and each one that had
	// to be weaker than usual, as one line. It is never called concurrently,
	// and not after Run has returned.
	Explain func(step string) `json:"-"`
}

// IDMap is a range of ids: Size of them, from Inside on for the process and
// from Outside on for the caller.
type IDMap struct{ Inside, Outside, Size uint32 }

// Size is a terminal's, in characters.
type Size struct{ Rows, Cols uint16 }

// Limits is what a sandbox may use, with docker's meanings. Zero is no limit.
type Limits struct {
	Memory     int64   // bytes, files kept in memory among them
	MemorySwap int64   // bytes of memory and swap together; -1: any amount of swap; 0: twice Memory, where swap can be limited
	CPUs       float64 // processors' worth of time: 1.5
	CPUSet     string  // processors to run on: "0-2,5"
	Pids       int64   // processes and threads, those of process 1 not counted
}

// DefaultCapabilities is what Spec.Capabilities means when nil: docker's set
// without MKNOD, NET_RAW and AUDIT_WRITE.
func DefaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
	}
}

// CapabilityNames lists the capabilities that there may be.
func CapabilityNames() (names []string) {
	for _, c := range capability.ListKnown() {
		names = append(names, "CAP_"+strings.ToUpper(c.String()))
	}
	return names
}

// Status is how the process ended.
type Status struct {
	Code   int            // its exit code, or 128+n when signal n killed it
	Signal syscall.Signal // the signal that killed it, or 0

	// OutOfMemory says that the kernel killed processes of the sandbox, this one
	// or others, at Limits.Memory.
	OutOfMemory bool
}

// Exit codes of a StartError, as docker uses them.
const (
	CodeStart   = 125 // the sandbox could not be set up
	CodeNotExec = 126 // the command was found and cannot be executed
	CodeNoSuch  = 127 // the command was not found
)

// StartError reports that the process was never started.
type StartError struct {
	Step string // what was being done: "mount /proc", "look up user"
	Code int    // CodeStart, CodeNotExec or CodeNoSuch
	Err  error  // why
	Hint string // what might help, or ""
}

func (e *StartError) Error() string {
	if e.Step == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s: %v", e.Step, e.Err)
}

func (e *StartError) Unwrap() error { return e.Err }

// UnsupportedError reports that this kernel, or how it is set, does not allow
// a sandbox at all, or not what was asked of a running one.
type UnsupportedError struct {
	Feature string // what is missing: "user namespaces"
	Setting string // the setting at fault: "user.max_user_namespaces=0", or ""
	Err     error  // what the kernel said
	Hint    string // what an administrator can do, or ""
}

func (e *UnsupportedError) Error() string {
	s := e.Feature + " not available"
	if e.Setting != "" {
		s += " (" + e.Setting + ")"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *UnsupportedError) Unwrap() error { return e.Err }
