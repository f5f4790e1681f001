//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// pty is a terminal of the sandbox's own, as process 1 has it.
type pty struct{ master, slave int }

// newPTY makes a terminal in a mount of devpts. Neither end becomes process
// 1's controlling terminal.
func newPTY(devpts int, size Size) (_ *pty, err error) {
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	t := &pty{-1, -1}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	// The caller's end does not block, there.
	if t.master, err = unix.Openat(devpts, "ptmx", flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0); err != nil {
		return nil, fmt.Errorf("open ptmx: %w", err)
	}
	if err := unix.IoctlSetPointerInt(t.master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("unlock: %w", err)
	}
	slave, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(t.master), unix.TIOCGPTPEER, flags)
	if e != 0 {
		return nil, fmt.Errorf("open the other end: %w", e)
	}
	t.slave = int(slave)
	return t, setWinsize(t.slave, size)
}

func setWinsize(fd int, s Size) error {
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols}); err != nil {
		return fmt.Errorf("set terminal size: %w", err)
	}
	return nil
}

// give hands both ends to the caller, over the socket that is process 1's
// standard input as long as there is no other.
func (t *pty) give(socket int) error {
	err := unix.Sendmsg(socket, []byte{0}, unix.UnixRights(t.master, t.slave), nil, 0)
	if err != nil {
		return fmt.Errorf("hand over terminal: %w", err)
	}
	return nil
}

func (t *pty) close() {
	for _, fd := range []int{t.master, t.slave} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	t.master, t.slave = -1, -1
}

// openTerminal makes the command's terminal, gives it to the command's user
// and has it as /dev/console.
func (s *setup) openTerminal() (err error) {
	if !s.plan.Terminal {
		return nil
	}
	if s.pty, err = newPTY(s.pts, s.plan.Size); err != nil {
		return err
	}
	if err := s.ownTerminal(s.pty.slave, s.user.uid); err != nil {
		return err
	}
	if err := unix.Mknodat(s.dev, "console", unix.S_IFREG|0o600, 0); err != nil {
		return err
	}
	at, err := openIn(s.dev, "console")
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if err := s.bind(s.pty.slave, at, attrNosuid|attrNoexec); err != nil {
		return fmt.Errorf("/dev/console: %w", err)
	}
	s.explain("terminal: of its own, %d rows of %d columns, /dev/console too", s.plan.Size.Rows, s.plan.Size.Cols)
	return nil
}

// ownTerminal lets the user open the terminal by name; the group stays tty.
func (s *setup) ownTerminal(slave, uid int) error {
	if s.plan.Single || uid == 0 {
		return nil
	}
	err := unix.Fchown(slave, uid, -1)
	if e, ok := err.(syscall.Errno); ok {
		return s.unmapped(fmt.Sprintf("give terminal to user %d", uid), e)
	}
	return err
}

// closeTerminal lets go of the terminal, which the command and the caller
// have.
func (s *setup) closeTerminal() {
	if s.pty != nil {
		s.pty.close()
	}
}
