//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

const attrsKernel = attrNosuid | attrNodev | attrNoexec

// maskedPaths shows as empty what tells about the host or acts on it. docker's
// list. Paths that this kernel lacks are skipped.
var maskedProc = []string{
	"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "timer_list",
	"timer_stats", "sched_debug", "scsi",
}

var maskedSys = []string{"firmware", "devices/virtual/powercap"}

// readonlyProc holds the switches of /proc that act on the whole host.
var readonlyProc = []string{"bus", "fs", "irq", "sys", "sysrq-trigger"}

// mountPoint opens a top-level directory of the image to mount on, making it
// when missing. A link there is refused: nothing sound has one, and later
// code could take the link for the mount.
func (s *setup) mountPoint(name string) (int, error) {
	return s.keep(tree{root: s.root, strict: true}.open(name, wantDir))
}

// stage attaches a mount to a directory of the scratch, where others can be laid
// over what is in it, and from where place moves it.
func (s *setup) stage(name string, mount int) error {
	at, err := openIn(s.scratch, name)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return s.attach(mount, at)
}

// place gives the image's tree a mount that is in the scratch, with all on it.
func (s *setup) place(name string, mount int) error {
	at, err := s.mountPoint(name)
	if err != nil {
		return err
	}
	return attach(mount, at)
}

func (s *setup) placeProc() error { return s.place("/proc", s.proc) }
func (s *setup) placeSys() error  { return s.place("/sys", s.sys) }
func (s *setup) placeDev() error  { return s.place("/dev", s.dev) }

func (s *setup) makeProc() error {
	fd, err := s.keep(newMount("proc", attrsKernel, option{"source", "proc"}))
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			return &UnsupportedError{Feature: "a fresh /proc in a user namespace", Err: err,
				Hint: "the caller's own /proc is partly covered, as in a container; run on the host or uncover it"}
		}
		return err
	}
	s.proc = fd
	if err := s.stage("proc", fd); err != nil {
		return err
	}
	if s.plan.UserNS { // soon to be read-only
		s.userns, err = unix.Openat(fd, "sys/user/max_user_namespaces", unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("forbid user namespaces: %w", err)
		}
	}
	for _, name := range readonlyProc {
		if err := s.coverReadOnly(fd, name); err != nil {
			return fmt.Errorf("/proc/%s: %w", name, err)
		}
	}
	if err := s.mask(fd, maskedProc); err != nil {
		return err
	}
	s.explain("/proc: own processes only; %d paths masked, %d read-only", len(maskedProc), len(readonlyProc))
	return nil
}

// forbidUserNamespaces keeps the command from making user namespaces, in which
// it would have every capability over namespaces of its own: most of the ways
// into the kernel start there. The limit is our user namespace's own, and what
// the command could make below counts against it.
func (s *setup) forbidUserNamespaces() error {
	if !s.plan.UserNS {
		if s.plan.Filter == nil || s.plan.OwnFilter {
			s.explain("degraded: the command may make user namespaces of its own")
		}
		return nil
	}
	if err := s.limitUserNamespaces(0); err != nil {
		return err
	}
	s.explain("user namespaces: the command can make none")
	return nil
}

// limitUserNamespaces says how many there may be. Those that there are stay.
func (s *setup) limitUserNamespaces(n int) error {
	if _, err := unix.Pwrite(s.userns, []byte(strconv.Itoa(n)), 0); err != nil {
		return fmt.Errorf("forbid user namespaces: %w", err)
	}
	return nil
}

// coverReadOnly mounts dir/name over itself, read-only.
func (s *setup) coverReadOnly(dir int, name string) error {
	at, err := openIn(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return s.bind(at, at, attrsKernel|attrRO)
}

// mask covers paths below dir with an empty file or directory of our scratch.
func (s *setup) mask(dir int, names []string) error {
	for _, name := range names {
		at, err := openIn(dir, name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		err = s.maskOne(at)
		unix.Close(at)
		if err != nil {
			return fmt.Errorf("mask %s: %w", name, err)
		}
	}
	return nil
}

func (s *setup) maskOne(at int) error {
	m, err := mode(at)
	if err != nil {
		return err
	}
	empty := "mask/file"
	if m&unix.S_IFMT == unix.S_IFDIR {
		empty = "mask/dir"
	}
	from, err := openIn(s.scratch, empty)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return s.bind(from, at, attrsKernel|attrRO)
}

func (s *setup) makeSys() error {
	fd, err := s.keep(newMount("sysfs", attrsKernel|attrRO, option{"source", "sysfs"}))
	if errors.Is(err, unix.EPERM) && s.plan.UserNS {
		// Refused when the network namespace is not ours, or when the caller's
		// /sys is partly covered. An empty directory is the safe reading.
		s.explain("degraded: /sys is empty, this kernel refuses a fresh one here")
		from, err := s.keep(openIn(s.scratch, "mask/dir"))
		if err != nil {
			return err
		}
		if s.sys, err = s.keep(s.clone(from, attrsKernel|attrRO)); err != nil {
			return err
		}
		return s.stage("sys", s.sys)
	}
	if err != nil {
		return err
	}
	s.sys = fd
	if err := s.stage("sys", fd); err != nil {
		return err
	}
	if err := s.mask(fd, maskedSys); err != nil {
		return err
	}
	s.explain("/sys: read-only")
	return nil
}

// devices are the host's nodes that the process gets.
var devices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

var devLinks = []struct{ name, to string }{
	{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},
}

func (s *setup) makeDev() error {
	fd, err := s.keep(newMount("tmpfs", attrsKernel,
		option{"mode", "0755"}, option{"size", "64k"}, option{"source", "tmpfs"}))
	if err != nil {
		return err
	}
	s.dev = fd
	if err := s.stage("dev", fd); err != nil {
		return err
	}
	for _, d := range devices {
		if err := s.bindDevice(d.name, unix.Mkdev(d.major, d.minor)); err != nil {
			return fmt.Errorf("/dev/%s: %w", d.name, err)
		}
	}
	for _, l := range devLinks {
		if err := unix.Symlinkat(l.to, fd, l.name); err != nil {
			return err
		}
	}
	if err := s.mountDevDirs(); err != nil {
		return err
	}
	s.explain("/dev: %d devices, terminals and shared memory of its own", len(devices))
	return nil
}

// bindDevice binds a device node of the host, read-only: that still lets the
// device be written to, and keeps the process from changing the host's node.
func (s *setup) bindDevice(name string, dev uint64) error {
	from, err := unix.Open("/dev/"+name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || uint64(st.Rdev) != dev {
		return fmt.Errorf("the caller's is not device %d:%d", unix.Major(dev), unix.Minor(dev))
	}
	if err := unix.Mknodat(s.dev, name, unix.S_IFREG|0o666, 0); err != nil {
		return err
	}
	at, err := openIn(s.dev, name)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return s.bind(from, at, attrNosuid|attrNoexec|attrRO)
}

func (s *setup) mountDevDirs() (err error) {
	if s.pts, err = s.newDevpts(); err != nil {
		return fmt.Errorf("/dev/pts: %w", err)
	}
	if err := s.attachDev("pts", s.pts); err != nil {
		return err
	}
	for _, m := range []struct {
		name, fstype string
		attrs        int
		opts         []option
	}{
		{"shm", "tmpfs", attrsKernel, []option{{"mode", "1777"}, {"size", "64m"}, {"source", "shm"}}},
		{"mqueue", "mqueue", attrsKernel, []option{{"source", "mqueue"}}},
	} {
		fd, err := s.keep(newMount(m.fstype, m.attrs, m.opts...))
		if err != nil {
			return fmt.Errorf("/dev/%s: %w", m.name, err)
		}
		if err := s.attachDev(m.name, fd); err != nil {
			return err
		}
	}
	return nil
}

// newDevpts has terminals belong to the group tty, if there is one.
func (s *setup) newDevpts() (int, error) {
	opts := []option{{key: "newinstance"}, {"ptmxmode", "0666"}, {"mode", "0620"}, {"source", "devpts"}}
	const attrs = attrNosuid | attrNoexec
	if !s.plan.Single {
		tty := option{"gid", "5"} // in every distribution
		fd, err := s.keep(newMount("devpts", attrs, append(opts, tty)...))
		if !errors.Is(err, unix.EINVAL) {
			return fd, err // otherwise it is not mapped
		}
	}
	return s.keep(newMount("devpts", attrs, opts...))
}

// attachDev puts a mount at a new directory of /dev.
func (s *setup) attachDev(name string, mount int) error {
	if err := unix.Mkdirat(s.dev, name, 0o755); err != nil {
		return err
	}
	at, err := s.keep(openIn(s.dev, name))
	if err == nil {
		err = s.attach(mount, at)
	}
	if err != nil {
		return fmt.Errorf("/dev/%s: %w", name, err)
	}
	return nil
}
