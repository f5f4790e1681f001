package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The bytes of a container's lock file that are locked, by locks that belong to
// an open file and can be asked for without being taken.
const (
	lifeByte   = 0 // the monitor is alive
	changeByte = 1 // somebody is about to start or remove it, or to put its state right
)

// openLock opens a container's lock file. The error is a *damagedError where
// there is none, and the container is not being removed.
func (c *Container) openLock() (*os.File, error) {
	f, err := openRegular(c.file(lockFile), os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) && c.whole() {
		err = &damagedError{c.file(lockFile), errMissing}
	}
	return f, err
}

// newLock puts a lock file in the place of a damaged one.
func (c *Container) newLock() error {
	if err := os.RemoveAll(c.file(lockFile)); err != nil {
		return err
	}
	return os.WriteFile(c.file(lockFile), nil, 0o600)
}

// lockByte waits for a lock; without waiting it gives unix.EAGAIN where another
// has it.
func lockByte(f *os.File, at int64, wait bool) error {
	how := unix.F_OFD_SETLK
	if wait {
		how = unix.F_OFD_SETLKW
	}
	for {
		err := unix.FcntlFlock(f.Fd(), how, &unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1})
		if errors.Is(err, unix.EACCES) {
			err = unix.EAGAIN // fcntl(2) may say either
		}
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// alive reports whether the monitor lives.
func alive(f *os.File) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: lifeByte, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return false, fmt.Errorf("ask for the lock of a container: %w", err)
	}
	return l.Type != unix.F_UNLCK, nil
}

// change takes the lock under which a container is started, removed and put
// right. Whoever holds it does so for a moment, but for who removes it.
func (c *Container) change() (*os.File, error) {
	f, err := c.openLock()
	if err != nil {
		return nil, c.gone(err)
	}
	if err := lockByte(f, changeByte, true); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock container: %w", err)
	}
	return f, nil
}

// lock takes the lock under which names are given and taken away.
func (d *Dir) lock() (*os.File, error) {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(d.path, lockFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockByte(f, changeByte, true); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", d.path, err)
	}
	return f, nil
}
