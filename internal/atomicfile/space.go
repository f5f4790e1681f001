package atomicfile

import (
	"cmp"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// Free is how many bytes an ordinary user may still write to the file system
// that the open file fd lies in. Not every file system tells.
func Free(fd int) (n int64, known bool) {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(fd, &st) })
	if err != nil || st.Blocks == 0 {
		return 0, false
	}
	// Blocks are counted in fragments where the two differ, as statvfs(3) says.
	unit := uint64(max(cmp.Or(st.Frsize, st.Bsize), 1))
	return int64(min(st.Bavail, math.MaxInt64/unit) * unit), true
}

// CheckSpace tells before the first byte when need more cannot be written
// where fd lies: by an error wrapping syscall.ENOSPC. Where a file system does
// not tell, it is found out by writing.
func CheckSpace(fd int, need int64) error {
	if free, known := Free(fd); known && free < need {
		return fmt.Errorf("at least %d bytes are needed and %d are free: %w", need, free, unix.ENOSPC)
	}
	return nil
}
