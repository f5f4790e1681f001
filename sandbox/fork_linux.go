//go:build linux && (amd64 || arm64)

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/internal/seccomp"
	"github.com/imgpack/imgpack/sandbox/internal/startlimit"
)

// The hooks of the Go runtime around a fork.
//
//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// forked is all that the child does between fork and exec. Nothing may be
// allocated there.
type forked struct {
	flags       uintptr // of clone(2)
	path        *byte
	argv, envv  []*byte
	files       [3]uintptr // to become 0, 1 and 2
	terminal    bool       // standard input is to control it
	limits      []forkLimit
	filter      unix.SockFprog
	filterFlags uintptr
	ready       int       // one byte comes from here before the child goes on; -1: none
	report      int       // where the child says what went wrong
	failed      [2]uint32 // that: its step and the errno
	scratch     [1]byte
}

// forkLimit is a limit that the child sets for itself.
type forkLimit struct {
	resource uintptr
	value    [2]uint64 // soft and hard
}

// Steps of the child.
const (
	stepMap = iota
	stepFiles
	stepTerminal
	stepLimits
	stepFilter
	stepExec
)

var stepNames = [...]string{stepMap: "map user id", stepFiles: "hand over standard streams",
	stepTerminal: "take control of terminal", stepLimits: "set limits of processes", stepFilter: "install system call filter"}

// forkFiltered is syscall.ForkExec with Setsid, limits that the child has and
// process 1 has not, and a filter, or nil, that the child
// installs just before it executes the command, so that neither this thread nor
// what comes before needs its consent. Of attr.Sys it
// knows Cloneflags, Setctty with a Ctty of 0 and the first of each mappings, too.
func forkFiltered(path string, args []string, attr *syscall.ProcAttr, limits []Rlimit, f *seccomp.Filter) (pid int, err error) {
	c := &forked{flags: uintptr(unix.SIGCHLD) | attr.Sys.Cloneflags, limits: forkLimits(limits), ready: -1}
	if f != nil {
		c.filter, c.filterFlags = f.Prog(), uintptr(f.Flags)
	}
	defer runtime.KeepAlive(f)
	copy(c.files[:], attr.Files)
	c.terminal = attr.Sys.Setctty
	if c.path, err = unix.BytePtrFromString(path); err != nil {
		return 0, err
	}
	if c.argv, err = syscall.SlicePtrFromStrings(args); err != nil {
		return 0, err
	}
	if c.envv, err = syscall.SlicePtrFromStrings(attr.Env); err != nil {
		return 0, err
	}
	var report, ready [2]int
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		return 0, inStep("start command", err)
	}
	defer unix.Close(report[0])
	if err := unix.Pipe2(ready[:], unix.O_CLOEXEC); err != nil {
		return 0, errors.Join(inStep("start command", err), unix.Close(report[1]))
	}
	defer unix.Close(ready[0])
	c.report = report[1]
	if attr.Sys.UidMappings != nil {
		c.ready = ready[0]
	}
	syscall.ForkLock.Lock()
	pid, e := c.fork()
	syscall.ForkLock.Unlock()
	unix.Close(report[1])
	if e == 0 && attr.Sys.UidMappings != nil {
		err = writeMaps(pid, attr.Sys)
		if err == nil {
			_, err = unix.Write(ready[1], []byte{1})
		}
	}
	unix.Close(ready[1])
	if e != 0 {
		return 0, inStep("start command", e)
	}
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL) // it waits for the byte
	}
	return pid, c.outcome(pid, report[0], err)
}

// forkLimits are those asked for, and that of open files as the caller has it,
// which the Go runtime has raised for itself.
func forkLimits(limits []Rlimit) (out []forkLimit) {
	own := slices.ContainsFunc(limits, func(l Rlimit) bool { return l.Name == "nofile" })
	if startlimit.Nofile[1] != 0 && !own {
		out = append(out, forkLimit{unix.RLIMIT_NOFILE, startlimit.Nofile})
	}
	for _, l := range limits {
		resource, _ := l.number()
		out = append(out, forkLimit{uintptr(resource), [2]uint64{l.Soft, l.Hard}})
	}
	return out
}

// outcome waits until the command is executed, or takes the child away.
func (c *forked) outcome(pid, report int, mapErr error) error {
	b := (*[unsafe.Sizeof(c.failed)]byte)(unsafe.Pointer(&c.failed))
	n, err := unix.Read(report, b[:])
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(report, b[:])
	}
	if err == nil && n == 0 {
		return nil // closed by the exec
	}
	var ws syscall.WaitStatus
	for {
		if _, werr := syscall.Wait4(pid, &ws, 0, nil); !errors.Is(werr, unix.EINTR) {
			break
		}
	}
	switch {
	case err != nil:
		return inStep("start command", err)
	case mapErr != nil:
		return inStep(stepNames[stepMap], mapErr)
	}
	switch step, e := c.failed[0], syscall.Errno(c.failed[1]); step {
	case stepExec:
		return e
	case stepFilter:
		return filterFault(stepNames[step], e)
	default:
		return inStep(stepNames[step], e)
	}
}

// writeMaps gives the child's user namespace its ids.
func writeMaps(pid int, sys *syscall.SysProcAttr) error {
	line := func(m syscall.SysProcIDMap) string {
		return fmt.Sprintf("%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	for _, w := range []struct{ name, text string }{
		{"uid_map", line(sys.UidMappings[0])},
		{"setgroups", "deny"},
		{"gid_map", line(sys.GidMappings[0])},
	} {
		f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", pid, w.name), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(w.text)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// fork makes the child, which never returns. After the fork it may only make
// raw system calls, since none of the runtime's other threads is there.
//
//go:noinline
//go:norace
//go:nocheckptr
func (c *forked) fork() (int, syscall.Errno) {
	var (
		pid, n uintptr
		e      syscall.Errno
		i      int
	)
	beforeFork()
	pid, _, e = syscall.RawSyscall6(unix.SYS_CLONE, c.flags, 0, 0, 0, 0, 0)
	if e != 0 || pid != 0 {
		afterFork()
		return int(pid), e
	}
	afterForkInChild()
	c.failed[0] = stepMap
	if c.ready >= 0 {
		n, _, e = syscall.RawSyscall(unix.SYS_READ, uintptr(c.ready), uintptr(unsafe.Pointer(&c.scratch)), 1)
		if e != 0 || n != 1 {
			goto fail
		}
	}
	c.failed[0] = stepFiles
	if _, _, e = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); e != 0 {
		goto fail
	}
	for i = 0; i < len(c.files); i++ {
		if c.files[i] == uintptr(i) {
			_, _, e = syscall.RawSyscall(unix.SYS_FCNTL, uintptr(i), unix.F_SETFD, 0)
		} else {
			_, _, e = syscall.RawSyscall(unix.SYS_DUP3, c.files[i], uintptr(i), 0)
		}
		if e != 0 {
			goto fail
		}
	}
	c.failed[0] = stepTerminal
	if c.terminal {
		if _, _, e = syscall.RawSyscall(unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0); e != 0 {
			goto fail
		}
	}
	c.failed[0] = stepLimits
	for i = 0; i < len(c.limits); i++ {
		_, _, e = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, c.limits[i].resource, uintptr(unsafe.Pointer(&c.limits[i].value)), 0, 0, 0)
		if e != 0 {
			goto fail
		}
	}
	c.failed[0] = stepFilter
	if c.filter.Filter != nil {
		_, _, e = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, c.filterFlags, uintptr(unsafe.Pointer(&c.filter)))
		if e != 0 {
			goto fail
		}
	}
	c.failed[0] = stepExec
	_, _, e = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.path)),
		uintptr(unsafe.Pointer(unsafe.SliceData(c.argv))), uintptr(unsafe.Pointer(unsafe.SliceData(c.envv))))
fail:
	c.failed[1] = uint32(e)
	syscall.RawSyscall(unix.SYS_WRITE, uintptr(c.report), uintptr(unsafe.Pointer(&c.failed)), unsafe.Sizeof(c.failed))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
		*(*byte)(nil) = 0 // the filter forbids even that
	}
}
