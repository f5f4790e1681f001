package subid

import (
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespace is the user namespace that Run started this process in.
type Namespace struct {
	Maps *Maps

	ignored   []os.Signal // by who started the parent: nohup(1)
	mu        sync.Mutex
	listeners map[chan<- os.Signal][]os.Signal
}

// passed are the signals that come by way of the parent. A terminal sends its
// own to parent and child alike; by listening to the parent alone the child
// gets each once.
var passed = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
}

// failed is the exit status of a process that cannot become what Run wants; its
// parent tells the rest.
const failed = 125

// Init returns the namespace of a process that Run started, once its ids are
// mapped, and nil in every other process. It must come before anything else in
// main that looks at ids, files or signals, and is called once.
func Init() *Namespace {
	if len(os.Args) == 0 || os.Args[0] != childName || !madeByParent(controlFD) {
		return nil
	}
	unix.CloseOnExec(controlFD)
	n := &Namespace{listeners: map[chan<- os.Signal][]os.Signal{}}
	for _, sig := range passed {
		if signal.Ignored(sig) {
			n.ignored = append(n.ignored, sig)
		}
	}
	signal.Notify(make(chan os.Signal, 1), passed...) // unread: see passed
	ctl := os.NewFile(controlFD, "control")
	var b [1]byte
	if k, err := ctl.Read(b[:]); k != 1 || err != nil || b[0] != mapped {
		os.Exit(failed)
	}
	answer := byte(ready)
	var err error
	if n.Maps, err = Own(); err != nil || os.Geteuid() != 0 || os.Getegid() != 0 || !hasRights() {
		answer = powerless
	}
	if _, err := ctl.Write([]byte{answer}); err != nil || answer != ready {
		os.Exit(failed)
	}
	go n.listen(ctl)
	return n
}

// hasRights tries what root of a user namespace may do; AppArmor lets ordinary
// users make namespaces in which nothing is allowed.
func hasRights() bool {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread and its namespace go with the goroutine
		done <- unix.Unshare(unix.CLONE_NEWUTS)
	}()
	return <-done == nil
}

// madeByParent reports whether fd is a socket of a pair that the parent process
// made.
func madeByParent(fd int) bool {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && cred.Pid > 0 && int(cred.Pid) == os.Getppid()
}

// listen ends the process when the parent is gone, which is the second guard
// beside the parent-death signal.
func (n *Namespace) listen(ctl *os.File) {
	for {
		var b [1]byte
		if k, err := ctl.Read(b[:]); k != 1 || err != nil {
			syscall.Exit(128 + int(syscall.SIGKILL))
		}
		n.deliver(syscall.Signal(b[0]))
	}
}

// deliver gives a signal to who asked for it; else it does what it does to any
// process.
func (n *Namespace) deliver(sig syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	heard := false
	for c, wanted := range n.listeners {
		if slices.Contains(wanted, os.Signal(sig)) {
			heard = true
			select {
			case c <- sig:
			default: // as package signal has it
			}
		}
	}
	if !heard && sig != syscall.SIGWINCH && !slices.Contains(n.ignored, os.Signal(sig)) {
		signal.Reset(sig)
		_ = unix.Kill(unix.Getpid(), sig)
	}
}

// Notify is signal.Notify for signals that the parent passes on.
func (n *Namespace) Notify(c chan<- os.Signal, sigs ...os.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[c] = append(n.listeners[c], sigs...)
}

// Stop is signal.Stop for them.
func (n *Namespace) Stop(c chan<- os.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.listeners, c)
}
