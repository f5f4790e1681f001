package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// Modes of what is in the store: images may hold what is nobody else's
// business, and layers setuid files.
const (
	storeDirMode  = 0o700
	storeFileMode = 0o600
)

// lockWait is how long to wait for the lock, lockPoll how often to ask. It is
// held for as long as some files are renamed or removed, never while blobs are
// copied.
var lockWait = 10 * time.Second

const lockPoll = 20 * time.Millisecond

// lock makes the store if need be and takes it for writing. One that another
// process holds on to is a *ConflictError.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	if s.closed.Load() {
		return nil, &fs.PathError{Op: "write", Path: s.dir, Err: fs.ErrClosed}
	}
	if err := s.checkOurs(); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, "lock")
	wait, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	l, err := s.tryLock(wait, path)
	for tries := 0; errors.Is(err, errForsaken) && tries < 100; tries++ { // each is lost to one who gave up
		l, err = s.tryLock(wait, path)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, &manifests.ConflictError{Subject: s.place(), Err: fmt.Errorf("%s is changing it", holder(path))}
		}
		return nil, err
	}
	// Whose lock it is is only told to people, and must not fail where the
	// disk is full: the one who holds it may be about to free space.
	_ = os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), storeFileMode)
	return func() {
		_ = os.Truncate(path, 0)
		l.Unlock()
	}, nil
}

// errForsaken says that the store that was locked was removed meanwhile.
var errForsaken = errors.New("the store was removed")

func (s *Store) tryLock(ctx context.Context, path string) (*flock.Flock, error) {
	if err := os.MkdirAll(s.dir, storeDirMode); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errForsaken
		}
		return nil, err
	}
	l := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(storeFileMode))
	ok, err := l.TryLockContext(ctx, lockPoll)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errForsaken
	}
	if !ok {
		return nil, err
	}
	locked, lerr := l.Stat()
	there, err := os.Stat(path)
	if lerr != nil || err != nil || !os.SameFile(locked, there) {
		l.Unlock()
		return nil, errForsaken
	}
	// Now that it is locked nobody removes it any more.
	if err := os.Mkdir(filepath.Join(s.dir, "tmp"), storeDirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		l.Unlock()
		return nil, err
	}
	return l, nil
}

// standing is the nearest directory above a store that is there before it is
// made; "" where the store is there.
func (s *Store) standing() string {
	for dir := s.dir; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); err == nil || dir == filepath.Dir(dir) {
			if dir == s.dir {
				return ""
			}
			return dir
		}
	}
}

// forsake removes a store that was made for what then failed, up to a directory
// that was there. What somebody has begun to use stays.
func (s *Store) forsake(standing string) {
	unlock, err := s.lock(context.Background())
	if err != nil {
		return
	}
	defer unlock()
	names, err := os.ReadDir(s.dir)
	if err != nil || len(names) != 2 || os.Remove(filepath.Join(s.dir, "tmp")) != nil {
		return // more than that and the lock
	}
	if os.Remove(filepath.Join(s.dir, "lock")) != nil {
		return
	}
	for dir := s.dir; dir != standing && os.Remove(dir) == nil; {
		dir = filepath.Dir(dir)
	}
}

func holder(path string) string {
	raw, _ := os.ReadFile(path)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil {
		return fmt.Sprintf("process %d", pid)
	}
	return "another process"
}

// checkOurs refuses to make a store of a directory that holds other things.
func (s *Store) checkOurs() error {
	names, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	foreign := ""
	for _, n := range names {
		switch n.Name() {
		case "lock", "oci-layout":
			return nil
		case "unpacked", "run", "tmp", "containers":
		default:
			foreign = n.Name()
		}
	}
	if foreign != "" {
		return &manifests.ConflictError{Subject: quote.Clean(s.dir), Err: fmt.Errorf("not a store, and not empty: it holds %s", quote.Text(foreign))}
	}
	return nil
}

// stage is a directory of unfinished work in the store. It is locked, so that
// what a killed process leaves can be told from it.
type stage struct {
	blobDir
	held *os.File
}

// begin removes what killed processes left and opens a stage. The stage must
// be ended.
func (s *Store) begin(ctx context.Context) (*stage, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := s.recover(true); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Join(s.dir, "tmp"), "add-")
	if err != nil {
		return nil, err
	}
	for {
		held, ok, err := claim(dir)
		if ok {
			return &stage{blobDir{dir, storeFileMode, storeDirMode}, held}, nil
		}
		if err == nil { // somebody who counts left-overs looks at it
			time.Sleep(lockPoll)
			err = ctx.Err()
		}
		if err != nil {
			os.RemoveAll(dir)
			return nil, err
		}
	}
}

func (t *stage) end() {
	os.RemoveAll(t.path)
	t.held.Close()
}

// recover counts what lies in tmp and belongs to no running process, and
// removes it if it is to. The lock must be held to remove.
func (s *Store) recover(remove bool) (int, error) {
	tmp := filepath.Join(s.dir, "tmp")
	names, err := os.ReadDir(tmp)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	var left int
	for _, n := range names {
		idle, err := clearTemp(filepath.Join(tmp, n.Name()), remove)
		if err != nil {
			return left, err
		}
		if idle {
			left++
		}
	}
	return left, nil
}

func clearTemp(path string, remove bool) (idle bool, err error) {
	f, ok, err := claim(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !ok {
		return false, nil
	}
	if err == nil {
		defer f.Close()
	}
	if remove { // also what could not be opened, a link say
		return true, os.RemoveAll(path)
	}
	return true, nil
}

// writeIndex replaces index.json. The lock must be held.
func (s *Store) writeIndex(roots []manifests.Root) error {
	next, err := s.prepareIndex(roots)
	if err != nil {
		return err
	}
	if err := os.Rename(next, s.index()); err != nil {
		os.Remove(next)
		return err
	}
	return atomicfile.SyncDir(s.dir)
}

// prepareIndex puts the next index.json beside the store's, on disk.
func (s *Store) prepareIndex(roots []manifests.Root) (next string, err error) {
	sortRoots(roots)
	raw, err := manifests.FormatLayoutIndex(roots)
	if err != nil {
		return "", err
	}
	if _, err := manifests.ParseLayoutIndex(raw); err != nil { // too large to be read again, say
		return "", within(s.place(), err)
	}
	next = filepath.Join(s.dir, "tmp", "index.json")
	if err := writeSynced(next, raw, storeFileMode); err != nil {
		os.Remove(next)
		return "", err
	}
	return next, nil
}

func (s *Store) index() string { return filepath.Join(s.dir, "index.json") }
