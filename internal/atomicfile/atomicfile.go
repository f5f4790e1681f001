// Package atomicfile makes a file or directory appear whole or not at all:
// everything is written to a temporary beside the target, forced to disk, and
// renamed into place as the only commit.
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
// *os.File. It must be ended by Commit or Abort.
type File struct {
	*os.File
	target  string
	replace bool
	done    bool
}

// Create opens the temporary for target, readable by the owner alone. A
// temporary left by a killed run is replaced; one that a running process still
// holds is an error, as is (wrapping fs.ErrExist) an existing target unless
// replace is set.
func Create(target string, replace bool) (*File, error) {
	if !replace {
		if _, err := os.Lstat(target); err == nil {
			return nil, &fs.PathError{Op: "create", Path: target, Err: fs.ErrExist}
		}
	}
	temp := TempPath(target)
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("create %s: another process is writing it: %w", target, err)
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	return &File{File: f, target: target, replace: replace}, nil
}

// Commit forces the content to disk, gives the file the mode a newly created
// one would have, and renames it to its target. On error nothing is left.
func (f *File) Commit() (err error) {
	if f.done {
		return errors.New("commit: already ended")
	}
	defer func() {
		if err != nil {
			f.Abort()
		}
	}()
	if err := f.Chmod(0o666 &^ umask()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if f.replace {
		err = os.Rename(f.Name(), f.target)
	} else {
		err = unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, f.target, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without it
			err = os.Rename(f.Name(), f.target)
		}
	}
	if err != nil {
		return &fs.PathError{Op: "rename", Path: f.target, Err: err}
	}
	f.done = true
	return errors.Join(f.Close(), SyncDir(filepath.Dir(f.target)))
}

// Abort removes the temporary. After Commit it does nothing, so it can be
// deferred.
func (f *File) Abort() {
	if f.done {
		return
	}
	f.done = true
	os.Remove(f.Name())
	f.Close()
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
