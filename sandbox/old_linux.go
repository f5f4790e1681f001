//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// oldKernel says whether the kernel is one before Linux 5.12.
func oldKernel() bool {
	return unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}) == unix.ENOSYS
}

// mountOld mounts o where the kernel has no userxattr, for the host's root.
// fault is what mounting it with that has given. What is kept is not for such
// kernels: its marks would mean nothing to others.
func (s *setup) mountOld(o *overlay, fault error) (int, error) {
	if o.kept {
		return -1, &UnsupportedError{Feature: "keeping what a container writes", Err: fault, Hint: "needs Linux 5.11; without -d and --name, run keeps nothing"}
	}
	for _, fd := range o.lower {
		if err := markOpaque(fdPath(fd)); err != nil {
			return -1, fmt.Errorf("mark opaque directories: %w", err)
		}
	}
	o.old = true
	return o.mountByPath()
}

// markOpaque gives the opaque directories of a layer the mark that overlays of
// the host's root look for.
func markOpaque(layer string) error {
	const mine, theirs = "user.overlay.opaque", "trusted.overlay.opaque"
	return filepath.WalkDir(layer+"/.", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		if !marked(path, mine) || marked(path, theirs) {
			return nil
		}
		return unix.Lsetxattr(path, theirs, []byte("y"), 0)
	})
}

func marked(dir, attr string) bool {
	var buf [2]byte
	n, err := unix.Lgetxattr(dir, attr, buf[:])
	return err == nil && n == 1 && buf[0] == 'y'
}

// closeOnExec lets the command have the standard streams and nothing else.
func closeOnExec() error {
	const first = 3
	err := unix.CloseRange(first, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if err != unix.EINVAL { // the flag came with Linux 5.11
		return err
	}
	files, err := os.ReadDir("/proc/self/fd")
	for _, f := range files {
		if fd, _ := strconv.Atoi(f.Name()); fd >= first {
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC) // that of the directory is closed
		}
	}
	return err
}
