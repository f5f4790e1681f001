package unpack

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/atomicfile"
)

// noOpenat2 is set once the kernel has said that it lacks openat2 (before
// 5.6, and under some seccomp filters).
var noOpenat2 atomic.Bool

// openBeneath opens path below the directory root without following any
// symlink or mount; a last component that is a symlink can be had with
// O_PATH|O_NOFOLLOW.
func openBeneath(root int, path string, flags int) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	if noOpenat2.Load() {
		return walkBeneath(root, path, flags)
	}
	how := unix.OpenHow{
		Flags:   uint64(flags),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(root, path, &how)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err == unix.ENOSYS || err == unix.EPERM:
			fd, err := walkBeneath(root, path, flags)
			if err != unix.EPERM { // then it was a filter that refused
				noOpenat2.Store(true)
			}
			return fd, err
		}
		return fd, err
	}
}

// walkBeneath is openBeneath one component at a time.
func walkBeneath(root int, path string, flags int) (int, error) {
	at := root
	for {
		part, rest, more := strings.Cut(path, "/")
		f := flags
		if more {
			f = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		if part == ".." {
			part = ""
		}
		fd, err := retry(func() (int, error) { return unix.Openat(at, part, f, 0) })
		if at != root {
			unix.Close(at)
		}
		if err != nil || !more {
			return fd, err
		}
		at, path = fd, rest
	}
}

// retry repeats a system call that a signal interrupted.
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}

func lstatAt(dir int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

// setTimes sets both times of an open file: utimensat(2) with a null path,
// which x/sys does not offer.
func setTimes(fd int, ts unix.Timespec) error {
	two := [2]unix.Timespec{ts, ts}
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&two)), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err != nil && err != unix.EINTR {
			return err
		}
		p = p[max(n, 0):]
	}
	return nil
}

// names lists a directory, sorted.
func names(fd int) ([]string, error) {
	out, err := firstNames(fd, math.MaxInt)
	slices.Sort(out)
	return out, err
}

// firstNames lists a directory until there are so many names.
func firstNames(fd, most int) (out []string, err error) {
	buf := make([]byte, 32<<10)
	for len(out) < most {
		n, err := retry(func() (int, error) { return unix.ReadDirent(fd, buf) })
		if n == 0 || err != nil {
			return out, err
		}
		_, _, out = unix.ParseDirent(buf[:n], -1, out)
	}
	return out, nil
}

// removeStep bounds the length of the paths removeTree gives to the kernel,
// which walks them anew for each file.
const removeStep = 256

// removeTree removes name in dir and all below it; that it is not there is no
// error. Directories that the owner closed to himself are opened first.
func removeTree(dir int, name string) error {
	for todo := []string{name}; len(todo) > 0; {
		path := todo[len(todo)-1]
		err := unix.Unlinkat(dir, path, unix.AT_REMOVEDIR)
		if err == unix.ENOTDIR {
			err = unix.Unlinkat(dir, path, 0)
		}
		switch {
		case err == nil || err == unix.ENOENT:
			todo = todo[:len(todo)-1]
			continue
		case err != unix.ENOTEMPTY && err != unix.EEXIST:
			return &os.PathError{Op: "remove", Path: path, Err: err}
		}
		sub, err := removeFiles(dir, path)
		if err != nil {
			return &os.PathError{Op: "remove", Path: path, Err: err}
		}
		for _, name := range sub {
			todo = append(todo, path+"/"+name)
		}
	}
	return nil
}

// removePath is removeTree of a path of our own making.
func removePath(path string) error {
	dir, err := openDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return removeTree(dir, filepath.Base(path))
}

// removeFiles removes what is no directory from a directory, and returns the
// directories in it.
func removeFiles(dir int, path string) (sub []string, err error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	fd, err := openBeneath(dir, path, flags)
	if err == unix.EACCES {
		if err := unix.Fchmodat(dir, path, 0o700, 0); err != nil {
			return nil, err
		}
		fd, err = openBeneath(dir, path, flags)
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	all, err := names(fd)
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		unix.Fchmod(fd, 0o700) // names can be listed with less than it takes to remove them
	}
	for _, name := range all {
		switch err := unix.Unlinkat(fd, name, 0); {
		case err == nil || err == unix.ENOENT:
		case err != unix.EISDIR && err != unix.EPERM:
			return nil, err
		case len(path) > removeStep:
			if err := removeTree(fd, name); err != nil {
				return nil, err
			}
		default:
			sub = append(sub, name)
		}
	}
	return sub, nil
}

// umask is the process's umask, read without setting it; all bits if it cannot
// be told.
var umask = sync.OnceValue(func() uint32 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o777
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(text), 8, 32); err == nil {
				return uint32(n)
			}
		}
	}
	return 0o777
})

// openDir opens a directory of the caller's own, following symlinks.
func openDir(path string) (int, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// syncTree forces a file system to disk, syncDir one directory; tests replace
// them.
var (
	syncTree = unix.Syncfs
	syncDir  = atomicfile.SyncDir
)

// likeNames are pairs of names that case-folding and normalising file systems
// take for one.
var likeNames = [][2]string{{"a", "A"}, {"\u00e9", "e\u0301"}}

// foldsNames tells whether a directory, which is empty, takes names of other
// bytes for the same. What cannot be named there at all is left for entries to
// find.
func foldsNames(dir int) (folds bool, err error) {
	for _, pair := range likeNames {
		if unix.Mkdirat(dir, pair[0], 0o700) != nil {
			continue
		}
		folds = folds || unix.Faccessat(dir, pair[1], unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) == nil
		if err := unix.Unlinkat(dir, pair[0], unix.AT_REMOVEDIR); err != nil {
			return folds, err
		}
	}
	return folds, nil
}

// gone reports the errors of a path that has ceased to be a directory.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}
