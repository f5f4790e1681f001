//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// setup is the state of process 1 while it builds the sandbox.
type setup struct {
	plan    *plan
	explain func(format string, args ...any)
	scratch int // a tmpfs of ours, in the old root until pivot_root
	root    int // the overlay
	dev     int
	pts     int  // the mount of devpts
	pty     *pty // the command's terminal; nil: none is wanted
	proc    int
	sys     int
	userns  int // where the number of user namespaces is limited, as long as commands may come; 0: nowhere
	user    identity

	late     map[int]uint64 // attributes that mounts have yet to get, by descriptor
	launched *int           // how many commands in user namespaces of their own; one for all setups
	given    []int          // mounts that the caller made, with Remap
	sources  []int          // of the Binds; from cloneSources on detached mounts

	begun bool     // with the first steps, before the plan was there
	fault error    // of the first steps
	said  []string // explained before anybody could be told
	fds   []int    // everything opened on the way, closed before the command starts

	// made are the mounts in the image's tree, or on their way there, by their
	// IDs; true are those that show mounts of the host.
	made map[uint64]bool
}

// keep notes a descriptor to be closed at the end of the set-up.
func (s *setup) keep(fd int, err error) (int, error) {
	if err == nil {
		s.fds = append(s.fds, fd)
	}
	return fd, err
}

func (s *setup) closeAll() {
	for _, fd := range s.fds {
		unix.Close(fd)
	}
	s.fds = nil
}

// attach puts a detached mount into the image's tree.
func (s *setup) attach(mount, at int) error {
	return errors.Join(s.attachLate(mount, at), s.note(mount, false))
}

// note has proveRoot know a mount.
func (s *setup) note(mount int, shows bool) error {
	var st unix.Statx_t
	if err := unix.Statx(mount, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return fmt.Errorf("identify mount: %w", err)
	}
	if s.made == nil {
		s.made = map[uint64]bool{}
	}
	s.made[st.Mnt_id] = shows
	return nil
}

// attachLate attaches a mount, and gives it what it could not have before.
func (s *setup) attachLate(mount, at int) error {
	err := attach(mount, at)
	if attrs, ok := s.late[mount]; ok && err == nil {
		delete(s.late, mount)
		return remount(mount, attrs)
	}
	return err
}

// clone makes a detached bind mount with attrs, which it gets once it is
// attached where the kernel can do no better.
func (s *setup) clone(from int, attrs uint64) (int, error) {
	fd, err := clone(from)
	if err != nil {
		return -1, err
	}
	if err := setAttrs(fd, attrs); errors.Is(err, unix.ENOSYS) {
		s.later(fd, attrs)
	} else if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (s *setup) later(fd int, attrs uint64) {
	if s.late == nil {
		s.late = map[int]uint64{}
	}
	s.late[fd] = attrs
}

// bind puts a clone of from, with attrs, into the image's tree.
func (s *setup) bind(from, at int, attrs uint64) error {
	fd, err := s.clone(from, attrs)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return s.attach(fd, at)
}

// image is the tree of the image.
func (s *setup) image() tree { return tree{root: s.root} }

// makePrivate cuts this mount namespace off from the one it was copied from.
func (s *setup) makePrivate() error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err != nil && s.plan.UserNS && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) {
		// A user namespace without capabilities in it: AppArmor's way to
		// forbid user namespaces.
		return &UnsupportedError{Feature: "user namespaces", Setting: usernsSetting(), Err: err, Hint: usernsHint}
	}
	return err
}

// mountScratch puts a tmpfs into the old root, with which it goes away. It is
// used by descriptor alone; the place is one that is everywhere and that nothing
// here looks into. One stacked on "/" would have to be unmounted for itself, and
// the kernel lets each unmount wait for all processors.
func (s *setup) mountScratch() error {
	fd, err := s.keep(newMount("tmpfs", attrNosuid|attrNodev, option{"mode", "0755"}, option{"source", "scratch"}))
	if err != nil {
		return err
	}
	s.scratch = fd
	at, err := unix.Open("/sys", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if err := attach(fd, at); err != nil {
		return err
	}
	for _, name := range []string{"root", "upper", "work", "etc", "mask", "mask/dir", "given", "proc", "sys", "dev"} {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			return err
		}
	}
	return unix.Mknodat(fd, "mask/file", unix.S_IFREG|0o444, 0)
}

// mountOverlay puts the image's tree together.
func (s *setup) mountOverlay() error {
	o := &overlay{dir: s.scratch, name: "root", kept: s.plan.Kept}
	runDir, err := s.openLayers(o)
	if err != nil {
		return err
	}
	if s.plan.RunDir != "" {
		err := s.mountOver(o, runDir)
		if s.plan.Kept {
			if err == nil {
				s.explain("root filesystem: overlay, %d below, changes are kept", len(o.lower))
				return nil
			}
			return s.overlayError(err)
		}
		if err == nil {
			s.explain("root filesystem: overlay, %d below, changes on disk until the end", len(o.lower))
			return nil
		}
		s.explain("degraded: changes are kept in memory, %s cannot hold them: %v", path.Dir(s.plan.RunDir), err)
	}
	if err := s.mountOver(o, s.scratch); err != nil {
		return s.overlayError(err)
	}
	s.explain("root filesystem: overlay, %d below, changes in memory until the end", len(o.lower))
	return nil
}

// openLayers opens the lower directories, and the run's own if there is one.
func (s *setup) openLayers(o *overlay) (runDir int, err error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	if s.plan.Remap {
		return s.openGiven(o)
	}
	for _, dir := range s.plan.Lower {
		fd, err := s.keep(unix.Open(dir, flags, 0))
		if err != nil {
			return -1, fmt.Errorf("open %s: %w", dir, err)
		}
		o.lower = append(o.lower, fd)
	}
	if s.plan.RunDir == "" {
		return -1, nil
	}
	return s.keep(unix.Open(s.plan.RunDir, flags|unix.O_NOFOLLOW, 0))
}

// openGiven attaches the mounts that the caller made: before Linux 6.15, an
// overlay takes none that are attached nowhere.
func (s *setup) openGiven(o *overlay) (runDir int, err error) {
	for i, fd := range s.given {
		name := fmt.Sprintf("given/%d", i)
		if err := unix.Mkdirat(s.scratch, name, 0o755); err != nil {
			return -1, err
		}
		at, err := openIn(s.scratch, name)
		if err != nil {
			return -1, err
		}
		err = attach(fd, at)
		unix.Close(at)
		if err != nil {
			return -1, fmt.Errorf("attach layer: %w", err)
		}
	}
	o.lower, runDir = s.given, -1
	if s.plan.RunDir != "" {
		o.lower, runDir = s.given[1:], s.given[0]
	}
	if len(o.lower) != len(s.plan.Lower) {
		return -1, fmt.Errorf("%d mounts were handed over for %d layers", len(o.lower), len(s.plan.Lower))
	}
	return runDir, nil
}

// mountOver mounts o over the upper directory in at.
func (s *setup) mountOver(o *overlay, at int) error {
	var err error
	if o.upper, err = s.keep(openIn(at, "upper")); err != nil {
		return err
	}
	if o.work, err = s.keep(openIn(at, "work")); err != nil {
		return err
	}
	if s.plan.Fresh || at == s.scratch {
		if err := s.likeTop(o); err != nil {
			return err
		}
	}
	root, legacy, err := o.mount()
	if errors.Is(err, unix.EINVAL) && !s.plan.UserNS && oldKernel() {
		if root, err = s.mountOld(o, err); err == nil {
			s.explain("degraded: this kernel's overlays have no userxattr; opaque directories of the layers are marked for root, too")
		}
	}
	if err != nil {
		return err
	}
	if legacy {
		s.explain("degraded: this kernel has no lowerdir+; overlay mounted the old way")
	}
	s.root, _ = s.keep(root, nil)
	return s.note(root, false)
}

// likeTop gives the upper directory the mode and owner of the topmost layer's
// root, since that is what the process will see at "/".
func (s *setup) likeTop(o *overlay) error {
	var st unix.Stat_t
	if err := unix.Fstat(o.lower[0], &st); err != nil {
		return err
	}
	upper := fdPath(o.upper)
	if err := unix.Chmod(upper, st.Mode&0o7777); err != nil {
		return fmt.Errorf("set mode of upper directory: %w", err)
	}
	if s.plan.Single {
		return nil
	}
	if err := unix.Chown(upper, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("set owner of upper directory: %w", err)
	}
	return nil
}

func (s *setup) overlayError(err error) error {
	switch {
	case errors.Is(err, unix.ENODEV):
		return &UnsupportedError{Feature: "overlayfs", Err: err, Hint: "load the overlay kernel module"}
	case errors.Is(err, unix.EINVAL) && s.plan.Remap:
		return &UnsupportedError{Feature: "overlayfs over mounts with an id map", Err: err, Hint: idmapHint}
	case errors.Is(err, unix.EPERM):
		return &UnsupportedError{Feature: "overlayfs in user namespaces", Err: err, Hint: "needs Linux 5.11, or root"}
	case errors.Is(err, unix.EACCES) && s.plan.Single:
		return &StartError{Step: "mount overlay", Code: CodeStart, Err: err, Hint: "the layers must be readable by you and every directory above them searchable"}
	}
	return err
}

// findUser resolves the image's user inside the image's tree.
func (s *setup) findUser() error {
	passwd, err := s.image().readFile("/etc/passwd")
	if err != nil {
		return err
	}
	group, err := s.image().readFile("/etc/group")
	if err != nil {
		return err
	}
	s.user, err = resolveUser(s.plan.User, passwd, group)
	return err
}

// mountEtc puts generated files over /etc/hosts, /etc/hostname and
// /etc/resolv.conf. Images may lack them, or have links there: those are
// followed inside the image, as the process itself would.
func (s *setup) mountEtc() error {
	host := s.plan.Hostname
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if host != "localhost" {
		hosts += "127.0.1.1\t" + host + "\n"
	}
	for _, h := range s.plan.Hosts {
		hosts += h.Addr + "\t" + h.Name + "\n"
	}
	attrs := uint64(attrNosuid | attrNodev | attrNoexec)
	if s.plan.ReadOnly {
		attrs |= attrRO
	}
	t, err := s.imageOnly()
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, content string }{
		{"hosts", hosts},
		{"hostname", host + "\n"},
		{"resolv.conf", string(s.plan.ResolvConf)},
	} {
		if s.plan.mountsAt("/etc/" + f.name) {
			continue
		}
		from, err := s.scratchFile("etc/"+f.name, f.content)
		if err != nil {
			return err
		}
		at, err := s.keep(t.open("/etc/"+f.name, wantFile))
		if errors.Is(err, unix.EROFS) || errors.Is(err, errClosed) {
			s.explain("degraded: no /etc/%s of ours: %v", f.name, err)
			continue
		}
		if err != nil {
			return err
		}
		if err := s.bind(from, at, attrs); err != nil {
			return fmt.Errorf("/etc/%s: %w", f.name, err)
		}
	}
	s.explain("/etc/hosts, /etc/hostname and /etc/resolv.conf are generated")
	return nil
}

// scratchFile writes a file on the scratch tmpfs and returns an O_PATH
// descriptor of it.
func (s *setup) scratchFile(name, content string) (int, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(s.scratch, name, flags, 0o644)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	for b := []byte(content); len(b) > 0; {
		n, err := unix.Write(fd, b)
		if err != nil {
			return -1, fmt.Errorf("write %s: %w", name, err)
		}
		b = b[n:]
	}
	return s.keep(openIn(s.scratch, name))
}

// makeCwd makes the working directory when the image has none, owned by the
// user it is for. Links are followed inside the image.
func (s *setup) makeCwd() error {
	t := s.image()
	t.made = func(fd int) error {
		if s.plan.Single {
			return nil // one id is mapped: everything belongs to it
		}
		return unix.Fchownat(fd, "", s.user.uid, s.user.gid, unix.AT_EMPTY_PATH)
	}
	_, err := s.keep(t.open(s.plan.Cwd, wantDir))
	return err
}

// sealRoot makes / read-only when asked.
func (s *setup) sealRoot() error {
	if !s.plan.ReadOnly {
		return nil
	}
	s.explain("root filesystem: read-only")
	err := setAttrs(s.root, attrRO)
	if errors.Is(err, unix.ENOSYS) {
		return remount(s.root, attrRO)
	}
	return err
}

// pivot makes the overlay the root and lets go of the old one.
func (s *setup) pivot() error {
	if err := unix.Fchdir(s.root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return &StartError{Step: "pivot_root", Code: CodeStart, Err: err, Hint: "the caller's own root must be a mount, not a chroot or an initramfs"}
		}
		return err
	}
	// Now stacked on top of ours: the old root, and in that the scratch.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := s.proveRoot(); err != nil {
		return err
	}
	s.explain("old root detached")
	return nil
}
