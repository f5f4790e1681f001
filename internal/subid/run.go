package subid

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// childName is argv[0] of a process that Run started.
	childName = "imgpack-subid"
	// controlFD is where it finds the socket its parent made.
	controlFD = 3
	// mapped is what goes over the socket once ids are mapped, and ready or
	// powerless what comes back; after it each byte is the number of a signal.
	mapped    = 0
	ready     = 1
	powerless = 2
)

// childCaps are the capabilities the child begins with; they reach as far as
// its user namespace. It is executed before any id is mapped, as nobody, who
// would have none but for these.
var childCaps = []uintptr{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL,
	unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETPCAP, unix.CAP_SETFCAP, unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN,
}

// Run starts this program again with args in a user namespace that has m,
// with the caller's standard streams, environment and terminal, and returns
// its exit status once it has ended: 128+n when signal n killed it. An error
// means that nothing was done; it is an *UnavailableError where ranges are not
// to be had.
//
// signals is called once the program runs, and what it returns is passed on;
// before that, and not after, ctx ends the attempt. When the caller is killed
// the program is, too.
func Run(ctx context.Context, m *Maps, args []string, signals func() <-chan os.Signal) (int, error) {
	var h helpers
	if m.Ranges() {
		var err error
		if h, err = usable(); err != nil {
			return 0, err
		}
	}
	// The parent-death signal is tied to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	proc, ctl, err := start(args, m)
	if err != nil {
		return 0, err
	}
	defer ctl.Close()
	if m.Ranges() {
		err = h.mapIDs(ctx, proc.Pid, m)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = release(ctl)
	}
	if err != nil {
		_ = proc.Kill() // it waits or ends, and has done nothing
		_, werr := proc.Wait()
		return 0, errors.Join(err, werr)
	}
	return wait(proc, ctl, signals())
}

// start makes the process; it waits in Init. Ids that take no helper are mapped.
func start(args []string, m *Maps) (*os.Process, *os.File, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, nil, fmt.Errorf("make control socket: %w", err)
	}
	defer theirs.Close()
	sys := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, AmbientCaps: childCaps, Pdeathsig: syscall.SIGKILL}
	if !m.Ranges() {
		sys.UidMappings = []syscall.SysProcIDMap{{HostID: int(m.UIDs[0].Outside), Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{HostID: int(m.GIDs[0].Outside), Size: 1}}
	}
	proc, err := os.StartProcess("/proc/self/exe", append([]string{childName}, args...), &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, theirs}, Sys: sys,
	})
	if err == nil {
		return proc, ours, nil
	}
	ours.Close()
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, e) {
			return nil, nil, &UnavailableError{Reason: "make a user namespace", Forbidden: true, Err: e}
		}
	}
	return nil, nil, fmt.Errorf("start this program again: %w", err)
}

// release lets the process go on, if it finds that it can.
func release(ctl *os.File) error {
	if _, err := ctl.Write([]byte{mapped}); err != nil {
		return fmt.Errorf("start in a user namespace: %w", err)
	}
	var b [1]byte
	switch _, err := io.ReadFull(ctl, b[:]); {
	case err != nil:
		return fmt.Errorf("start in a user namespace: the process ended early: %w", err)
	case b[0] != ready:
		return &UnavailableError{Reason: "user namespaces have no rights here", Forbidden: true, Err: unix.EPERM}
	}
	return nil
}

// wait passes signals on until the process has ended.
func wait(proc *os.Process, ctl *os.File, signals <-chan os.Signal) (int, error) {
	type end struct {
		state *os.ProcessState
		err   error
	}
	ended := make(chan end, 1)
	go func() {
		state, err := proc.Wait()
		ended <- end{state, err}
	}()
	for {
		select {
		case sig := <-signals:
			if n, ok := sig.(syscall.Signal); ok {
				_, _ = ctl.Write([]byte{byte(n)}) // it may just have ended
			} else {
				signals = nil // closed
			}
		case e := <-ended:
			if e.err != nil {
				return 0, fmt.Errorf("wait for this program: %w", e.err)
			}
			if ws := e.state.Sys().(syscall.WaitStatus); ws.Signaled() {
				return 128 + int(ws.Signal()), nil
			}
			return e.state.ExitCode(), nil
		}
	}
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}
