package container

import (
	"errors"
	"fmt"
	"io"
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

// openLock opens a container's lock file.
func (c *Container) openLock() (*os.File, error) {
	return os.OpenFile(c.file(lockFile), os.O_RDWR, 0)
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
	f, err := os.OpenFile(filepath.Join(d.path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockByte(f, changeByte, true); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", d.path, err)
	}
	return f, nil
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = &damagedError{path, fmt.Errorf("longer than %d bytes", limit)}
	}
	return raw, err
}
