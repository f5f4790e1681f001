//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// launch starts the command from a thread of its own. The thread gives up, for
// itself alone, all that the command must not have; the command is forked from
// it and inherits that; then the thread ends. The reaper's other threads keep
// what they need to signal the command. std are its streams.
func (s *setup) launch(std []int) (int, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, inStep("open /dev/null", err)
	}
	defer unix.Close(null)
	files := make([]uintptr, streams)
	for i := range files {
		if files[i] = uintptr(std[i]); s.plan.Null[i] {
			files[i] = uintptr(null)
		}
	}
	if s.pty != nil {
		if err := s.pty.give(std[0]); err != nil {
			return 0, inStep("hand over terminal", err)
		}
		files = slices.Repeat([]uintptr{uintptr(s.pty.slave)}, len(files))
	}
	pid, thread, err := s.launchFrom(files)
	if err != nil {
		return 0, err
	}
	// The reaper must hold no file of the host.
	for fd := range 3 {
		if err := unix.Dup3(null, fd, 0); err != nil {
			return 0, inStep("let go of standard streams", err)
		}
	}
	if err := weaken(thread, s.retained()); err != nil {
		s.explain("degraded: process 1 keeps its capabilities: %v", err)
	}
	if s.userns > 0 && !(s.plan.Keep && s.plan.Single) {
		unix.Close(s.userns)
		s.userns = 0
	}
	return pid, nil
}

// launchFrom starts a command with streams, and says from which thread.
func (s *setup) launchFrom(files []uintptr) (pid, thread int, err error) {
	if s.nested() {
		// One for each command so far is enough. There is room for the running
		// ones to take as many as have ended, in this moment and where a filter
		// of the user's own lets them.
		*s.launched++
		if err := s.limitUserNamespaces(*s.launched); err != nil {
			return 0, 0, err
		}
		defer func() {
			if lerr := s.limitUserNamespaces(0); lerr != nil {
				err = errors.Join(err, lerr)
			}
		}()
	}
	type result struct {
		pid, thread int
		err         error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		pid, err := s.launchHere(files)
		done <- result{pid, unix.Gettid(), err}
	}()
	r := <-done
	return r.pid, r.thread, r.err
}

// weaken leaves process 1, for good, the capabilities in set. launcher is the
// thread that has given up more than that; the runtime wants the same answer
// from all threads, so it must be gone.
func weaken(launcher int, set uint64) error {
	const tries = 100 // it is gone within the first few
	for range tries {
		if unix.Tgkill(unix.Getpid(), launcher, 0) == unix.ESRCH {
			break
		}
		time.Sleep(100 * time.Microsecond)
	}
	if err := unix.Tgkill(unix.Getpid(), launcher, 0); err != unix.ESRCH {
		return errors.New("its launching thread is still there")
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	low, high := uint32(set), uint32(set>>32)
	data := [2]unix.CapUserData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0)
	if e != 0 { // ENOTSUP in a program built with cgo
		return e
	}
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// launchHere runs on the thread that gives everything up. The order matters:
// each step still needs what the next one drops. The system call filter comes
// last: docker's lets the fork through, which is all that follows. A second user
// namespace it does not, nor need a filter of the user's own let anything
// through; then the child installs it.
func (s *setup) launchHere(files []uintptr) (int, error) {
	nested := s.nested()
	for _, st := range []step{
		{"separate working directory", func() error { return unix.Unshare(unix.CLONE_FS) }},
		{"make cgroup namespace", s.cgroupNamespace},
		{"join new session keyring", s.newKeyring},
		{"reset signals", resetSignals},
		{"drop bounding set", s.dropBounding},
		{"set user", s.become},
		// Which may have made process 1 dumpable, by fs.suid_dumpable.
		{"stay undumpable", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }},
		{"set no_new_privs", func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }},
		{"set capabilities", func() error { return s.setCapabilities(nested) }},
		{"enter working directory", s.enterCwd},
		// The runtime and libraries open nothing inheritable; this is the proof.
		{"mark files close-on-exec", closeOnExec},
	} {
		if err := st.do(); err != nil {
			return 0, inStep(st.name, err)
		}
	}
	sys := &syscall.SysProcAttr{Setsid: true, Setctty: s.pty != nil} // of standard input
	start := syscall.ForkExec
	switch f := s.plan.Filter; {
	case len(s.plan.Rlimits) > 0, f != nil && (nested || s.plan.OwnFilter):
		start = func(path string, args []string, attr *syscall.ProcAttr) (int, error) {
			return forkFiltered(path, args, attr, s.plan.Rlimits, f)
		}
	case f == nil:
	default:
		if err := f.Install(); err != nil {
			return 0, filterFault("install system call filter", err)
		}
	}
	if nested {
		sys.Cloneflags = unix.CLONE_NEWUSER
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: s.user.uid, HostID: 0, Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: s.user.gid, HostID: 0, Size: 1}}
	}
	return s.execute(start, &syscall.ProcAttr{Env: s.environment(), Files: files, Sys: sys})
}

// nested says whether the command needs a second user namespace: with one id
// mapped, another user than 0 can only be had by mapping that one id again.
func (s *setup) nested() bool { return s.plan.Single && s.user.uid != 0 }

func (s *setup) newKeyring() error {
	// Without a name: an anonymous one, that nobody else can join.
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
		s.explain("degraded: no session keyring of its own: %v", err)
		return nil
	}
	s.explain("session keyring: new")
	return nil
}

// sigaction is the kernel's struct; only the handler matters here. Its size
// covers every 64-bit architecture.
type sigaction struct {
	handler uintptr
	rest    [7]uintptr
}

// resetSignals unblocks every signal for the command, and stops ignoring what
// the caller ignored. Handlers of the Go runtime become defaults by themselves
// when the command is forked.
func resetSignals() error {
	const (
		sigIgn    = 1
		setSize   = 8
		lastSig   = 64
		sigKill   = int(unix.SIGKILL)
		sigStop   = int(unix.SIGSTOP)
		setAction = unix.SYS_RT_SIGACTION
	)
	for sig := 1; sig <= lastSig; sig++ {
		if sig == sigKill || sig == sigStop {
			continue
		}
		var act sigaction
		if _, _, e := unix.RawSyscall6(setAction, uintptr(sig), 0, uintptr(unsafe.Pointer(&act)), setSize, 0, 0); e != 0 {
			return e
		}
		if act.handler != sigIgn {
			continue
		}
		act = sigaction{}
		if _, _, e := unix.RawSyscall6(setAction, uintptr(sig), uintptr(unsafe.Pointer(&act)), 0, setSize, 0, 0); e != 0 {
			return e
		}
	}
	var none unix.Sigset_t
	return unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil)
}

func (s *setup) keeps(c capability.Cap) bool { return slices.Contains(s.plan.Caps, int(c)) }

func (s *setup) dropBounding() error {
	all, err := capability.ListSupported()
	if err != nil {
		return err
	}
	for _, c := range all {
		if s.keeps(c) {
			continue
		}
		if err := capability.DropBound(c); err != nil {
			return fmt.Errorf("drop %s: %w", c, err)
		}
	}
	return capability.ResetAmbient()
}

// become takes on the user's ids, on this thread only: the raw calls, since
// the library's would change the reaper's threads too.
func (s *setup) become() error {
	u := &s.user
	if s.plan.Single {
		s.explainSingleUser()
		return nil
	}
	groups := make([]uint32, 0, len(u.groups)+1)
	groups = append(groups, uint32(u.gid))
	for _, g := range u.groups {
		groups = append(groups, uint32(g))
	}
	_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
	if e != 0 {
		return s.unmapped(fmt.Sprintf("set groups %v", groups), e)
	}
	gid, uid := uintptr(u.gid), uintptr(u.uid)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); e != 0 {
		return s.unmapped(fmt.Sprintf("set group %d", u.gid), e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); e != 0 {
		return s.unmapped(fmt.Sprintf("set user %d", u.uid), e)
	}
	s.explain("user: %d:%d, %d supplementary groups", u.uid, u.gid, len(u.groups))
	return nil
}

// unmapped says of EINVAL what it means to those who have not every id.
func (s *setup) unmapped(step string, e syscall.Errno) error {
	se := &StartError{Step: step, Code: CodeStart, Err: e}
	if e == unix.EINVAL && s.plan.Remap {
		se.Hint = "the id map needs a range with it"
	} else if e == unix.EINVAL {
		se.Hint = "an ordinary user has only the ids of his ranges in /etc/subuid and /etc/subgid"
	}
	return se
}

func (s *setup) explainSingleUser() {
	u := &s.user
	switch {
	case s.nested():
		s.explain("user: %d:%d, mapped to the caller in a second user namespace", u.uid, u.gid)
	case u.gid != 0:
		s.explain("degraded: user 0:0 instead of 0:%d, only one id is mapped", u.gid)
	default:
		s.explain("user: 0:0, mapped to the caller")
	}
	if len(u.groups) > 0 {
		s.explain("degraded: %d supplementary groups of the image are not set, only one id is mapped", len(u.groups))
	}
	s.explain("degraded: the caller's supplementary groups cannot be dropped")
}

// setCapabilities leaves user 0 the kept set and everybody else nothing. In a
// nested user namespace the thread needs CAP_SETFCAP until the ids are mapped
// (the kernel's rule for mapping id 0); the command itself, not being user 0
// and unable to gain privileges, starts with none.
func (s *setup) setCapabilities(nested bool) error {
	c, err := capability.NewPid2(0)
	if err != nil {
		return err
	}
	switch {
	case nested:
		c.Set(capability.EFFECTIVE|capability.PERMITTED, capability.CAP_SETFCAP)
	case s.user.uid == 0:
		for _, n := range s.plan.Caps {
			c.Set(capability.EFFECTIVE|capability.PERMITTED, capability.Cap(n))
		}
	}
	if err := c.Apply(capability.CAPS); err != nil {
		return err
	}
	s.explain("capabilities: %d in the bounding set, no_new_privs on", len(s.plan.Caps))
	return nil
}

// enterCwd changes to the working directory as the user, and proves that it is
// below the new root (CVE-2024-21626).
func (s *setup) enterCwd() error {
	fd, err := unix.Openat2(unix.AT_FDCWD, s.plan.Cwd, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", clip(s.plan.Cwd), err)
	}
	defer unix.Close(fd)
	if err := unix.Fchdir(fd); err != nil {
		return fmt.Errorf("%s: %w", clip(s.plan.Cwd), err)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil {
		return err
	}
	if n == 0 || buf[0] != '/' {
		return fmt.Errorf("%s is outside of the root filesystem", clip(s.plan.Cwd))
	}
	return nil
}

func (s *setup) environment() []string {
	env := s.plan.Env
	if _, ok := lookupEnv(env, "HOME"); !ok {
		env = append(slices.Clip(env), "HOME="+s.user.home)
	}
	return env
}

func lookupEnv(env []string, name string) (string, bool) {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// execute tries each place the command may be, as execvp(3) does: what is not
// there is passed over, what may not be executed is remembered.
func (s *setup) execute(start forkExec, attr *syscall.ProcAttr) (int, error) {
	name := s.plan.Args[0]
	var denied error
	for _, p := range s.candidates(name) {
		err := checkCommand(p)
		if err == nil {
			var pid int
			if pid, err = start(p, s.plan.Args, attr); err == nil {
				return pid, nil
			}
			if err := s.forkFault(err); err != nil {
				return 0, err
			}
		} else if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		fault := explainExec(p, err)
		if !errors.Is(err, unix.EACCES) {
			return 0, fault
		}
		if denied == nil {
			denied = fault
		}
	}
	if denied != nil {
		return 0, denied
	}
	return 0, notFound(name)
}

// Bounds on PATH and on names that are looked for there: the kernel executes nothing
// with a longer variable (MAX_ARG_STRLEN), and finds no longer name.
const (
	maxPath    = 128 << 10
	maxCommand = 255
)

// candidates are the places where a command may be.
func (s *setup) candidates(name string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	if name == "" {
		return nil
	}
	list, ok := lookupEnv(s.plan.Env, "PATH")
	if !ok {
		list = defaultPath
	}
	list = list[:min(len(list), maxPath)]
	if len(name) > maxCommand {
		list, _, _ = strings.Cut(list, ":") // it is as bad in any
	}
	var out []string
	for dir := range strings.SplitSeq(list, ":") {
		if dir == "" {
			dir = "."
		}
		out = append(out, dir+"/"+name)
	}
	return out
}

// checkCommand looks at a candidate before it is executed. Magic links are
// refused: /proc/self/exe here is this program.
func checkCommand(p string) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, p, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	m, err := mode(fd)
	if err != nil {
		return err
	}
	if m&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	if m&unix.S_IFMT != unix.S_IFREG {
		return unix.EACCES
	}
	return nil
}

// forkFault returns an error when err comes from making the process rather
// than from executing the command.
func (s *setup) forkFault(err error) error {
	if _, ok := errors.AsType[*StartError](err); ok {
		return err
	}
	for _, e := range []error{unix.EAGAIN, unix.ENOMEM, unix.ENOSPC, unix.EUSERS, unix.EPERM, unix.EINVAL} {
		if errors.Is(err, e) {
			se := &StartError{Step: "start command", Code: CodeStart, Err: err}
			if s.plan.OwnFilter {
				se.Hint = "the system call filter must let execve through"
			}
			return se
		}
	}
	return nil
}
