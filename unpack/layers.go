package unpack

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// WriteLayers makes dir a directory of the layers of one or several images, one
// directory each, with all that overlay mounts take and the command for them:
//
//	layers/ALGO/HEX/fs   the layers, by diffID; chained and images beside it where needed
//	upper work merged    empty
//	mount.txt            the command that mounts the image at merged
//	l/N                  short names of the layers, topmost first, where the command needs them
//
// Of several images upper, work, merged and l are in directories 1, 2 and so on,
// in their order, and mount.txt has a line for each.
//
// dir must not exist or be an empty directory (otherwise a
// *manifests.ConflictError), and appears only when complete. What is wrong with
// one of several images is an *ImageError.
func WriteLayers(ctx context.Context, images []ImageFrom, dir string, o Options) (_ []Unpacked, err error) {
	out, err := o.output(dir)
	if err != nil {
		return nil, err
	}
	defer out.endWith(&err)
	tree := filepath.Join(out.dir, "tree")
	all, err := (&LayerStore{dir: tree, inner: true}).unpack(ctx, images, o)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"lock", "tmp"} {
		if err := os.Remove(filepath.Join(tree, name)); err != nil {
			return nil, err
		}
	}
	var lines strings.Builder
	for i := range all {
		sub := ""
		if len(all) > 1 {
			sub = strconv.Itoa(i + 1)
		}
		if err := all[i].mountable(tree, out.target, sub); err != nil {
			return nil, err
		}
		lines.WriteString(all[i].Mount + "\n")
	}
	if err := os.WriteFile(filepath.Join(tree, "mount.txt"), []byte(lines.String()), 0o644); err != nil {
		return nil, err
	}
	return all, out.commit(tree)
}

// mountable makes in sub of tree, which will be at target, what an image's mount
// takes.
func (u *Unpacked) mountable(tree, target, sub string) (err error) {
	at := filepath.Join(tree, sub)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := mountDirs(at, u.Rootfs); err != nil {
		return err
	}
	for i, lower := range u.Rootfs.Lower {
		rel, err := filepath.Rel(tree, lower)
		if err != nil {
			return err
		}
		u.Rootfs.Lower[i] = filepath.Join(target, rel)
	}
	u.Mount, err = mountLine(at, filepath.Join(target, sub), u.Rootfs)
	return err
}

// maxOptions is how long the options of one mount(2) may be: a page, less some
// for what mount(8) adds.
const maxOptions = 4000

// mountLine is the command for mount.txt, of a mount in tree, which will be at
// target. Where the layers' paths are longer together than the kernel takes, short
// relative names stand for them.
func mountLine(tree, target string, r *Rootfs) (string, error) {
	at := func(name string) string { return filepath.Join(target, name) }
	line := r.MountLine(at("upper"), at("work"), at("merged"))
	if len(line) <= maxOptions {
		return line, nil
	}
	if err := os.Mkdir(filepath.Join(tree, "l"), 0o755); err != nil {
		return "", err
	}
	near := &Rootfs{}
	for i, lower := range r.Lower {
		to, err := filepath.Rel(at("l"), lower)
		if err != nil {
			return "", err
		}
		name := filepath.Join("l", strconv.Itoa(i))
		if err := os.Symlink(to, filepath.Join(tree, name)); err != nil {
			return "", err
		}
		near.Lower = append(near.Lower, name)
	}
	return "cd " + shellQuote(target) + " && " + near.MountLine("upper", "work", "merged"), nil
}

// mountDirs makes the directories of a mount; the upper one lends the root of
// the mount its attributes.
func mountDirs(tree string, r *Rootfs) error {
	for _, name := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(tree, name), 0o755); err != nil {
			return err
		}
	}
	upper := filepath.Join(tree, "upper")
	if os.Geteuid() == 0 {
		if err := os.Chown(upper, int(r.UID), int(r.GID)); err != nil {
			return err
		}
	}
	return os.Chmod(upper, os.FileMode(r.Mode&0o777)|specialBits(r.Mode))
}

// specialBits are a mode's set-id and sticky bits as os has them.
func specialBits(mode uint32) (m os.FileMode) {
	for bit, as := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
		if mode&bit != 0 {
			m |= as
		}
	}
	return m
}
