//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/internal/cgroup"
)

// runPrefix begins the name of each run's directory in a state directory.
const runPrefix = "run-"

// runDir is the place of one run's upper directory. Whoever holds the lock on
// it is alive.
type runDir struct {
	path    string
	state   *os.Root // nil: it is kept
	lock    *os.File
	hurried sync.WaitGroup
}

// makeRunDir makes the directory for the changes of this run, or takes the one
// for those of several. nil: they stay in memory.
func (p *plan) makeRunDir(s *Spec) (dir *runDir, err error) {
	switch {
	case s.Upper != "":
		p.Kept = true
		if dir, err = p.openUpper(s.Upper); err == nil {
			p.Fresh, err = isFresh(dir.path)
		}
	case s.State != "" && (!s.ReadOnly || p.has(Volume)): // else nothing but mount points would be written there
		p.Fresh = true
		dir, err = newRunDir(s.State)
	}
	if err != nil || dir == nil {
		return nil, err
	}
	p.RunDir = dir.path
	return dir, nil
}

// openUpper takes a directory for the changes of several runs.
func (p *plan) openUpper(path string) (*runDir, error) {
	owners := []int{os.Geteuid()}
	if p.Remap {
		owners = append(owners, rootOf(p.UIDs)) // to whom the last run gave it
	}
	if err := checkState(path, owners...); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	lock, err := lockDir(root, ".", unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s is in use by another sandbox", clip(path))
	}
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"upper", "work"} {
		if err := root.Mkdir(sub, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(err, lock.Close())
		}
	}
	return &runDir{path: abs, lock: lock}, nil
}

// isFresh says whether no overlay was mounted over a directory yet: each makes
// a directory for itself.
func isFresh(dir string) (bool, error) {
	_, err := os.Lstat(filepath.Join(dir, "work", "work"))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}

// newRunDir makes a run's directory in state and clears away those of runs
// that were killed.
func newRunDir(state string) (_ *runDir, err error) {
	if err := checkState(state, os.Geteuid()); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(state)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			root.Close()
		}
	}()
	// Making and locking a directory must look like one act to another run
	// that clears away the unlocked.
	all, err := lockDir(root, ".", unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	if _, err := clearStale(root); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(state)
	if err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp(abs, runPrefix)
	if err != nil {
		return nil, err
	}
	d := &runDir{path: path, state: root}
	for _, sub := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(path, sub), 0o755); err != nil {
			return nil, errors.Join(err, RemoveTree(root, d.name()))
		}
	}
	if d.lock, err = lockDir(root, d.name(), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, RemoveTree(root, d.name()))
	}
	return d, nil
}

func (d *runDir) name() string { return filepath.Base(d.path) }

// hurry removes what can be removed already while process 1 ends, which takes
// the kernel longer. The command has ended, and what else there is of the
// sandbox is killed.
func (d *runDir) hurry() {
	if d != nil && d.state != nil {
		d.hurried.Go(func() { _ = d.state.RemoveAll(d.name()) }) // remove comes later
	}
}

func (d *runDir) remove() error {
	if d.state == nil {
		return d.lock.Close()
	}
	d.hurried.Wait()
	err := RemoveTree(d.state, d.name())
	return errors.Join(err, d.lock.Close(), d.state.Close())
}

// checkState refuses a directory that others can enter: what the sandbox
// writes there may be set-user-id.
func checkState(dir string, owners ...int) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%s: %w", dir, unix.ENOTDIR)
	}
	if !slices.Contains(owners, int(st.Uid)) || st.Mode&0o077 != 0 {
		return fmt.Errorf("%s must belong to you and have mode 0700", dir)
	}
	return nil
}

func lockDir(root *os.Root, name string, how int) (*os.File, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

// Sweep removes what killed Runs left in a state directory, as the next Run
// there would, and returns how many there were. A directory that is not there
// holds nothing. Their cgroups go too, and with them processes that were paused.
func Sweep(state string) (int, error) {
	if err := cgroup.Sweep(); err != nil {
		return 0, err
	}
	if _, err := os.Lstat(state); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	root, err := os.OpenRoot(state)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	all, err := lockDir(root, ".", unix.LOCK_EX)
	if err != nil {
		return 0, err
	}
	defer all.Close()
	return clearStale(root)
}

func clearStale(root *os.Root) (n int, err error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), runPrefix) {
			continue
		}
		f, err := lockDir(root, e.Name(), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			continue // its run is alive, or has just removed it
		}
		if err != nil {
			return n, err
		}
		err = RemoveTree(root, e.Name())
		f.Close()
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// RemoveUpper removes what Runs have left in a directory that was Spec.Upper,
// and not the directory. What is not there is no error.
func RemoveUpper(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return errors.Join(RemoveTree(root, "work"), RemoveTree(root, "upper"))
}
