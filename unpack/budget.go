package unpack

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// budget is what all layers of one operation share: the space of the file
// system, and the caller's open files.
type budget struct {
	fd      int // in the file system written to
	dirs    int // directories an extractor may hold open
	written atomic.Int64
}

const (
	// spaceStep is how many bytes are written between two looks at the space
	// that is left.
	spaceStep = 256 << 20
	// spaceReserve is left free: a file system filled to the last byte harms
	// more than this program.
	spaceReserve = 16 << 20
	// maxOpenDirs is past any gain.
	maxOpenDirs = 256
)

// newBudget refuses what cannot fit: need is the least that will be written.
func newBudget(fd, jobs int, need int64) (*budget, error) {
	b := &budget{fd: fd, dirs: maxOpenDirs}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err == nil {
		b.dirs = int(min(max(lim.Cur/2/uint64(jobs), 8), maxOpenDirs))
	}
	if free, err := b.free(); err == nil && free < need {
		return nil, fmt.Errorf("unpack: at least %d bytes are needed and %d are free: %w", need, free, unix.ENOSPC)
	}
	return b, nil
}

func (b *budget) free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(b.fd, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// full tells whether ENOSPC means the file system.
func (b *budget) full() bool {
	free, err := b.free()
	return err != nil || free < 1<<20
}

// spend counts n bytes about to be written.
func (b *budget) spend(n int64) error {
	after := b.written.Add(n)
	if after/spaceStep == (after-n)/spaceStep {
		return nil
	}
	if free, err := b.free(); err == nil && free < spaceReserve {
		return fmt.Errorf("only %d bytes are free: %w", free, unix.ENOSPC)
	}
	return nil
}
