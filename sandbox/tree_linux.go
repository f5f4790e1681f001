//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one path may go through: the kernel's
// own bound.
const maxLinks = 40

// maxImageFile bounds /etc/passwd and /etc/group of an image. Debian's have
// 2 KiB; a crafted image's may be sparse and huge (CVE-2026-47262).
const maxImageFile = 1 << 20

// tree is a directory tree of an image, held by a descriptor of its root.
//
// Paths are walked one component at a time with O_NOFOLLOW; links are read as
// text and expanded here, ".." goes back to a directory already visited. The
// walk therefore cannot leave the tree whatever the links say, magic links of
// /proc included. Nothing of the image runs while it walks, so the tree does
// not change under it.
type tree struct {
	root int
	// strict refuses symbolic links instead of following them in the tree.
	strict bool
	// closed are directories that the walk must not enter.
	closed []fileID
	// made is called with each directory or file the walk creates.
	made func(fd int) error
}

// errClosed is what walking into a closed directory gives.
var errClosed = errors.New("leads into /proc, /sys or /dev")

// fileID says which file a file is.
type fileID struct{ dev, ino uint64 }

// want says what a walk makes at the end of the path when it is missing.
type want int

const (
	wantExisting want = iota
	wantFile
	wantDir
)

// walk is the state of one walk: the directories from the root to here.
type walk struct {
	tree  tree
	dirs  []int // dirs[0] is the root and not ours to close
	todo  []string
	links int
}

// open returns an O_PATH descriptor of path, made as w asks when missing.
// Missing parents are made too unless w is wantExisting.
func (t tree) open(path string, w want) (int, error) {
	k := &walk{tree: t, dirs: []int{t.root}, todo: split(path)}
	fd, err := k.run(w)
	for _, d := range k.dirs[1:] {
		if d != fd {
			unix.Close(d)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("%s: %w", clip(path), err)
	}
	return fd, nil
}

func split(path string) []string {
	var parts []string
	for part := range strings.SplitSeq(path, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}

func (k *walk) run(w want) (int, error) {
	for len(k.todo) > 0 {
		name := k.todo[0]
		k.todo = k.todo[1:]
		if name == ".." {
			k.up()
			continue
		}
		fd, err := k.step(name, w)
		if err != nil {
			return -1, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return -1, err
		}
		if slices.Contains(k.tree.closed, fileID{uint64(st.Dev), st.Ino}) {
			unix.Close(fd)
			return -1, errClosed
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			err := k.expand(fd)
			unix.Close(fd)
			if err != nil {
				return -1, err
			}
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			k.dirs = append(k.dirs, fd)
		case len(k.todo) > 0 || w == wantDir:
			unix.Close(fd)
			return -1, unix.ENOTDIR
		default:
			return fd, nil
		}
	}
	if w == wantFile {
		return -1, unix.EISDIR
	}
	last := k.dirs[len(k.dirs)-1]
	if len(k.dirs) == 1 {
		return unix.FcntlInt(uintptr(last), unix.F_DUPFD_CLOEXEC, 0)
	}
	return last, nil
}

func (k *walk) up() {
	if n := len(k.dirs); n > 1 {
		unix.Close(k.dirs[n-1])
		k.dirs = k.dirs[:n-1]
	}
}

// step opens one component, making it when missing and wanted.
func (k *walk) step(name string, w want) (int, error) {
	dir := k.dirs[len(k.dirs)-1]
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0)
	if err != unix.ENOENT || w == wantExisting {
		return fd, err
	}
	if len(k.todo) > 0 || w == wantDir {
		err = unix.Mkdirat(dir, name, 0o755)
	} else {
		err = unix.Mknodat(dir, name, unix.S_IFREG|0o644, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("make %s: %w", clip(name), err)
	}
	fd, err = unix.Openat(dir, name, flags, 0)
	if err == nil && k.tree.made != nil {
		if err = k.tree.made(fd); err != nil {
			unix.Close(fd)
		}
	}
	return fd, err
}

// expand puts the text of the link fd before what is left of the path.
func (k *walk) expand(fd int) error {
	if k.tree.strict {
		return errors.New("is a symbolic link in the image")
	}
	if k.links++; k.links > maxLinks {
		return unix.ELOOP
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return err
	}
	text := string(buf[:n])
	if strings.HasPrefix(text, "/") {
		for len(k.dirs) > 1 {
			k.up()
		}
	}
	k.todo = append(split(text), k.todo...)
	return nil
}

// readFile returns the content of a small regular file of the tree, or "" when
// there is none. Anything but a regular file, and a large one, is an error.
func (t tree) readFile(path string) (string, error) {
	fd, err := t.open(path, wantExisting)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", fmt.Errorf("%s is not a regular file", path)
	}
	// Only now, knowing that it is a regular file, is it opened for real: a
	// FIFO would block and a device could act.
	f, err := os.OpenFile(fdPath(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxImageFile+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > maxImageFile {
		return "", fmt.Errorf("%s is larger than %d bytes", path, maxImageFile)
	}
	return string(b), nil
}

// fdPath names an open file for calls that take only a path. It is good as
// long as /proc is the one process 1 started with.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
