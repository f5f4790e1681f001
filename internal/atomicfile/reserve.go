package atomicfile

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Reserve makes the file size bytes long, all zeros, and takes the space on
// disk where the file system can, so that a full disk shows before work is
// spent. Too little space is an error wrapping syscall.ENOSPC.
func (f *File) Reserve(size int64) error {
	if size <= 0 {
		return nil
	}
	// What is free is looked at first: fallocate(2) takes all there is before
	// it fails, and everybody else's writes fail with it.
	err := f.free(size)
	if err == nil {
		err = retry(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = f.Truncate(size)
	}
	if err != nil {
		return &fs.PathError{Op: "reserve space for", Path: f.target, Err: err}
	}
	return nil
}

func (f *File) free(size int64) error {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(int(f.Fd()), &st) }); err != nil {
		return err
	}
	// Free blocks are compared as blocks: the product may not fit.
	if need := uint64(size)/uint64(max(st.Bsize, 1)) + 1; st.Bavail < need {
		return unix.ENOSPC
	}
	return nil
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
