// Package atomicfile makes a file or directory appear whole or not at all:
// everything is written to a temporary beside the target, forced to disk, and
// renamed into place as the only commit.
//
// A temporary is locked while it is being written, so that two processes never
// share one and what a killed process left is told from what a running one
// still needs. It is never under a name of its own making in a shared
// directory such as /tmp.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// TempPath is where the content of target is built: the hidden name
// .NAME.imgpack-partial in the same directory.
func TempPath(target string) string {
	return filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+".imgpack-partial")
}

// File is a file on its way to a target path. It embeds the temporary's
// *os.File. It must be ended by Commit, Abort or Keep, once, by one goroutine.
type File struct {
	*os.File
	target  string
	replace bool
	done    bool
}

// Create opens the temporary for target, readable by the owner alone. A
// temporary left by a killed run is replaced; one that a running process still
// holds is an error wrapping ErrBusy, and an existing target is one wrapping
// fs.ErrExist unless replace is set.
func Create(target string, replace bool) (*File, error) {
	f, _, err := open(target, replace, nil)
	return f, err
}

// Resume is Create, but goes on with the temporary of a run that was killed or
// that called Keep: left reports that f holds what that run had written, of
// which nothing is proven. A temporary that is anything but a regular file
// with one name, which its owner alone, this process's user, may read and
// write, is replaced as Create does.
func Resume(target string, replace bool) (f *File, left bool, err error) {
	return open(target, replace, resumable)
}

func open(target string, replace bool, usable func(*os.File) bool) (*File, bool, error) {
	if !replace {
		if err := absent(target); err != nil {
			return nil, false, err
		}
	}
	f, left, err := claim(target, func(temp string) error {
		f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		return f.Close()
	}, unix.O_RDWR, usable)
	if err != nil {
		return nil, false, err
	}
	return &File{File: f, target: target, replace: replace}, left, nil
}

// resumable reports whether nobody but this process's user can have written f
// or can read it by another name.
func resumable(f *os.File) bool {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(int(f.Fd()), &st) })
	return err == nil && st.Mode == unix.S_IFREG|0o600 && st.Nlink == 1 && st.Uid == uint32(os.Geteuid())
}

// Commit forces the content to disk, gives the file the mode a newly created
// one would have, and renames it to its target. On error nothing is left; but
// where only the last step fails, forcing the new name to disk, the target is
// there.
func (f *File) Commit() (err error) {
	if f.done {
		return errEnded
	}
	defer f.Abort()
	if err := f.Chmod(0o666 &^ umask()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := rename(f.Name(), f.target, f.replace); err != nil {
		return err
	}
	f.done = true
	return errors.Join(SyncDir(filepath.Dir(f.target)), f.Close())
}

// Abort removes the temporary. After Commit it does nothing, so it can be
// deferred.
func (f *File) Abort() {
	if f.done {
		return
	}
	f.done = true
	os.Remove(f.Name()) // while the lock is held: the name is still ours
	f.Close()
}

// Keep ends f and leaves its temporary for a later Resume, or Create, of the
// same target. The disk is only told to start writing: whoever resumes has to
// prove the content anyway.
func (f *File) Keep() error {
	if f.done {
		return errEnded
	}
	f.done = true
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	return f.Close()
}

// WriteFile makes target hold data, replacing what was there.
func WriteFile(target string, data []byte) error {
	f, err := Create(target, true)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// SyncDir forces a directory's entries to disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) { // a file system that has nothing to sync
		err = nil
	}
	return errors.Join(err, d.Close())
}

var errEnded = errors.New("already committed, aborted or kept")

func absent(target string) error {
	switch _, err := os.Lstat(target); {
	case err == nil:
		return &fs.PathError{Op: "create", Path: target, Err: fs.ErrExist}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// rename moves temp to target; unless replace is set, only to a free name.
// os.Rename will not do: it refuses to take an empty directory's place.
func rename(temp, target string, replace bool) error {
	var flags uint
	if !replace {
		flags = unix.RENAME_NOREPLACE
	}
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, target, flags)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without it
		if !replace {
			if err := absent(target); err != nil {
				return err
			}
		}
		err = unix.Rename(temp, target)
	}
	if err != nil {
		return &fs.PathError{Op: "create", Path: target, Err: err}
	}
	return nil
}

// ErrBusy reports a target that another process is writing at this moment.
var ErrBusy = errors.New("another process is writing it")

// claimTries bounds how often a temporary may slip away between being made or
// opened and being locked; each time another process has got on.
const claimTries = 100

// claim makes the temporary of target, opens it with flags and locks it. What
// another run left there is taken if it is usable, and else removed first.
func claim(target string, create func(temp string) error, flags int, usable func(*os.File) bool) (f *os.File, left bool, err error) {
	temp := TempPath(target)
	for range claimTries {
		err := create(temp)
		fresh := err == nil
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, false, err
		}
		f, err := lock(temp, target, flags)
		switch {
		case errors.Is(err, fs.ErrNotExist): // its owner has ended
			continue
		case err != nil:
			return nil, false, err
		case fresh:
			return f, false, nil
		case usable != nil && usable(f):
			return f, true, nil
		}
		// Without such a test the file is not reused: its mode, its attributes
		// and its other names are whatever somebody left.
		err = removeAll(temp)
		f.Close()
		if err != nil {
			return nil, false, err
		}
	}
	return nil, false, fmt.Errorf("create %s: %w", target, ErrBusy)
}

// lock opens what is at temp and locks it. fs.ErrNotExist means that the name
// is free or stands for something else by now.
func lock(temp, target string, flags int) (*os.File, error) {
	f, err := os.OpenFile(temp, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, fmt.Errorf("create %s: %w", target, err)
	}
	mine, err := f.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Lstat(temp); err == nil && !os.SameFile(mine, there) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
