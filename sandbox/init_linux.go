//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/early"
)

// controlFD is where process 1 finds the control socket.
const controlFD = early.ControlFD

// keeperEnv is early.Env for one that may live long and start many commands.
// Package runtime/debug, which could do the same later, would hold up the start.
var keeperEnv = []string{"GOMAXPROCS=1", "GODEBUG=containermaxprocs=0"}

func isInit() bool {
	return len(os.Args) == 1 && os.Args[0] == early.Name && os.Getpid() == 1
}

// Process 1 lives here and never gets to main: what it needs is initialised by
// now, and most of the program, which it does not need, is not. Package sandbox
// therefore imports nothing of what comes late, such as package net.
func init() {
	if isInit() {
		runtime.LockOSThread()  // the command is started from another thread, which then ends
		syscall.Exit(runInit()) // at once: nothing of the runtime is to be run down here
	}
}

// step is one of the things process 1 does before the command starts. They are
// run in order and the first error ends the sandbox.
type step struct {
	name string
	do   func() error
}

// first are those that the image has no part in. Where early.Begin was right
// about what is wanted, they are done before anything is known of it.
func (s *setup) first() []step {
	return []step{
		{"make mounts private", s.makePrivate},
		{"bind volumes", s.cloneSources},
		{"mount scratch", s.mountScratch},
		{"mount /proc", s.makeProc},
		{"mount /sys", s.makeSys},
		{"mount /dev", s.makeDev},
		{"bring up loopback", s.loopback},
	}
}

func (s *setup) steps() []step {
	return []step{
		{"forbid core files", s.forbidCore},
		{"mount overlay", s.mountOverlay},
		{"mount /proc", s.placeProc},
		{"mount /sys", s.placeSys},
		{"mount /dev", s.placeDev},
		{"mount volumes", s.mountMounts},
		{"mount /etc files", s.mountEtc},
		{"look up user", s.findUser},
		{"forbid user namespaces", s.forbidUserNamespaces},
		{"make working directory", s.makeCwd},
		{"open terminal", s.openTerminal},
		{"seal root", s.sealRoot},
		{"set host name", s.setNames},
		{"change root", s.pivot},
	}
}

// runInit is process 1's life. Its exit code matters to nobody: what happened
// goes over the control socket.
func runInit() int {
	usual, err := early.AwaitIDs()
	if err = errors.Join(err, hardenInit()); err != nil {
		return CodeStart // nobody can be told
	}
	s := newSetup(usual)
	files, err := receiveFiles(controlFD)
	if err != nil {
		return CodeStart
	}
	ctl := initControl(controlFD)
	var p plan
	if err := ctl.dec.Decode(&p); err != nil {
		return CodeStart
	}
	k, err := s.build(&p, files, ctl)
	if err != nil {
		_ = ctl.send(message{Error: toWire(err)}) // nobody is left to tell
		return CodeStart
	}
	if p.Keep {
		k.passOn()
	}
	_ = ctl.send(message{Started: true})
	go k.serve()
	st, err := k.reap()
	if err != nil {
		_ = ctl.send(message{Error: toWire(err)})
		return CodeStart
	}
	_ = ctl.send(message{Exit: &st})
	return 0
}

// hardenInit runs before anything is known about the image.
func hardenInit() error {
	// Not dumpable: the command may not ptrace process 1, nor read its memory,
	// files or executable through /proc/1 (CVE-2019-5736).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("become undumpable: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("tie life to the caller's: %w", err)
	}
	unix.Umask(0o022)
	unix.CloseOnExec(controlFD)
	return early.CloseInherited(controlFD)
}

// newSetup begins with the first steps, if it is usual what is wanted: plan is
// what early.Begin and Ahead.adopt have it be.
func newSetup(usual bool) *setup {
	s := &setup{plan: &plan{UserNS: true, Network: None}, launched: new(int)}
	s.explain = func(format string, args ...any) { s.said = append(s.said, fmt.Sprintf(format, args...)) }
	if usual {
		s.begun, s.fault = true, doSteps(s.first())
		_ = json.Unmarshal([]byte("{}"), new(plan)) // what the package finds out of a plan takes its time once
	}
	return s
}

// doSteps does steps until one fails.
func doSteps(steps []step) error {
	for _, st := range steps {
		if err := st.do(); err != nil {
			return inStep(st.name, err)
		}
	}
	return nil
}

// build walks the steps and starts the command.
func (s *setup) build(p *plan, files []int, ctl *control) (*keeper, error) {
	if len(files) < streams {
		return nil, errors.New("standard streams are missing")
	}
	std, files := files[:streams], files[streams:]
	defer closeFiles(std)
	layers := max(len(files)-p.binds(), 0)
	s.plan, s.given, s.sources, s.fds = p, files[:layers], files[layers:], append(s.fds, files...)
	s.explain = func(format string, args ...any) {
		if p.Explain {
			_ = ctl.send(message{Explain: fmt.Sprintf(format, args...)}) // explanations are not worth failing for
		}
	}
	defer s.closeAll()
	defer s.closeTerminal()
	for _, line := range s.said {
		s.explain("%s", line)
	}
	if !s.begun {
		s.fault = doSteps(s.first())
	}
	if s.fault != nil {
		return nil, s.fault
	}
	if err := doSteps(s.steps()); err != nil {
		return nil, err
	}
	s.closeAll()
	if p.Counted {
		if err := awaitGo(ctl); err != nil {
			return nil, inStep("limit processes", err)
		}
	}
	pid, err := s.launch(std)
	if err != nil {
		return nil, err
	}
	return &keeper{setup: s, ctl: ctl, pid: pid, target: p.target(pid), children: map[int]*child{}}, nil
}

// inStep names the step an error comes from, unless it says so itself.
func inStep(name string, err error) error {
	var se *StartError
	var un *UnsupportedError
	if errors.As(err, &se) || errors.As(err, &un) {
		return err
	}
	if errors.Is(err, unix.ENOSYS) {
		return &UnsupportedError{Feature: "a system call of this step: " + name, Err: err, Hint: "needs Linux 5.10, or 5.11 without root"}
	}
	e := &StartError{Step: name, Code: CodeStart, Err: err}
	if errors.Is(err, unix.EOVERFLOW) || errors.Is(err, unix.EACCES) {
		e.Hint = "without root, the layers must belong to you"
	}
	return e
}

func (s *setup) setNames() error {
	if err := unix.Sethostname([]byte(s.plan.Hostname)); err != nil {
		return err
	}
	s.explain("host name: %s", s.plan.Hostname)
	return unix.Setdomainname(nil)
}

// loopback brings lo up; a new network namespace has it down.
func (s *setup) loopback() error {
	if s.plan.Network == Host {
		s.explain("network: the host's, not isolated")
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return err
	}
	s.explain("network: loopback only")
	return nil
}

// target is where signals for the command go.
func (p *plan) target(pid int) int {
	if p.Init {
		return -pid // its group: it leads a session
	}
	return pid
}
