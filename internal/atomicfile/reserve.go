package atomicfile

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Reserve makes the file size bytes long and takes the space on disk where the
// file system can, so that a full disk shows before work is spent. What the
// file holds up to there stays, the rest is zeros. Too little space is an error
// wrapping syscall.ENOSPC.
func (f *File) Reserve(size int64) error {
	if size < 0 {
		return nil
	}
	if err := f.reserve(size); err != nil {
		return &fs.PathError{Op: "reserve space for", Path: f.target, Err: err}
	}
	return nil
}

func (f *File) reserve(size int64) error {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
		return err
	}
	if st.Size > size {
		if err := f.Truncate(size); err != nil {
			return err
		}
	}
	if size == 0 {
		return nil
	}
	// What is free is looked at first: fallocate(2) takes all there is before
	// it fails, and everybody else's writes fail with it.
	const statBlock = 512 // the unit of st_blocks, whatever the file system
	err := CheckSpace(int(f.Fd()), size-st.Blocks*statBlock)
	if err == nil {
		err = retry(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = f.Truncate(size)
	}
	return err
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// earlyWrite is from how many bytes on WriteAt starts the disk at once.
const earlyWrite = 1 << 20

// WriteAt is os.File's, and starts writing large pieces to disk at once, so
// that the disk does not idle until all is there and has to be forced.
func (f *File) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(p, at)
	if n >= earlyWrite {
		_ = unix.SyncFileRange(int(f.Fd()), at, int64(n), unix.SYNC_FILE_RANGE_WRITE) // a hint; Commit sees errors
	}
	return n, err
}
