//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// execPlan is what process 1 needs to know to start another command. What is
// the same for all commands is in the plan.
type execPlan struct {
	Args, Env []string
	User      string // "": the first command's
	Cwd       string
	Null      [streams]bool
	Terminal  bool // then the first stream is where to give it
	Size      Size
}

// keeper is process 1 once the command runs: it passes signals on, starts more
// commands and reaps.
type keeper struct {
	setup  *setup
	ctl    *control
	pid    int // of the command
	target int // of signals for it

	// launching is held while a command is started, until it is among the
	// children: nobody else may reap it before. It comes before mu.
	launching sync.Mutex

	mu       sync.Mutex
	children map[int]*child // other commands, by their ID
}

// child is another command.
type child struct {
	pid    int // 0: it is still to be started
	missed []unix.Signal
}

// serve does what the caller asks for until its end is gone; then everything
// ends, which is the second guard beside the parent-death signal.
func (k *keeper) serve() {
	for {
		var m message
		if len(k.ctl.early) > 0 {
			m, k.ctl.early = k.ctl.early[0], k.ctl.early[1:]
		} else if err := k.ctl.dec.Decode(&m); err != nil {
			syscall.Exit(CodeStart)
		}
		switch {
		case m.Exec != nil:
			files, err := k.ctl.rights.take(streams)
			if err != nil {
				syscall.Exit(CodeStart) // the caller and we understand each other no more
			}
			k.mu.Lock()
			k.children[m.ID] = &child{}
			k.mu.Unlock()
			go k.exec(m.ID, m.Exec, files)
		case m.Signal > 0:
			k.signal(m.ID, unix.Signal(m.Signal))
		}
	}
}

// forInit are signals that end a Go program, or have it tell where it is.
var forInit = []unix.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE,
	unix.SIGSEGV, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM, unix.SIGSTKFLT, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGWINCH, unix.SIGSYS,
}

// handlers are the runtime's for forInit.
var handlers []sigaction

// Process 1 has no handlers from the start, for then the kernel keeps from it
// what the command sends, and what comes from outside.
func init() {
	if !isInit() {
		return
	}
	handlers = make([]sigaction, len(forInit))
	for i, sig := range forInit {
		setAction(sig, &sigaction{}, &handlers[i])
	}
}

// setAction cannot fail: the signals are all there, and can be handled.
func setAction(sig unix.Signal, act, old *sigaction) {
	const setSize = 8
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(old)), setSize, 0, 0)
}

// passOn gives the command what is sent to process 1 inside, as small reapers
// do: in other runtimes the command is process 1.
// It returns when it has the handlers, before which no further command is started.
func (k *keeper) passOn() {
	signals := make(chan os.Signal, 16)
	for i, sig := range forInit {
		signal.Notify(signals, sig)
		if handlers[i].handler > 1 { // neither default nor ignored: the runtime takes its own to be there
			setAction(sig, &handlers[i], nil)
		}
	}
	go func() {
		for sig := range signals {
			k.signal(0, sig.(unix.Signal))
		}
	}()
}

// signal passes a signal on; whom it is for may have just ended.
func (k *keeper) signal(id int, sig unix.Signal) {
	if id == 0 {
		_ = unix.Kill(k.target, sig)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch c := k.children[id]; {
	case c == nil:
	case c.pid == 0:
		c.missed = append(c.missed, sig)
	default:
		c.signal(sig)
	}
}

func (c *child) signal(sig unix.Signal) {
	pid := c.pid
	if sig == unix.SIGKILL {
		pid = -pid // its group: it leads a session
	}
	_ = unix.Kill(pid, sig)
}

// exec starts another command and says whether it has. files are its streams.
func (k *keeper) exec(id int, e *execPlan, files []int) {
	err := k.start(id, e, files)
	closeFiles(files)
	if err == nil {
		return
	}
	k.mu.Lock()
	delete(k.children, id)
	k.mu.Unlock()
	_ = k.ctl.send(message{ID: id, Error: toWire(err)}) // the caller may be gone
}

func (k *keeper) start(id int, e *execPlan, files []int) error {
	k.launching.Lock()
	defer k.launching.Unlock()
	s, err := k.setup.another(e)
	if err != nil {
		return inStep("look up user", err)
	}
	from := make([]uintptr, streams)
	for i := range from {
		if from[i] = uintptr(files[i]); e.Null[i] {
			from[i] = 0 // of process 1 itself: the sandbox's /dev/null
		}
	}
	if e.Terminal {
		if err := s.anotherTerminal(e.Size, files[0]); err != nil {
			return inStep("open terminal", err)
		}
		defer s.closeTerminal()
		from = slices.Repeat([]uintptr{uintptr(s.pty.slave)}, streams)
	}
	pid, _, err := s.launchFrom(from)
	if err != nil {
		return err
	}
	_ = k.ctl.send(message{ID: id, Started: true})
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.children[id]
	c.pid = pid
	for _, sig := range c.missed {
		c.signal(sig)
	}
	return nil
}

// another is the setup for another command.
func (s *setup) another(e *execPlan) (*setup, error) {
	p := *s.plan
	p.Args, p.Env, p.Cwd, p.Null = e.Args, e.Env, e.Cwd, e.Null
	n := &setup{plan: &p, explain: func(string, ...any) {}, user: s.user, userns: s.userns, launched: s.launched}
	if e.User == "" {
		return n, nil
	}
	p.User = e.User
	// The tree changes under the walk now. It stays in the tree all the same,
	// and there is nothing else for process 1 to see.
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	n.root = root
	return n, n.findUser()
}

// anotherTerminal makes a terminal for another command and gives it to the
// caller, too.
func (s *setup) anotherTerminal(size Size, socket int) error {
	devpts, err := unix.Openat2(unix.AT_FDCWD, "/dev/pts", &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}
	defer unix.Close(devpts)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(devpts, &fs); err != nil {
		return err
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return errors.New("/dev/pts has no terminals")
	}
	if s.pty, err = newPTY(devpts, size); err != nil {
		return err
	}
	if err = s.ownTerminal(s.pty.slave, s.user.uid); err == nil {
		err = s.pty.give(socket)
	}
	if err != nil {
		s.closeTerminal()
	}
	return err
}

// reap waits for every process that is left to process 1, until the command
// itself has ended. When process 1 then exits the kernel kills all others.
func (k *keeper) reap() (Status, error) {
	for {
		pid, err := awaitAny()
		if err != nil {
			return Status{}, fmt.Errorf("wait for the command: %w", err)
		}
		for pid != k.pid && !k.launching.TryLock() {
			// Whatever holds up a start does not hold up the end.
			time.Sleep(100 * time.Microsecond)
			if st, ok := collect(k.pid); ok {
				return st, nil
			}
		}
		if pid == k.pid {
			if st, ok := collect(pid); ok {
				return st, nil
			}
			continue
		}
		k.collectChild(pid)
		k.launching.Unlock()
	}
}

func (k *keeper) collectChild(pid int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	st, ok := collect(pid)
	if !ok {
		return // whoever failed to start it has reaped it
	}
	for id, c := range k.children {
		if c.pid == pid {
			delete(k.children, id)
			_ = k.ctl.send(message{ID: id, Exit: &st}) // the caller may be gone
			return
		}
	}
}

// awaitAny waits until a child has ended, and leaves it to be collected.
func awaitAny() (int, error) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		// The process is the first of what follows signal, errno, code and
		// alignment, on every 64-bit architecture.
		const pidAt = 16
		return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), pidAt))), err
	}
}

// collect says how a child has ended, if it has.
func collect(pid int) (Status, bool) {
	var ws syscall.WaitStatus
	got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
	switch {
	case err != nil || got != pid:
		return Status{}, false
	case ws.Signaled():
		return Status{Code: 128 + int(ws.Signal()), Signal: ws.Signal()}, true
	}
	return Status{Code: ws.ExitStatus()}, true
}

// retained is what process 1 keeps of its capabilities when the command runs:
// what it takes to signal a command of another user, and to start more of them.
func (s *setup) retained() (set uint64) {
	set = 1 << unix.CAP_KILL
	if s.plan.keeps() != nil {
		return set
	}
	for _, c := range s.plan.Caps {
		set |= 1 << c // nobody can give what he has not
	}
	set |= 1 << unix.CAP_SETPCAP // to drop others from the bounding set
	if s.plan.Limited {
		set |= 1 << unix.CAP_SYS_ADMIN // for the cgroup namespace
	}
	if s.plan.Single {
		return set | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_SYS_RESOURCE // for the namespace of another user id
	}
	return set | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_CHOWN // the last for terminals
}
