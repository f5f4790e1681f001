package unpack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// workspace is a temporary directory, locked for as long as its process lives,
// so that what a killed one left can be told and removed.
type workspace struct {
	dir    string
	fd     int
	budget *budget
}

// errBusy reports a temporary directory that a running process holds.
var errBusy = atomicfile.ErrBusy

// claim locks an existing temporary directory. ok is false if it went away
// meanwhile.
func claim(dir string) (w *workspace, ok bool, err error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err == unix.ENOENT {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		if err == unix.EWOULDBLOCK {
			err = errBusy
		}
		return nil, false, err
	}
	var open, there unix.Stat_t
	if unix.Fstat(fd, &open) != nil || unix.Lstat(dir, &there) != nil || open.Ino != there.Ino {
		unix.Close(fd)
		return nil, false, nil
	}
	return &workspace{dir: dir, fd: fd}, true, nil
}

// own makes the directory as if it lay in no set-group directory, and closed
// to others.
func (w *workspace) own() error {
	if err := unix.Fchown(w.fd, -1, os.Getegid()); err != nil {
		return err
	}
	if err := unix.Fchmod(w.fd, 0o700); err != nil {
		return err
	}
	folds, err := foldsNames(w.fd)
	if folds {
		return &manifests.UnsupportedError{Subject: quote.Clean(filepath.Dir(w.dir)), Reason: "names that differ only in case, or in how a letter is encoded, are the same file there"}
	}
	return err
}

// end removes the directory.
func (w *workspace) end() error {
	err := w.budget.close()
	return errors.Join(err, removePath(w.dir), unix.Close(w.fd))
}

// begin makes a workspace in the store, and removes those of killed runs.
func (s *LayerStore) begin() (*workspace, error) {
	tmp := filepath.Join(s.dir, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, err
	}
	if err := sweep(tmp); err != nil {
		return nil, fmt.Errorf("remove what a killed run left: %w", err)
	}
	for {
		dir, err := os.MkdirTemp(tmp, "")
		if err != nil {
			return nil, err
		}
		w, ok, err := claim(dir)
		if err == errBusy || err == nil && !ok {
			continue // another process took it for a leftover
		}
		if err != nil {
			return nil, err
		}
		if err := w.own(); err != nil {
			return nil, errors.Join(err, w.end())
		}
		return w, nil
	}
}

// sweep removes the workspaces in tmp that no process holds.
func sweep(tmp string) error {
	old, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, d := range old {
		w, ok, err := claim(filepath.Join(tmp, d.Name()))
		if err == errBusy || err == nil && !ok {
			continue
		}
		if err != nil {
			return err
		}
		if err := w.end(); err != nil {
			return err
		}
	}
	return nil
}

// output is a directory on its way to a target of the user's.
type output struct {
	*workspace
	target string
}

// output begins what goes to a directory of the user's.
func (o *Options) output(dir string) (*output, error) {
	if err := o.IDs.check(); err != nil {
		return nil, err
	}
	return createOutput(dir)
}

// endWith is end, whose error counts where there is no other.
func (o *output) endWith(err *error) {
	if eerr := o.end(); *err == nil {
		*err = eerr
	}
}

// createOutput begins a directory that will appear at target, which must not
// exist or be empty; anything else is a *manifests.ConflictError.
func createOutput(target string) (*output, error) {
	target, err := filepath.Abs(target)
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(target); err == nil {
		target = real
	}
	if err := vacant(target); err != nil {
		return nil, err
	}
	temp := atomicfile.TempPath(target)
	for {
		err := os.Mkdir(temp, 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		w, ok, cerr := claim(temp)
		if cerr == errBusy {
			return nil, &manifests.ConflictError{Subject: quote.Clean(target), Err: errBusy}
		}
		if cerr != nil {
			return nil, cerr
		}
		if !ok {
			continue
		}
		if err != nil { // left by a killed run
			if err := (&output{w, target}).end(); err != nil {
				return nil, fmt.Errorf("remove what a killed run left: %w", err)
			}
			continue
		}
		if err := w.own(); err != nil {
			return nil, errors.Join(err, w.end())
		}
		return &output{w, target}, nil
	}
}

func vacant(target string) error {
	there, err := os.ReadDir(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.ENOTDIR):
		return &manifests.ConflictError{Subject: quote.Clean(target), Err: fs.ErrExist}
	case err != nil:
		return err
	case len(there) > 0:
		return &manifests.ConflictError{Subject: quote.Clean(target), Err: errors.New("the directory is not empty")}
	}
	return nil
}

// commit moves a directory of the workspace to the target, all of it on disk
// first.
func (o *output) commit(dir string) error {
	if err := syncTree(o.fd); err != nil {
		return err
	}
	dir, err := o.beside(dir)
	if err != nil {
		return err
	}
	if err := unix.Rename(dir, o.target); err != nil {
		if err == unix.ENOTEMPTY || err == unix.EEXIST || err == unix.ENOTDIR {
			return &manifests.ConflictError{Subject: quote.Clean(o.target), Err: fs.ErrExist}
		}
		return &fs.PathError{Op: "rename", Path: o.target, Err: err}
	}
	return syncDir(filepath.Dir(o.target))
}

// beside moves a directory that its owner may not write to, such as a top
// directory of mode 0555, out of the workspace: to move such a one to another
// directory takes root, and is not needed from here to the target.
func (o *output) beside(dir string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil || os.Geteuid() == 0 || st.Mode&0o200 != 0 {
		return dir, err
	}
	out := o.dir + topSuffix
	err := unix.Chmod(dir, 0o700)
	if err == nil {
		err = unix.Rename(dir, out)
	}
	if err == nil {
		err = unix.Chmod(out, st.Mode&0o7777)
	}
	if err != nil {
		return "", &fs.PathError{Op: "rename", Path: out, Err: err}
	}
	return out, nil
}

// topSuffix is added to the workspace's name for what beside moves; it goes with
// the workspace.
const topSuffix = "-top"

// end removes what is left.
func (o *output) end() error {
	return errors.Join(removePath(o.dir+topSuffix), o.workspace.end())
}
