package atomicfile

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// OpUnnamed is the Op of the *fs.PathError where Unnamed may not write.
const OpUnnamed = "create a file in"

// Unnamed opens a new file in dir, for reading and writing, that has no name:
// no other process can reach it, and it is gone when it is closed, whatever
// happens. Dir is made if it is not there. The caller closes the file.
func Unnamed(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return nil, &fs.PathError{Op: OpUnnamed, Path: dir, Err: err}
	}
	return unlinked(dir)
}

// unlinked is Unnamed on a file system without O_TMPFILE.
func unlinked(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".imgpack-spool-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
