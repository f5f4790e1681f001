//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal is the caller's side of a terminal of the sandbox's own. It holds
// both ends: with the other one open, reading comes to an end only when the
// caller says so, and not when the command closes its streams for a while.
type terminal struct {
	socket *os.File // where process 1 gives both ends
	caller *os.File // the terminal that is Stdin, a duplicate; nil: it is none
	sized  *os.File // the terminal whose size is followed, a duplicate; nil: none is

	mu            sync.Mutex
	master, slave *os.File    // nil until the command runs
	cooked        *term.State // what caller was before it was made raw
}

// defaultSize is that of terminals whose size nobody knows.
var defaultSize = Size{Rows: 24, Cols: 80}

// openTerminal prepares a terminal for the child: of its streams the first is
// the socket on which process 1 gives the terminal, when it is made.
func (o *stdio) openTerminal(s *Spec, p *plan, null *os.File) (err error) {
	t := &terminal{}
	o.term = t
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	t.socket = ours
	o.opened = append(o.opened, theirs)
	o.files = [3]*os.File{theirs, null, null}
	if t.caller, err = terminalOf(s.Stdin); err != nil {
		return err
	}
	p.Terminal = true
	if p.Size = s.Size; p.Size == (Size{}) {
		if t.sized, err = firstTerminal(s.Stdin, s.Stdout); err != nil {
			return err
		}
		p.Size = t.callerSize()
	}
	if err := o.typeInput(s.Stdin); err != nil {
		return err
	}
	return o.showOutput(s.Stdout)
}

// terminalOf is a duplicate of f, or nil when that is no terminal.
func terminalOf(f *os.File) (*os.File, error) {
	if f == nil {
		return nil, nil
	}
	fd, err := duplicate(f)
	if err != nil {
		return nil, err
	}
	if !term.IsTerminal(fd) {
		return nil, unix.Close(fd)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func firstTerminal(files ...*os.File) (*os.File, error) {
	for _, f := range files {
		if t, err := terminalOf(f); t != nil || err != nil {
			return t, err
		}
	}
	return nil, nil
}

// callerSize is the size to have now.
func (t *terminal) callerSize() Size {
	if t.sized == nil {
		return defaultSize
	}
	ws, err := unix.IoctlGetWinsize(int(t.sized.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Row == 0 || ws.Col == 0 { // as on a serial line
		return defaultSize
	}
	return Size{Rows: ws.Row, Cols: ws.Col}
}

// begin takes the terminal over from process 1, which has given it by now.
func (t *terminal) begin() error {
	if err := t.receive(); err != nil {
		return fmt.Errorf("take over terminal: %w", err)
	}
	if err := t.follow(); err != nil { // it may have changed since the start
		return err
	}
	if t.caller == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	cooked, err := term.MakeRaw(int(t.caller.Fd()))
	if err != nil {
		return fmt.Errorf("set terminal to raw mode: %w", err)
	}
	t.cooked = cooked
	return nil
}

func (t *terminal) receive() error {
	raw, err := t.socket.SyscallConn()
	if err != nil {
		return err
	}
	rights := make([]byte, unix.CmsgSpace(2*4))
	var n int
	cerr := raw.Control(func(fd uintptr) {
		_, n, _, _, err = unix.Recvmsg(int(fd), make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	})
	if err = errors.Join(cerr, err); err != nil {
		return err
	}
	fds, err := parseRights(rights[:n])
	if err != nil {
		return err
	}
	if len(fds) != 2 {
		return io.ErrUnexpectedEOF
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.master, t.slave = os.NewFile(uintptr(fds[0]), "terminal"), os.NewFile(uintptr(fds[1]), "terminal")
	return nil
}

// follow takes the size of the caller's terminal over.
func (t *terminal) follow() error {
	if t.sized == nil {
		return nil
	}
	return t.resize(t.callerSize())
}

var errNotYet = errors.New("the command has not been started yet")

// resize sets the size. The kernel tells those whom it concerns.
func (t *terminal) resize(s Size) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.master == nil {
		return errNotYet
	}
	raw, err := t.master.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = setWinsize(int(fd), s) })
	if errors.Is(cerr, os.ErrClosed) {
		return ErrEnded
	}
	return errors.Join(cerr, err)
}

// hangUp takes the terminal away from the command's session, as a broken line
// does.
func (t *terminal) hangUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.master != nil {
		t.master.Close()
	}
}

// endOutput lets reading end once all that has been written so far is read: at
// once if no process has the terminal any more, and else after lingerTime.
func (t *terminal) endOutput() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slave != nil {
		t.slave.Close()
		_ = t.master.SetReadDeadline(time.Now().Add(lingerTime)) // closed is as good
	}
}

const (
	// lingerTime is for the kernel to hand over what was written last.
	lingerTime = 100 * time.Millisecond
	// maxHeld is more than the kernel holds of a terminal's output.
	maxHeld = 128 << 10
)

// endInput keeps what is being typed from waiting for somebody to read it.
func (t *terminal) endInput() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.master != nil {
		_ = t.master.SetWriteDeadline(time.Unix(1, 0)) // closed is as good
	}
}

// close gives the caller's terminal back as it was. It can be called twice.
func (t *terminal) close() {
	t.hangUp()
	t.endOutput()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cooked != nil {
		_ = term.Restore(int(t.caller.Fd()), t.cooked) // it may be gone
		t.cooked = nil
	}
	for _, f := range []*os.File{t.socket, t.caller, t.sized} {
		if f != nil {
			f.Close()
		}
	}
}

// typeInput has what the caller's input gives typed in the terminal.
func (o *stdio) typeInput(from *os.File) error {
	if from == nil {
		return nil
	}
	src, err := duplicate(from)
	if err != nil {
		return err
	}
	wakeR, wakeW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, unix.Close(src))
	}
	o.wake = wakeW
	o.drop = append(o.drop, func() { unix.Close(src); wakeR.Close() })
	t := o.term
	o.start = append(o.start, func() {
		o.in.Go(func() {
			defer unix.Close(src)
			defer wakeR.Close()
			if copyInput(t.master, src, int(wakeR.Fd())) && t.caller != nil {
				t.hangUp()
			}
		})
	})
	return nil
}

// showOutput writes what the terminal displays. It has a descriptor of its
// own: the runtime ends a process that writes to 1 when nobody reads that, and
// the caller's terminal would stay raw.
func (o *stdio) showOutput(to *os.File) error {
	var out io.Writer = io.Discard
	own := func() {}
	if to != nil {
		fd, err := duplicate(to)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), to.Name())
		out, own = struct{ io.Writer }{f}, func() { f.Close() }
		o.drop = append(o.drop, own)
	}
	t := o.term
	o.start = append(o.start, func() {
		o.outs.Go(func() {
			defer own()
			if err := show(out, t.master); err != nil {
				o.fail(fmt.Errorf("write output: %w", err))
				t.hangUp()
			}
		})
	})
	return nil
}

// show copies until reading ends, in whatever way, and returns an error of
// writing. After the time of endOutput it takes what is there, since writing
// may have been what took so long.
func show(to io.Writer, master *os.File) error {
	_, err := io.Copy(to, silent{master.Read})
	if err != nil || master.SetReadDeadline(time.Time{}) != nil {
		return err
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return nil // hung up
	}
	_, err = io.Copy(to, io.LimitReader(silent{func(b []byte) (n int, err error) {
		cerr := raw.Read(func(fd uintptr) bool {
			n, err = unix.Read(int(fd), b)
			return true
		})
		return max(n, 0), errors.Join(cerr, err)
	}}, maxHeld))
	return err
}

// silent is a reader whose errors are but its end.
type silent struct {
	read func([]byte) (int, error)
}

func (s silent) Read(b []byte) (int, error) {
	n, err := s.read(b)
	if err != nil || n == 0 {
		err = io.EOF
	}
	return n, err
}

// Resize sets the size of the terminal; the processes in its foreground get a
// SIGWINCH if it changes.
func (p *Process) Resize(s Size) error {
	t := p.b.io.term
	if t == nil {
		return errors.New("the sandbox has no terminal")
	}
	return t.resize(s)
}

// resized says whether a signal is one of the caller's terminal, and does what
// is to be done.
func (o *stdio) resized(sig syscall.Signal) bool {
	if o.term == nil || sig != syscall.SIGWINCH {
		return false
	}
	_ = o.term.follow() // the command may not be there yet, or no longer
	return true
}

// withTerm says of which kind the terminal is, as docker does, unless env does.
func withTerm(env []string) []string {
	if _, ok := lookupEnv(env, "TERM"); ok {
		return env
	}
	return append(env, "TERM=xterm")
}
