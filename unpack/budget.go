package unpack

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// budget is what all layers of one operation share: the space of the file
// system, and the caller's open files.
type budget struct {
	fd       int // in the file system written to
	dirs     int // directories an extractor may hold open
	items    int // entries of one batch, for each may be an open file
	decoders int // cores that decode a layer at most
	written  atomic.Int64
	memory   int64 // most that held may be
	held     atomic.Int64
	search   search

	early    int          // as fd, for syncs that come early
	nextSync atomic.Int64 // how much is written when the next comes
	due      atomic.Bool
	syncing  atomic.Bool
	syncs    sync.WaitGroup
}

const (
	// spaceStep is how many bytes are written between two looks at the space
	// that is left.
	spaceStep = 256 << 20
	// After each syncStep bytes, or from 8 of them on after each eighth of all
	// up to maxSyncStep, what is there is sent to the disk, beside further work.
	// The sync before the layers are moved to their places then has little left
	// to wait for. Each costs a commit of the journal, which others wait for.
	syncStep    = 64 << 20
	maxSyncStep = 256 << 20
	// spaceReserve is left free: a file system filled to the last byte harms
	// more than this program.
	spaceReserve = 16 << 20
	// More than these gains nothing.
	maxOpenDirs = 256
	maxItems    = 64
	// What is held of a directory, and of an owner, besides its path.
	rememberCost = 200
	ownerCost    = 150
)

// DefaultMemory bounds what is remembered of an image's layers until they are
// unpacked, in bytes: the paths of directories, whiteouts, devices and hard
// links to what comes later, attributes of directories, and owners that cannot
// be set. A hundred thousand directories take some 30 MB. A small blob can name
// many: one entry of a tar a thousand.
const DefaultMemory = 64 << 20

// LimitMemory is DefaultMemory's name, as layertar has names of limits.
const LimitMemory = "memory"

// remember counts a path that is held in memory.
func (b *budget) remember(path string) error { return b.hold(recorded(path) + rememberCost) }

// recorded is how much of memory a path takes at most: in a layer's record, where
// some bytes are escaped.
func recorded(path string) (n int) {
	above := 2
	if !utf8.ValidString(path) {
		above = 3
	}
	for i := range len(path) {
		switch c := path[i]; {
		case c < ' ', c == '<', c == '>', c == '&':
			n += 6
		case c == '%':
			n += 3
		case c == '"', c == '\\':
			n += 2
		case c >= utf8.RuneSelf:
			n += above
		default:
			n++
		}
	}
	return n
}

// hold counts bytes that are held in memory.
func (b *budget) hold(n int) error {
	if b.held.Add(int64(n)) <= b.memory {
		return nil
	}
	return layertar.Past(LimitMemory, "directories, whiteouts, links and owners to be remembered take more than %d bytes of memory", b.memory)
}

// newBudget refuses layers that cannot fit. The budget must be closed.
func newBudget(fd int, o Options, layers []manifests.Layer) (*budget, error) {
	b := &budget{fd: fd, dirs: maxOpenDirs, items: maxItems, memory: cmp.Or(o.Memory, DefaultMemory)}
	b.nextSync.Store(syncStep)
	// Making what is decoded takes as many cores as decoding it.
	b.decoders = max(runtime.GOMAXPROCS(0)/2/max(min(o.jobs(), len(layers)), 1), 1)
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err == nil {
		share := lim.Cur / 4 / uint64(o.jobs())
		b.dirs = int(min(max(share, 8), maxOpenDirs))
		b.items = int(min(max(share/batches, 1), maxItems))
	}
	var least int64 // that will be written
	for _, l := range layers {
		least += l.Blob.Size
	}
	if err := atomicfile.CheckSpace(fd, least); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	var err error
	b.early, err = retry(func() (int, error) {
		return unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return b, nil
}

// close waits for early syncs. Nothing may be spent any more; nil is closed.
func (b *budget) close() error {
	if b == nil {
		return nil
	}
	b.syncs.Wait()
	return unix.Close(b.early)
}

// syncEarly begins a sync, after the one that is under way. Its error is no loss:
// the kernel tells each open descriptor, and the last sync has another.
func (b *budget) syncEarly() {
	b.due.Store(true)
	if b.syncing.CompareAndSwap(false, true) {
		b.syncs.Go(func() {
			for b.due.Swap(false) {
				syncTree(b.early)
			}
			b.syncing.Store(false)
		})
	}
}

// forget takes back what was remembered of a layer's directories when no more of
// the layer is held than its record.
func (b *budget) forget(dirs map[string]*attrs) {
	for path, a := range dirs {
		if path != "." && !a.implied {
			b.held.Add(-int64(recorded(path)+xattrBytes(a.xattrs)) - rememberCost)
		}
	}
}

// full tells whether ENOSPC means the file system.
func (b *budget) full() bool {
	free, known := atomicfile.Free(b.fd)
	return !known || free < 1<<20
}

// spend counts n bytes about to be written.
func (b *budget) spend(n int64) error {
	after := b.written.Add(n)
	if next := b.nextSync.Load(); after >= next && b.nextSync.CompareAndSwap(next, after+min(max(after/8, syncStep), maxSyncStep)) {
		b.syncEarly()
	}
	if after/spaceStep == (after-n)/spaceStep {
		return nil
	}
	if free, known := atomicfile.Free(b.fd); known && free < spaceReserve {
		return fmt.Errorf("only %d bytes are free: %w", free, unix.ENOSPC)
	}
	return nil
}

// bySize returns the numbers of layers in the order to begin with them: the
// largest first, so that none is left to a single core at the end.
func bySize(layers []manifests.Layer) []int {
	order := make([]int, len(layers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(layers[b].Blob.Size, layers[a].Blob.Size) })
	return order
}
