package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Dir is a directory on its way to a target path. It must be ended by Commit
// or Abort, once, by one goroutine.
type Dir struct {
	// Mode is the directory's mode from Commit on; zero is that of a newly
	// created one.
	Mode fs.FileMode

	f       *os.File // holds the lock
	temp    string
	target  string
	replace bool
	done    bool
}

// CreateDir makes the temporary directory for target, open to the owner alone.
// An existing target is an error wrapping fs.ErrExist; with replace, only one
// that is no empty directory. A temporary left by a killed run is removed with
// all it holds; one that a running process still holds is an error wrapping
// ErrBusy.
func CreateDir(target string, replace bool) (*Dir, error) {
	target = filepath.Clean(target)
	if err := vacant(target, replace); err != nil {
		return nil, err
	}
	f, _, err := claim(target, func(temp string) error { return os.Mkdir(temp, 0o700) }, unix.O_RDONLY, nil)
	if err != nil {
		return nil, err
	}
	return &Dir{f: f, temp: TempPath(target), target: target, replace: replace}, nil
}

// Path is where the tree is built.
func (d *Dir) Path() string { return d.temp }

// Commit forces the tree to disk and renames it to its target. On error
// nothing is left; but where only the last step fails, forcing the new name to
// disk, the target is there.
//
// The whole file system is forced to disk, which for a tree of many files is
// far faster than one file after another.
func (d *Dir) Commit() error {
	if d.done {
		return errEnded
	}
	defer d.Abort()
	mode := d.Mode
	if mode == 0 {
		mode = 0o777 &^ umask()
	}
	if err := d.f.Chmod(mode); err != nil {
		return err
	}
	if err := unix.Syncfs(int(d.f.Fd())); err != nil {
		return &fs.PathError{Op: "sync", Path: d.target, Err: err}
	}
	if err := vacant(d.target, d.replace); err != nil {
		return err
	}
	// To take the place of a directory, rename itself demands that it is
	// empty.
	err := rename(d.temp, d.target, d.replace)
	if errors.Is(err, unix.ENOTEMPTY) {
		err = &fs.PathError{Op: "create", Path: d.target, Err: fs.ErrExist}
	}
	if err != nil {
		return err
	}
	d.done = true
	return errors.Join(SyncDir(filepath.Dir(d.target)), d.f.Close())
}

// Abort removes the temporary and all it holds. After Commit it does nothing,
// so it can be deferred.
func (d *Dir) Abort() {
	if d.done {
		return
	}
	d.done = true
	removeAll(d.temp)
	d.f.Close()
}

// vacant refuses a target that is there, or with replace one that is there and
// is no empty directory.
func vacant(target string, replace bool) error {
	if !replace {
		return absent(target)
	}
	entries, err := os.ReadDir(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return absent(target) // a symlink to nothing is something
	case errors.Is(err, unix.ENOTDIR) || err == nil && len(entries) > 0:
		return &fs.PathError{Op: "create", Path: target, Err: fs.ErrExist}
	}
	return err
}

// removeAll removes a tree, also where directories in it are closed to their
// owner, as those of an image may be.
func removeAll(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}
