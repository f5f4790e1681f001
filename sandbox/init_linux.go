//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// initName is argv[0] of process 1, and all of its arguments.
	initName = "imgpack-sandbox-init"
	// controlFD is where process 1 finds the control socket.
	controlFD = 3
)

// initEnv keeps process 1 small and away from the host's cgroup files, which
// the Go runtime would otherwise hold open.
var initEnv = []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=containermaxprocs=0"}

func isInit() bool {
	return len(os.Args) == 1 && os.Args[0] == initName && os.Getpid() == 1
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

func (s *setup) steps() []step {
	return []step{
		{"forbid core files", s.forbidCore},
		{"make mounts private", s.makePrivate},
		{"bind volumes", s.cloneSources},
		{"mount scratch", s.mountScratch},
		{"mount overlay", s.mountOverlay},
		{"mount /proc", s.mountProc},
		{"mount /sys", s.mountSys},
		{"mount /dev", s.mountDev},
		{"mount volumes", s.mountMounts},
		{"mount /etc files", s.mountEtc},
		{"look up user", s.findUser},
		{"forbid user namespaces", s.forbidUserNamespaces},
		{"make working directory", s.makeCwd},
		{"open terminal", s.openTerminal},
		{"seal root", s.sealRoot},
		{"set host name", s.setNames},
		{"bring up loopback", s.loopback},
		{"change root", s.pivot},
	}
}

// runInit is process 1's life. Its exit code matters to nobody: what happened
// goes over the control socket.
func runInit() int {
	if err := hardenInit(); err != nil {
		fmt.Fprintln(os.Stderr, initName+":", err)
		return CodeStart
	}
	files, err := receiveFiles(controlFD)
	if err != nil {
		return CodeStart
	}
	ctl := newControl(os.NewFile(controlFD, "control"), 0)
	var p plan
	if err := ctl.dec.Decode(&p); err != nil {
		return CodeStart
	}
	pid, err := build(&p, files, ctl)
	if err != nil {
		_ = ctl.send(message{Error: toWire(err)}) // nobody is left to tell
		return CodeStart
	}
	_ = ctl.send(message{Started: true})
	go forward(ctl, p.target(pid))
	st, err := reap(pid)
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
	return closeInherited()
}

// closeInherited closes descriptors that the caller's process leaked into us.
// The Go runtime's own are all close-on-exec, inherited ones cannot be.
func closeInherited() error {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= controlFD {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	unix.CloseOnExec(controlFD)
	return nil
}

// build walks the steps and starts the command.
func build(p *plan, files []int, ctl *control) (pid int, err error) {
	layers := max(len(files)-p.binds(), 0)
	s := &setup{plan: p, given: files[:layers], sources: files[layers:], fds: files, explain: func(format string, args ...any) {
		if p.Explain {
			_ = ctl.send(message{Explain: fmt.Sprintf(format, args...)}) // explanations are not worth failing for
		}
	}}
	defer s.closeAll()
	defer s.closeTerminal()
	for _, st := range s.steps() {
		if err := st.do(); err != nil {
			return 0, inStep(st.name, err)
		}
	}
	s.closeAll()
	if p.Counted {
		if err := awaitGo(ctl); err != nil {
			return 0, inStep("limit processes", err)
		}
	}
	return s.launch()
}

// inStep names the step an error comes from, unless it says so itself.
func inStep(name string, err error) error {
	var se *StartError
	var un *UnsupportedError
	if errors.As(err, &se) || errors.As(err, &un) {
		return err
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

// forward passes signals on until the caller's end is gone; then everything
// ends, which is the second guard beside the parent-death signal.
func forward(ctl *control, pid int) {
	for {
		var m message
		if len(ctl.early) > 0 {
			m, ctl.early = ctl.early[0], ctl.early[1:]
		} else if err := ctl.dec.Decode(&m); err != nil {
			syscall.Exit(CodeStart)
		}
		if m.Signal > 0 {
			_ = unix.Kill(pid, unix.Signal(m.Signal)) // it may have just ended
		}
	}
}

// reap waits for every process that is left to process 1, until the command
// itself has ended. When process 1 then exits the kernel kills all others.
func reap(pid int) (Status, error) {
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return Status{}, fmt.Errorf("wait for the command: %w", err)
		}
		if got != pid {
			continue
		}
		if ws.Signaled() {
			return Status{Code: 128 + int(ws.Signal()), Signal: ws.Signal()}, nil
		}
		if ws.Exited() {
			return Status{Code: ws.ExitStatus()}, nil
		}
	}
}
