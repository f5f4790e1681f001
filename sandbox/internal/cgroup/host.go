//go:build linux

package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// need is one limit that was asked for.
type need struct {
	limit      string // in words
	controller string
}

func (l Limits) needs() []need {
	var out []need
	if l.Memory != 0 || l.MemorySwap != 0 {
		out = append(out, need{"memory", "memory"})
	}
	if l.CPUs != 0 {
		out = append(out, need{"processor time", "cpu"})
	}
	if l.CPUSet != "" {
		out = append(out, need{"the set of processors", "cpuset"})
	}
	if l.Pids != 0 {
		out = append(out, need{"the number of processes", "pids"})
	}
	return out
}

// host is where the caller is in the hierarchies of this host.
type host struct {
	v1 map[string]string // by controller: the caller's own directory
	v2 *v2Place
}

// v2Place is the caller's own directory in the hierarchy of version 2, and the
// top as far as the caller sees it.
type v2Place struct{ top, own string }

// place is a directory in which a group can be made.
type place struct {
	path string
	v2   bool
}

// maxProcFile bounds what is read of files of /proc: mountinfo has a line for
// each mount, and one of an overlay of many layers can have some 48 kB.
const maxProcFile = 64 << 20

func readHost() (*host, error) {
	mounts, err := readProc("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := readProc("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return parseHost(mounts, own), nil
}

func readProc(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxProcFile))
}

// parseHost reads mountinfo(5) and cgroups(7). Of hierarchies mounted several
// times the first counts.
func parseHost(mountinfo, cgroups []byte) *host {
	h := &host{v1: map[string]string{}}
	own := ownPaths(cgroups)
	lines := bufio.NewScanner(bytes.NewReader(mountinfo))
	lines.Buffer(nil, maxProcFile)
	for lines.Scan() {
		mount, fs, ok := strings.Cut(lines.Text(), " - ")
		m, f := strings.Fields(mount), strings.Fields(fs)
		if !ok || len(m) < 6 || len(f) < 3 {
			continue
		}
		root, point := unescape(m[3]), unescape(m[4])
		switch f[0] {
		case "cgroup2":
			if path, ok := own[""]; ok && h.v2 == nil {
				h.v2 = &v2Place{top: point, own: below(point, root, path)}
			}
		case "cgroup":
			for _, c := range strings.Split(f[2], ",") {
				if path, ok := own[c]; ok && h.v1[c] == "" {
					h.v1[c] = below(point, root, path)
				}
			}
		}
	}
	return h
}

// ownPaths is the caller's cgroup by controller; "" is version 2.
func ownPaths(cgroups []byte) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(string(cgroups)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for _, c := range strings.Split(parts[1], ",") {
			out[c] = parts[2]
		}
	}
	return out
}

// below is where the cgroup path shows in a mount of root at point. What the
// mount does not show is taken to be its top: so it is in containers that see
// the paths of the host and the mounts of their own.
func below(point, root, path string) string {
	rel, err := filepath.Rel(root, path)
	if err != nil || !filepath.IsLocal(rel) || strings.HasPrefix(path, "/..") || strings.HasPrefix(root, "/..") {
		return point
	}
	return filepath.Join(point, rel)
}

// unescape undoes what mountinfo does to blanks and backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// places says for each need where its group is to be.
func (h *host) places(needs []need) ([]place, error) {
	out := make([]place, len(needs))
	var second []need
	for i, n := range needs {
		if own, ok := h.v1[n.controller]; ok {
			out[i] = place{path: own}
		} else {
			second = append(second, n)
		}
	}
	if len(second) == 0 {
		return out, nil
	}
	p, err := h.placeV2(second)
	if err != nil {
		return nil, err
	}
	for i := range out {
		if out[i].path == "" {
			out[i] = place{path: p, v2: true}
		}
	}
	return out, nil
}

// placeV2 is the nearest directory above the caller's own whose groups can
// have the controllers. The caller's own will not do, since it has a process;
// only the very top may have both.
func (h *host) placeV2(needs []need) (string, error) {
	if h.v2 == nil {
		return "", &UnenforceableError{Limit: needs[0].limit, Reason: "no cgroup file system with it is mounted here",
			Remedy: "an administrator can mount one: mount -t cgroup2 none /sys/fs/cgroup"}
	}
	var last error
	dir := h.v2.own
	for {
		atTop := dir == h.v2.top
		if dir != h.v2.own || atTop {
			err := offer(dir, needs)
			if err == nil {
				return dir, nil
			}
			if last == nil || !isDenied(err) {
				last = err // that one may not write above is the least of the reasons
			}
		}
		if atTop {
			return "", last
		}
		dir = filepath.Dir(dir)
	}
}

// offer gets a directory of version 2 ready to have groups with controllers.
func offer(dir string, needs []need) error {
	has, err := words(dir, "cgroup.controllers")
	if err != nil {
		return denied(needs[0], place{dir, true}, err)
	}
	given, err := words(dir, "cgroup.subtree_control")
	if err != nil {
		return denied(needs[0], place{dir, true}, err)
	}
	for _, file := range []string{".", "cgroup.procs"} {
		if err := unix.Faccessat(unix.AT_FDCWD, filepath.Join(dir, file), unix.W_OK, unix.AT_EACCESS); err != nil {
			return denied(needs[0], place{dir, true}, err)
		}
	}
	for _, n := range needs {
		if slices.Contains(given, n.controller) {
			continue
		}
		if !slices.Contains(has, n.controller) {
			return &UnenforceableError{Limit: n.limit, Reason: "the " + n.controller + " controller is not available in " + named(dir),
				Remedy: "an administrator can delegate it (systemd: Delegate= of user@.service), or enable it in the kernel (cgroup_enable=" + n.controller + ")"}
		}
		if err := write(dir, "cgroup.subtree_control", "+"+n.controller); err != nil {
			return denied(n, place{dir, true}, err)
		}
	}
	return nil
}

// named is a directory without the random name of what was made here.
func named(dir string) string {
	if isScope(dir) {
		return "a scope in " + filepath.Dir(dir)
	}
	return dir
}

func isDenied(err error) bool {
	return isErrno(err, unix.EACCES, unix.EPERM, unix.EROFS)
}

func isErrno(err error, numbers ...syscall.Errno) bool {
	return slices.ContainsFunc(numbers, func(n syscall.Errno) bool { return errors.Is(err, n) })
}

// bare takes the path off an error: it has a random name in it, of what is
// removed again.
func bare(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// denied says why no group can be made in a place.
func denied(n need, p place, err error) error {
	e := &UnenforceableError{Limit: n.limit, Err: bare(err), Remedy: remedy(p.v2)}
	switch {
	case errors.Is(err, unix.EROFS):
		e.Reason, e.Remedy = "the cgroup file system is read-only", "inside a container, its engine must mount it for writing"
	case isDenied(err):
		e.Reason = "the caller may make no cgroup in " + p.path
	case errors.Is(err, unix.EBUSY):
		e.Reason = "there are processes in " + p.path + ", so its groups can have no limits"
	default:
		e.Reason = "no cgroup can be made in " + p.path
	}
	return e
}

func remedy(v2 bool) string {
	if v2 {
		return "as root, or in a cgroup that is delegated to you: systemd-run --user --scope -p Delegate=yes imgpack run …"
	}
	return "as root, or in a cgroup that root has given you: cgroups of version 1 are not delegated by systemd"
}

// maxFile bounds what is read of a cgroup's file; the longest are lists of
// processors and counters.
const maxFile = 64 << 10

func read(dir, file string) (string, error) {
	f, err := os.Open(filepath.Join(dir, file))
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(b), err
}

func words(dir, file string) ([]string, error) {
	s, err := read(dir, file)
	return strings.Fields(s), err
}

// counter is one of a file's lines of name and number.
func counter(dir, file, name string) (int64, error) {
	s, err := read(dir, file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(s) {
		if n, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseInt(strings.TrimSpace(n), 10, 64)
		}
	}
	return 0, nil // kernels before 4.13 do not count
}

// write writes a value in one call; the file must be there.
func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
