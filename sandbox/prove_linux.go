//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// proveRoot makes sure that the overlay is the root and that no mount of the
// host is left, neither below "/" nor stacked on it.
func (s *setup) proveRoot() error {
	var is, want unix.Stat_t
	if err := errors.Join(unix.Stat("/", &is), unix.Fstat(s.root, &want)); err != nil {
		return err
	}
	if is.Dev != want.Dev || is.Ino != want.Ino {
		return errors.New("/ is not the image's root")
	}
	info, err := s.mountinfo()
	if err != nil {
		return err
	}
	return proveMounts(info, s.made)
}

// mountinfo lists the mounts that process 1 can reach.
func (s *setup) mountinfo() (string, error) {
	fd, err := unix.Openat(s.proc, "1/mountinfo", unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

// proveMounts wants in mountinfo the mounts that were made, one of them at "/",
// and no others but those that some of them show. Of these there are fewer when
// somebody removes, outside, the directory that one is at.
func proveMounts(mountinfo string, made map[uint64]bool) error {
	const idField, parentField, pointField = 0, 1, 4
	roots, parents := 0, map[uint64]uint64{}
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) <= pointField {
			return fmt.Errorf("a line of mountinfo has %d fields", len(f))
		}
		id, err := strconv.ParseUint(f[idField], 10, 64)
		parent, perr := strconv.ParseUint(f[parentField], 10, 64)
		if err = errors.Join(err, perr); err != nil {
			return err
		}
		parents[id] = parent
		if f[pointField] == "/" {
			roots++
		}
	}
	ours, others := 0, 0
	for id := range parents {
		if _, ok := made[id]; ok {
			ours++
		} else if !shown(id, parents, made) {
			others++
		}
	}
	if roots != 1 || ours != len(made) || others > 0 {
		return fmt.Errorf("%d mounts at /, %d of the %d that were made, %d others", roots, ours, len(made), others)
	}
	return nil
}

// shown says whether the first of a mount's ancestors that was made shows mounts
// of the host.
func shown(id uint64, parents map[uint64]uint64, made map[uint64]bool) bool {
	for range parents {
		id = parents[id]
		if shows, ok := made[id]; ok {
			return shows
		}
	}
	return false
}
