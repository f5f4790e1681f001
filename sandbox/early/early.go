//go:build linux && !386 && !arm && !mips && !mipsle

// Package early starts process 1 of sandboxes: the running program once more,
// in new namespaces, where it waits for what is to be done.
//
// It needs so little that it can do so while the packages of a program are
// still initialised, right after os: what it imports must not sort after that.
// [Begin] takes the most usual namespaces for those that
// will be wanted, and package sandbox takes the process, or starts another.
package early

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

const (
	// Name is argv[0] of process 1, and all of its arguments.
	Name = "imgpack-sandbox-init"
	// ControlFD is where process 1 finds the control socket. Its standard
	// streams are /dev/null.
	ControlFD = 3

	self = "/proc/self/exe"
)

// Env keeps process 1 small and away from the host's cgroup files, which
// the Go runtime would otherwise hold open.
var Env = []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=containermaxprocs=0"}

// ReadOnlyMount is what a Program that ReadOnlyProgram gave is.
const ReadOnlyMount = "program: read-only mount"

// Options say how process 1 is started.
type Options struct {
	Program    int     // the program, which Start closes
	Namespaces uintptr // as flags of clone(2)
	Env        []string
	UIDs, GIDs []syscall.SysProcIDMap // of a new user namespace
	Setgroups  bool                   // and groups may be set in it
	Usual      bool                   // it can begin with what is usual; see AwaitIDs
}

// Process is process 1, seen from outside. It is safe for concurrent use.
type Process struct {
	Pid     int
	Control *os.File // the caller's end of the control socket

	mu     sync.Mutex
	waited bool
}

// Start starts process 1, which dies with the thread that calls. Who is done
// with it closes Control and calls Wait.
func Start(o *Options) (_ *Process, err error) {
	var opened []int // for the child
	defer func() {
		for _, fd := range opened {
			syscall.Close(fd)
		}
	}()
	opened = append(opened, o.Program)
	null, err := syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	opened = append(opened, null)
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	control := os.NewFile(uintptr(pair[0]), "control")
	opened = append(opened, pair[1])
	defer func() {
		if err != nil {
			control.Close()
		}
	}()
	if err := syscall.SetNonblock(pair[1], false); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	files := []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(pair[1])}
	program, err := far(o.Program, files)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	opened = append(opened, program)
	sys := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: o.Namespaces}
	if o.Namespaces&syscall.CLONE_NEWUSER != 0 {
		// Its ids are mapped when it has been executed, which would take the
		// capabilities of who has no id away. Otherwise it would have to be
		// forked with a copy of all memory, and each page that is written to
		// meanwhile interrupt the other processors.
		sys.Cloneflags |= syscall.CLONE_VM | syscall.CLONE_VFORK
		sys.AmbientCaps = capabilities()
	}
	path := "/proc/self/fd/" + decimal(program)
	pid, err := syscall.ForkExec(path, []string{Name}, &syscall.ProcAttr{Dir: "/", Env: o.Env, Files: files, Sys: sys})
	if err != nil {
		return nil, &os.PathError{Op: "fork/exec", Path: path, Err: err}
	}
	p := &Process{Pid: pid, Control: control}
	if err := p.mapIDs(o); err != nil {
		_ = p.Kill() // it waits to be told
		_, werr := p.Wait()
		return nil, errors.Join(err, werr)
	}
	return p, nil
}

// mapIDs gives the user namespace its ids, and tells process 1 that it has them.
func (p *Process) mapIDs(o *Options) error {
	dir := "/proc/" + decimal(p.Pid)
	if o.Namespaces&syscall.CLONE_NEWUSER != 0 {
		if err := writeProc(dir+"/uid_map", mapText(o.UIDs)); err != nil {
			return err
		}
		if !o.Setgroups {
			if err := writeProc(dir+"/setgroups", "deny"); err != nil {
				return err
			}
		}
		if err := writeProc(dir+"/gid_map", mapText(o.GIDs)); err != nil {
			return err
		}
	}
	word := []byte{wait}
	if o.Usual {
		word[0] = begin
	}
	_, err := p.Control.Write(word)
	return err
}

func mapText(maps []syscall.SysProcIDMap) (text string) {
	for _, m := range maps {
		text += decimal(m.ContainerID) + " " + decimal(m.HostID) + " " + decimal(m.Size) + "\n"
	}
	return text
}

// decimal is strconv.Itoa, whose package is initialised late.
func decimal(n int) string {
	var b [20]byte
	i := len(b)
	for u := uint(n); ; u /= 10 {
		i--
		b[i] = byte('0' + u%10)
		if u < 10 {
			return string(b[i:])
		}
	}
}

// writeProc writes all at once, as maps of ids must be.
func writeProc(file, text string) error {
	fd, err := syscall.Open(file, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err == nil {
		_, err = syscall.Write(fd, []byte(text))
		syscall.Close(fd)
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: file, Err: err}
	}
	return nil
}

// What process 1 is told when it has its ids.
const (
	wait  = 0
	begin = 1
)

// AwaitIDs is called by process 1 before anything else: it waits for its ids,
// and is user 0 of its user namespace then. usual says that Begin started it.
func AwaitIDs() (usual bool, err error) {
	var b [1]byte
	for {
		n, err := syscall.Read(ControlFD, b[:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n != 1 {
			return false, errors.Join(errors.New("nobody is there"), err)
		}
		break
	}
	if syscall.Getuid() == 0 && syscall.Getgid() == 0 {
		return b[0] == begin, nil
	}
	return b[0] == begin, errors.Join(syscall.Setgroups(nil), syscall.Setresgid(0, 0, 0), syscall.Setresuid(0, 0, 0))
}

// capabilities are all that the kernel knows.
func capabilities() (all []uintptr) {
	const capbsetRead, most = 23, 63
	for c := range uintptr(most + 1) {
		if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, capbsetRead, c, 0, 0, 0, 0); e != 0 {
			break
		}
		all = append(all, c)
	}
	return all
}

// far copies fd to above the descriptors that starting a process with files
// shuffles, so that its number still names it when it is executed.
func far(fd int, files []uintptr) (int, error) {
	least := uintptr(len(files))
	for _, f := range files {
		least = max(least, f)
	}
	n, _, e := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, least+2*uintptr(len(files))+2)
	if e == syscall.EINVAL {
		e = syscall.EMFILE // so it is said of a number past the limit
	}
	if e != 0 {
		return -1, e
	}
	return int(n), nil
}

// Kill kills the process. It is os.ErrProcessDone when Wait has returned.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waited {
		return os.ErrProcessDone
	}
	err := syscall.Kill(p.Pid, syscall.SIGKILL)
	if err == syscall.ESRCH {
		return os.ErrProcessDone
	}
	return err
}

// Wait waits for the end of the process, and says how that was. It is called
// once. The process is a member of nothing then, and its namespaces are gone
// unless somebody else has them.
func (p *Process) Wait() (string, error) {
	// It is not reaped before Kill knows: its number could be another's then.
	const pPid, wExited, wNowait = 1, 4, 0x1000000
	for {
		var info [128]byte // siginfo_t
		_, _, e := syscall.Syscall6(syscall.SYS_WAITID, pPid, uintptr(p.Pid), uintptr(unsafe.Pointer(&info)), wExited|wNowait, 0, 0)
		if e == 0 {
			break
		}
		if e != syscall.EINTR {
			return "", os.NewSyscallError("waitid", e)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waited = true
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.Pid, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return "", os.NewSyscallError("wait4", err)
		case ws.Signaled():
			return "signal: " + ws.Signal().String(), nil
		default:
			return "exit status " + decimal(ws.ExitStatus()), nil
		}
	}
}

// Numbers that package syscall lacks; they are the same on every architecture.
const (
	sysOpenTree     = 428
	sysMountSetattr = 442
)

// ReadOnlyProgram opens the running program by a mount of its own, through
// which nobody can write to it or change it.
func ReadOnlyProgram() (fd int, err error) {
	const (
		openTreeClone = 1
		emptyPath     = 0x1000
		readOnly      = 0x1 | 0x2 | 0x4 // MOUNT_ATTR_RDONLY, NOSUID and NODEV
	)
	at, name := -100, []byte(self+"\x00") // AT_FDCWD
	n, _, e := syscall.Syscall(sysOpenTree, uintptr(at), uintptr(unsafe.Pointer(&name[0])), openTreeClone|syscall.O_CLOEXEC)
	if e != 0 {
		return -1, e
	}
	attr := struct{ set, clr, propagation, userns uint64 }{set: readOnly}
	var none [1]byte
	_, _, e = syscall.Syscall6(sysMountSetattr, n, uintptr(unsafe.Pointer(&none)), emptyPath, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if e != 0 {
		syscall.Close(int(n))
		return -1, e
	}
	return int(n), nil
}

// needed are the capabilities that it takes to map more ids than the caller's
// own, and to do without a user namespace: SYS_ADMIN, SETUID, SETGID, SETPCAP,
// SETFCAP, CHOWN, DAC_OVERRIDE, FOWNER, NET_ADMIN and KILL.
const needed = 1<<21 | 1<<7 | 1<<6 | 1<<8 | 1<<31 | 1<<0 | 1<<1 | 1<<3 | 1<<12 | 1<<5

// Ordinary says whether the caller lacks what it takes to map more ids than
// its own, and to do without a user namespace.
func Ordinary() (bool, error) {
	header := struct {
		version uint32
		pid     int32
	}{version: 0x20080522}
	var data [2]struct{ effective, permitted, inheritable uint32 }
	_, _, e := syscall.Syscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if e != 0 {
		return false, os.NewSyscallError("capget", e)
	}
	return syscall.Geteuid() != 0 || data[0].effective&needed != needed, nil
}

// OwnIDs maps each id of the caller's user namespace to itself.
func OwnIDs() (uids, gids []syscall.SysProcIDMap, err error) {
	if uids, err = ownIDs("/proc/self/uid_map"); err == nil {
		gids, err = ownIDs("/proc/self/gid_map")
	}
	return uids, gids, err
}

func ownIDs(file string) (out []syscall.SysProcIDMap, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for len(b) > 0 {
		var of [3]int // inside, outside, size
		for i := range of {
			if of[i], b, err = number(b); err != nil {
				return nil, &os.PathError{Op: "parse", Path: file, Err: err}
			}
		}
		if len(b) > 0 && b[0] != '\n' {
			return nil, &os.PathError{Op: "parse", Path: file, Err: errNumbers}
		}
		b = b[min(1, len(b)):]
		out = append(out, syscall.SysProcIDMap{ContainerID: of[0], HostID: of[0], Size: of[2]})
	}
	return out, nil
}

var errNumbers = errors.New("a line is not three numbers")

// number reads one of the numbers of a line, each of an id's size.
func number(b []byte) (n int, rest []byte, err error) {
	for len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	digits := 0
	for ; len(b) > 0 && b[0] >= '0' && b[0] <= '9' && digits < len("4294967295"); b = b[1:] {
		n, digits = 10*n+int(b[0]-'0'), digits+1
	}
	if digits == 0 {
		return 0, b, errNumbers
	}
	return n, b, nil
}

// Usual are the namespaces of a process 1 that Begin starts.
const Usual = syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET |
	syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP

// CloseInherited closes the descriptors above keep that the caller's process has
// leaked into this one. The Go runtime's own are all close-on-exec, inherited
// ones cannot be.
func CloseInherited(keep int) error {
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
		fd, rest, err := number([]byte(name))
		if err != nil || len(rest) > 0 || fd <= keep {
			continue
		}
		flags, _, e := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
		if e == 0 && flags&syscall.FD_CLOEXEC == 0 {
			syscall.Close(fd)
		}
	}
	return nil
}

// Begun is a process 1 that Begin starts.
type Begun struct {
	ready   chan struct{}
	process *Process
	release chan struct{}
}

var begun struct {
	sync.Mutex
	last *Begun
}

// Begin starts a process 1 in the Usual namespaces, with every id of a caller
// that is root, and returns at once. It is kept for who calls Take; what nobody
// takes ends with the calling process.
func Begin() {
	b := &Begun{ready: make(chan struct{}), release: make(chan struct{})}
	begun.Lock()
	begun.last = b
	begun.Unlock()
	go func() {
		// The parent-death signal is tied to the thread that starts the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		b.process = usual()
		close(b.ready)
		<-b.release
	}()
}

func usual() *Process {
	if ordinary, err := Ordinary(); err != nil || ordinary {
		return nil
	}
	o := &Options{Namespaces: Usual, Env: Env, Setgroups: true, Usual: true}
	var err error
	if o.UIDs, o.GIDs, err = OwnIDs(); err != nil {
		return nil
	}
	if o.Program, err = ReadOnlyProgram(); err != nil {
		return nil
	}
	p, err := Start(o)
	if err != nil {
		return nil
	}
	return p
}

// Take gives away what Begin started last; nil is nothing.
func Take() *Begun {
	begun.Lock()
	defer begun.Unlock()
	b := begun.last
	begun.last = nil
	return b
}

// Process waits until there is a process 1. nil: it could not be started.
func (b *Begun) Process() *Process {
	<-b.ready
	return b.process
}

// Release lets go of the thread on which the life of process 1 depends. It is
// called once.
func (b *Begun) Release() { close(b.release) }
