//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/early"
)

// mapIDs says which ids the user namespace has: the caller's own, as 0; those
// of a map; or every id the caller has, as itself. In the last case files keep
// their owners, and capabilities still reach no further than the sandbox.
func mapIDs(o *early.Options, p *plan) (err error) {
	if p.Remap {
		o.UIDs, o.GIDs, o.Setgroups = procMaps(p.UIDs), procMaps(p.GIDs), true
		return nil
	}
	if p.Single {
		o.UIDs = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		o.GIDs = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		return nil
	}
	o.Setgroups = true
	o.UIDs, o.GIDs, err = early.OwnIDs()
	return err
}

func procMaps(maps []IDMap) (out []syscall.SysProcIDMap) {
	for _, m := range maps {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(m.Inside), HostID: int(m.Outside), Size: int(m.Size)})
	}
	return out
}

// handOver gives process 1 the command's streams, and the mounts that it cannot make: what the caller alone
// may bind, and with an id map, by which it may neither search the way to the
// layers nor see them as they are, those too. It comes before the plan.
func (b *box) handOver() error {
	if err := b.raiseRlimits(); err != nil {
		return err
	}
	var std, layers []int
	for _, f := range b.io.child() {
		std = append(std, int(f.Fd()))
	}
	var err error
	if b.plan.Remap {
		if err := b.giveStreams(b.io); err != nil {
			return &StartError{Step: "give standard streams away", Code: CodeStart, Err: err}
		}
		layers, err = b.mappedMounts()
		defer closeFiles(layers)
		if err != nil {
			return err
		}
	}
	sources, err := b.bindSources()
	defer closeFiles(sources)
	if err != nil {
		return err
	}
	if err := b.ctl.sendFiles(slices.Concat(std, layers, sources)); err != nil {
		return &StartError{Step: "hand over layers", Code: CodeStart, Err: err}
	}
	return nil
}

func closeFiles(files []int) {
	for _, fd := range files {
		unix.Close(fd)
	}
}

// giveStreams lets the process's root give its own standard streams to another
// user, as scripts do that start services (chown app /dev/stdout): a pipe's owner
// is who made it, and root outside is nobody to it.
func (b *box) giveStreams(io *stdio) error {
	for _, f := range io.child() {
		if m, err := mode(int(f.Fd())); err != nil || m&unix.S_IFMT != unix.S_IFIFO {
			continue
		}
		if err := unix.Fchown(int(f.Fd()), rootOf(b.plan.UIDs), rootOf(b.plan.GIDs)); err != nil {
			return err
		}
	}
	return nil
}

// mappedMounts makes detached mounts: of the run's directory, if there is one,
// as it is, and of the layers, with process 1's ids.
func (b *box) mappedMounts() (files []int, err error) {
	fail := func(step string, err error) ([]int, error) {
		return files, &StartError{Step: step, Code: CodeStart, Err: err}
	}
	if dir := b.plan.RunDir; dir != "" {
		names := []string{"", "upper", "work"}
		if !b.plan.Fresh {
			names = names[:1]
		}
		for _, name := range names {
			if err := os.Chown(filepath.Join(dir, name), rootOf(b.plan.UIDs), rootOf(b.plan.GIDs)); err != nil {
				return fail("prepare state directory", err)
			}
		}
		fd, err := cloneOf(dir)
		if err != nil {
			return fail("prepare state directory", err)
		}
		files = append(files, fd)
	}
	ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", b.proc.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail("open user namespace", err)
	}
	defer unix.Close(ns)
	for _, dir := range b.plan.Lower {
		fd, err := cloneOf(dir)
		if err != nil {
			return fail("open "+dir, err)
		}
		files = append(files, fd)
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | attrRO | attrNosuid | attrNodev, Userns_fd: uint64(ns)}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr); err != nil {
			return files, &UnsupportedError{Feature: "mounts with an id map", Err: fmt.Errorf("%s: %w", dir, err), Hint: idmapHint}
		}
	}
	return files, nil
}

const idmapHint = "the layers must be on a filesystem that has them (ext4, xfs, btrfs, tmpfs), and an overlay over them takes Linux 5.19"

func cloneOf(dir string) (int, error) {
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	return clone(at)
}
