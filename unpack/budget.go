package unpack

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/atomicfile"
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
	if err := atomicfile.CheckSpace(fd, need); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return b, nil
}

// full tells whether ENOSPC means the file system.
func (b *budget) full() bool {
	free, known := atomicfile.Free(b.fd)
	return !known || free < 1<<20
}

// spend counts n bytes about to be written.
func (b *budget) spend(n int64) error {
	after := b.written.Add(n)
	if after/spaceStep == (after-n)/spaceStep {
		return nil
	}
	if free, known := atomicfile.Free(b.fd); known && free < spaceReserve {
		return fmt.Errorf("only %d bytes are free: %w", free, unix.ENOSPC)
	}
	return nil
}
