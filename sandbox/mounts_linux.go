//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds on Spec.Mounts: each costs some ten system calls, and so does each
// directory that leads to one; an image may name volumes without end.
const (
	maxMounts    = 256
	maxMountDirs = 8192 // of all of them
)

// attrsMount are those of every Mount.
const attrsMount = attrNosuid | attrNodev

// shmDir is the one place below /dev that a Mount may be at.
const shmDir = "/dev/shm"

// planMount is a Mount on its way to process 1.
type planMount struct {
	Mount
	Cloned bool // a Bind whose descriptor is a detached mount
}

// setMounts checks the mounts and puts them in order: what is mounted on what
// another one shows comes after that.
func (p *plan) setMounts(mounts []Mount) error {
	if len(mounts) > maxMounts {
		return fmt.Errorf("%d are more than %d", len(mounts), maxMounts)
	}
	seen, dirs := map[string]bool{}, 0
	for _, m := range mounts {
		if err := checkMount(&m); err != nil {
			return err
		}
		if dirs += strings.Count(m.Target, "/"); dirs > maxMountDirs {
			return fmt.Errorf("more than %d directories lead to them", maxMountDirs)
		}
		if seen[m.Target] {
			return fmt.Errorf("two mounts at %s", clip(m.Target))
		}
		seen[m.Target] = true
		p.Mounts = append(p.Mounts, planMount{Mount: m})
	}
	slices.SortStableFunc(p.Mounts, func(a, b planMount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
	return nil
}

func checkMount(m *Mount) error {
	if !path.IsAbs(m.Target) || strings.ContainsRune(m.Target, 0) {
		return fmt.Errorf("target %s is not an absolute path", clip(m.Target))
	}
	m.Target = path.Clean(m.Target)
	if kernelPath(m.Target) {
		return fmt.Errorf("%s cannot be mounted over", clip(m.Target))
	}
	switch m.Type {
	case Bind:
		if !path.IsAbs(m.Source) || strings.ContainsRune(m.Source, 0) {
			return fmt.Errorf("source %s is not an absolute path", clip(m.Source))
		}
	case Tmpfs:
		if m.Size < 0 || m.Inodes < 0 || m.Mode > 0o7777 || m.UID < 0 || m.GID < 0 {
			return fmt.Errorf("size, number of files, mode or owner of %s is out of range", clip(m.Target))
		}
	case Volume:
		if m.Target == shmDir {
			return fmt.Errorf("%s is no directory of the image", shmDir)
		}
	default:
		return fmt.Errorf("no type of mount %s", clip(string(m.Type)))
	}
	return nil
}

// kernelPath says whether a cleaned path is / or leads into what belongs to
// the kernel.
func kernelPath(target string) bool {
	if target == "/" {
		return true
	}
	top, _, _ := strings.Cut(target[1:], "/")
	return target != shmDir && (top == "proc" || top == "sys" || top == "dev")
}

// openSources opens what is to be bound. From here on it does not matter what
// happens to the paths.
func (b *box) openSources() error {
	for _, m := range b.plan.Mounts {
		if m.Type != Bind {
			continue
		}
		fd, err := unix.Open(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return &StartError{Step: "open " + clip(m.Source), Code: CodeStart, Err: err}
		}
		b.sources = append(b.sources, fd)
	}
	return nil
}

func (b *box) closeSources() {
	for _, fd := range b.sources {
		unix.Close(fd)
	}
	b.sources = nil
}

// bindSources gives descriptors of the sources for process 1. Who may mount in
// his own namespace makes the mounts here, of the very files that were opened.
// Others cannot: then process 1, whose namespace is a copy, has to find them.
func (b *box) bindSources() (files []int, err error) {
	next := 0
	for i := range b.plan.Mounts {
		m := &b.plan.Mounts[i]
		if m.Type != Bind {
			continue
		}
		source := b.sources[next]
		next++
		fd, err := m.clone(source)
		m.Cloned = err == nil
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
			fd, err = unix.FcntlInt(uintptr(source), unix.F_DUPFD_CLOEXEC, 0)
		}
		if err != nil {
			return files, &StartError{Step: "bind " + clip(m.Source), Code: CodeStart, Err: err}
		}
		files = append(files, fd)
	}
	return files, nil
}

// clone makes a detached mount of the source at, which takes part in nothing
// that is mounted later outside.
func (m *planMount) clone(at int) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if !m.NonRecursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(at, "", flags)
	if err != nil {
		return -1, fmt.Errorf("clone mount: %w", err)
	}
	attr := unix.MountAttr{Attr_set: m.attrs(), Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set mount attributes: %w", err)
	}
	return fd, nil
}

func (m *planMount) attrs() uint64 {
	attrs := uint64(attrsMount)
	if m.ReadOnly {
		attrs |= attrRO
	}
	return attrs
}

// mountMounts lays the mounts of the spec over the image's tree.
func (s *setup) mountMounts() error {
	if len(s.plan.Mounts) == 0 {
		return nil
	}
	t, err := s.imageOnly()
	if err != nil {
		return err
	}
	volumes, err := s.openVolumes(t)
	if err != nil {
		return err
	}
	for i := range s.plan.Mounts {
		m := &s.plan.Mounts[i]
		fd, err := s.makeMount(m, volumes[i])
		if err == nil {
			err = s.putMount(t, m, fd)
		}
		if err != nil {
			return s.mountFault(m, err)
		}
	}
	return nil
}

// imageOnly is the tree of the image without what belongs to the kernel.
func (s *setup) imageOnly() (tree, error) {
	t := s.image()
	for _, name := range []string{"/proc", "/sys", "/dev"} {
		fd, err := s.keep(t.open(name, wantExisting))
		if err != nil {
			return t, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return t, err
		}
		t.closed = append(t.closed, fileID{uint64(st.Dev), st.Ino})
	}
	return t, nil
}

// openVolumes makes mounts of the image's own directories, before anything is
// laid over them.
func (s *setup) openVolumes(t tree) (fds []int, err error) {
	fds = make([]int, len(s.plan.Mounts))
	for i := range s.plan.Mounts {
		m := &s.plan.Mounts[i]
		if m.Type != Volume {
			continue
		}
		at, err := s.keep(t.open(m.Target, wantDir))
		if err != nil {
			return nil, s.mountFault(m, err)
		}
		if fds[i], err = s.keep(s.clone(at, m.attrs())); err != nil {
			return nil, s.mountFault(m, err)
		}
	}
	return fds, nil
}

// makeMount makes a mount that is attached nowhere.
func (s *setup) makeMount(m *planMount, volume int) (int, error) {
	switch m.Type {
	case Volume:
		return volume, nil
	case Tmpfs:
		return s.keep(newMount("tmpfs", m.tmpfsAttrs(), m.tmpfsOptions()...))
	}
	source := s.sources[0]
	s.sources = s.sources[1:]
	return source, nil
}

// cloneSources makes the mounts of sources that the caller could not make. It
// comes before anything of ours is mounted, which a source may have in it.
func (s *setup) cloneSources() error {
	if len(s.sources) != s.plan.binds() {
		return fmt.Errorf("%d sources were handed over for %d mounts", len(s.sources), s.plan.binds())
	}
	next := 0
	for i := range s.plan.Mounts {
		m := &s.plan.Mounts[i]
		if m.Type != Bind {
			continue
		}
		source := &s.sources[next]
		next++
		if m.Cloned {
			continue
		}
		at, err := s.keep(reach(*source))
		if err != nil {
			return s.mountFault(m, err)
		}
		if *source, err = s.keep(m.clone(at)); errors.Is(err, unix.ENOSYS) {
			s.explain("degraded: what is mounted below %s of the host is left out; that takes Linux 5.12", clip(m.Source))
			*source, err = s.keep(s.clone(at, m.attrs()))
		}
		if err != nil {
			return s.mountFault(m, err)
		}
	}
	return nil
}

func (m *planMount) tmpfsAttrs() int {
	attrs := int(m.attrs())
	if !m.Exec {
		attrs |= attrNoexec
	}
	return attrs
}

func (m *planMount) tmpfsOptions() []option {
	mode := m.Mode
	if mode == 0 {
		mode = 0o1777
	}
	opts := []option{{"source", "tmpfs"}, {"mode", strconv.FormatUint(uint64(mode), 8)}}
	for _, o := range []struct {
		key string
		n   int64
	}{{"size", m.Size}, {"nr_inodes", m.Inodes}, {"uid", int64(m.UID)}, {"gid", int64(m.GID)}} {
		if o.n != 0 {
			opts = append(opts, option{o.key, strconv.FormatInt(o.n, 10)})
		}
	}
	return opts
}

// reach finds in this mount namespace the file that fd names in the caller's.
// Who moves it about, or puts something else where it was, gains nothing: it
// is that file, or none.
func reach(fd int) (int, error) {
	const tries = 100 // of which a rename in between costs one
	var want, st unix.Stat_t
	if err := unix.Fstat(fd, &want); err != nil {
		return -1, err
	}
	buf := make([]byte, unix.PathMax)
	var last error
	for range tries {
		n, err := unix.Readlink(fdPath(fd), buf)
		if err != nil {
			return -1, err
		}
		at, err := unix.Openat2(unix.AT_FDCWD, string(buf[:n]), &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_NO_SYMLINKS,
		})
		if err != nil {
			last = err
			continue
		}
		if err = unix.Fstat(at, &st); err == nil && st.Dev == want.Dev && st.Ino == want.Ino {
			return at, nil
		}
		unix.Close(at)
		last = errors.New("another file is in its place")
	}
	return -1, fmt.Errorf("find it again: %w", last)
}

// putMount attaches a mount at its target, which is made when missing.
func (s *setup) putMount(t tree, m *planMount, fd int) error {
	var at int
	var err error
	if m.Target == shmDir {
		at, err = s.keep(openIn(s.dev, "shm"))
	} else {
		var perm uint32
		if perm, err = mode(fd); err != nil {
			return err
		}
		w := wantFile
		if perm&unix.S_IFMT == unix.S_IFDIR {
			w = wantDir
		}
		at, err = s.keep(t.open(m.Target, w))
	}
	if err != nil {
		return err
	}
	var is, root unix.Stat_t
	if err := errors.Join(unix.Fstat(at, &is), unix.Fstat(s.root, &root)); err != nil {
		return err
	}
	if is.Dev == root.Dev && is.Ino == root.Ino {
		return errors.New("leads to / by links of the image")
	}
	if err := s.attachLate(fd, at); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if err := s.note(fd, m.Type == Bind); err != nil {
		return err
	}
	s.explainMount(m)
	return nil
}

func (s *setup) explainMount(m *planMount) {
	what, how := "the image's own directory, writable", ""
	switch m.Type {
	case Bind:
		what = clip(m.Source) + " of the host"
	case Tmpfs:
		what = "memory"
	}
	if m.ReadOnly {
		how = ", read-only"
	}
	s.explain("mount: %s is %s%s", clip(m.Target), what, how)
}

func (s *setup) mountFault(m *planMount, err error) error {
	e := &StartError{Step: "mount " + clip(m.Target), Code: CodeStart, Err: err}
	switch {
	case m.Type == Bind && m.NonRecursive && !m.Cloned && errors.Is(err, unix.EINVAL):
		e.Hint = "the source has mounts below it, which an ordinary user can only take along"
	case m.Type == Bind && errors.Is(err, unix.ENOTDIR):
		e.Hint = "a directory is mounted on a directory, a file on a file"
	case m.Type == Bind && errors.Is(err, unix.EISDIR):
		e.Hint = "the source is a file and the target a directory"
	case errors.Is(err, unix.EROFS):
		e.Hint = "the target does not exist, and the mount it is in is read-only"
	case m.Type == Tmpfs && m.UID+m.GID > 0 && errors.Is(err, unix.EINVAL):
		e.Hint = "the sandbox may lack the ids of its owner"
	}
	return e
}

// binds is how many descriptors come for the mounts.
func (p *plan) binds() (n int) {
	for _, m := range p.Mounts {
		if m.Type == Bind {
			n++
		}
	}
	return n
}

func (p *plan) has(kind MountType) bool {
	return slices.ContainsFunc(p.Mounts, func(m planMount) bool { return m.Type == kind })
}

func (p *plan) mountsAt(target string) bool {
	return slices.ContainsFunc(p.Mounts, func(m planMount) bool { return m.Target == target })
}
