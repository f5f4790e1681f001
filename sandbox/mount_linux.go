//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount attributes, short.
const (
	attrRO     = unix.MOUNT_ATTR_RDONLY
	attrNosuid = unix.MOUNT_ATTR_NOSUID
	attrNodev  = unix.MOUNT_ATTR_NODEV
	attrNoexec = unix.MOUNT_ATTR_NOEXEC
)

// option is one parameter of a filesystem: a flag when Value is empty.
type option struct{ key, value string }

// newMount makes a mount of a fresh filesystem that is attached nowhere yet.
// source is what mountinfo shows first.
func newMount(fstype string, attrs int, opts ...option) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open filesystem %s: %w", fstype, err)
	}
	defer unix.Close(fs)
	for _, o := range opts {
		if o.value == "" {
			err = unix.FsconfigSetFlag(fs, o.key)
		} else {
			err = unix.FsconfigSetString(fs, o.key, o.value)
		}
		if err != nil {
			return -1, fsError(fs, "set "+fstype+" option "+o.key, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fsError(fs, "create "+fstype, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fsError(fs, "mount "+fstype, err)
	}
	return fd, nil
}

// fsError adds what the kernel wrote to the filesystem context's log.
func fsError(fs int, doing string, err error) error {
	const maxLines = 8 // the kernel keeps no more
	buf := make([]byte, 1024)
	var lines []string
	for range maxLines {
		n, rerr := unix.Read(fs, buf)
		if rerr != nil || n <= 2 {
			break
		}
		lines = append(lines, strings.TrimSpace(string(buf[2:n])))
	}
	if len(lines) > 0 {
		return fmt.Errorf("%s: %w (%s)", doing, err, strings.Join(lines, "; "))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// attach moves a detached mount onto the file or directory at.
func attach(mount, at int) error {
	const flags = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	return unix.MoveMount(mount, "", at, "", flags)
}

// clone makes a detached bind mount of the file or directory at, without what
// is mounted below it.
func clone(at int) (int, error) {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH
	fd, err := unix.OpenTree(at, "", flags)
	if err != nil {
		return -1, fmt.Errorf("clone mount: %w", err)
	}
	return fd, nil
}

// setAttrs turns on attributes of the mount fd. Before Linux 5.12 that fails
// with ENOSYS.
func setAttrs(fd int, attrs uint64) error {
	err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attrs})
	if err != nil {
		return fmt.Errorf("set mount attributes: %w", err)
	}
	return nil
}

// remount does before Linux 5.12 what setAttrs does, to a mount that is
// attached. What it has stays.
func remount(fd int, attrs uint64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	const all = attrRO | attrNosuid | attrNodev | attrNoexec | unix.MS_NOATIME | unix.MS_NODIRATIME // statfs has the same bits
	flags := uintptr(st.Flags)&all | uintptr(attrs)
	if err := unix.Mount("", fdPath(fd), "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
		return fmt.Errorf("set mount attributes anew: %w", err)
	}
	return nil
}

// openIn opens a name below a directory that we made or that the kernel fills
// (proc, sysfs), refusing links of every kind. O_PATH.
func openIn(dir int, name string) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

func mode(fd int) (uint32, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Mode, err
}

// maxLower is the kernel's bound on lower directories of an overlay.
const maxLower = 500

// overlay describes an overlay mount by descriptors of its directories.
type overlay struct {
	lower       []int
	upper, work int
	dir         int    // holds the directory to attach the mount to
	name        string // of that directory
	kept        bool   // the upper directory is for later runs
	old         bool   // mount without userxattr, which came with Linux 5.11
}

// overlayOptions says how every overlay here is mounted. user.overlay.* marks work
// as root too, and every feature by which metadata of one layer could name
// content of another is off. When nothing of the upper directory outlives the
// run, syncing it is waste.
func (o *overlay) options() []option {
	opts := []option{
		{"source", "overlay"},
		{"redirect_dir", "nofollow"},
		{"metacopy", "off"},
		{"index", "off"},
		{"xino", "off"},
	}
	if !o.old {
		opts = append(opts, option{key: "userxattr"})
	}
	if !o.kept {
		opts = append(opts, option{key: "volatile"})
	}
	return opts
}

const overlayAttrs = attrNodev | attrNosuid

// mount attaches the overlay and returns a descriptor of its root. legacy is
// true when the kernel had no lowerdir+ and mount(2) was used.
func (o *overlay) mount() (root int, legacy bool, err error) {
	root, err = o.mountByDescriptor()
	if err == nil {
		return root, false, nil
	}
	// Before lowerdir+ (Linux 6.8) the unknown key is refused with EINVAL, at
	// once or when the mount is made. So are real faults; then mount(2) fails
	// as well and the first error tells more.
	if !errors.Is(err, unix.EINVAL) {
		return -1, false, err
	}
	root, lerr := o.mountByPath()
	if lerr != nil {
		return -1, true, errors.Join(err, lerr)
	}
	return root, true, nil
}

func (o *overlay) mountByDescriptor() (int, error) {
	opts := make([]option, 0, len(o.lower)+10)
	for _, fd := range o.lower {
		opts = append(opts, option{"lowerdir+", fdPath(fd)})
	}
	opts = append(opts, option{"upperdir", fdPath(o.upper)}, option{"workdir", fdPath(o.work)})
	root, err := newMount("overlay", overlayAttrs, append(opts, o.options()...)...)
	if err != nil {
		return -1, err
	}
	at, err := openIn(o.dir, o.name)
	if err == nil {
		err = attach(root, at)
		unix.Close(at)
	}
	if err != nil {
		unix.Close(root)
		return -1, fmt.Errorf("attach overlay: %w", err)
	}
	return root, nil
}

// mountByPath is for kernels before 6.8. The options of mount(2) are cut at a
// page; /proc/self/fd names are short enough for some two hundred layers.
func (o *overlay) mountByPath() (int, error) {
	var names []string
	for _, fd := range o.lower {
		names = append(names, fdPath(fd))
	}
	data := "lowerdir=" + strings.Join(names, ":") + ",upperdir=" + fdPath(o.upper) + ",workdir=" + fdPath(o.work)
	for _, opt := range o.options()[1:] { // mount(2) takes the source apart
		data += "," + opt.key
		if opt.value != "" {
			data += "=" + opt.value
		}
	}
	if len(data) >= unix.Getpagesize() {
		return -1, fmt.Errorf("%d layers are too many for this kernel, which needs Linux 6.8 for so many", len(o.lower))
	}
	const flags = unix.MS_NODEV | unix.MS_NOSUID
	if err := unix.Mount("overlay", fdPath(o.dir)+"/"+o.name, "overlay", flags, data); err != nil {
		return -1, fmt.Errorf("mount overlay: %w", err)
	}
	return openIn(o.dir, o.name)
}
