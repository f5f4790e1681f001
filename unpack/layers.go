package unpack

import (
	"context"
	"os"
	"path/filepath"

	"github.com/imgpack/imgpack/manifests"
)

// WriteLayers makes dir a directory of an image's layers, one directory each,
// with all that an overlay mount takes and the command for it:
//
//	layers/ALGO/HEX/fs   the layers, by diffID; chained and images beside it where needed
//	upper work merged    empty
//	mount.txt            the command that mounts the image at merged
//
// dir must not exist or be an empty directory (otherwise a
// *manifests.ConflictError), and appears only when complete.
func WriteLayers(ctx context.Context, src manifests.Fetcher, img *manifests.Image, dir string, o Options) (_ *Rootfs, _ *Result, err error) {
	out, err := createOutput(dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if eerr := out.end(); err == nil {
			err = eerr
		}
	}()
	tree := filepath.Join(out.dir, "tree")
	store := NewLayerStore(tree)
	r, res, err := store.unpack(ctx, src, img, o)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range []string{"lock", "tmp"} {
		if err := os.Remove(filepath.Join(tree, name)); err != nil {
			return nil, nil, err
		}
	}
	if err := mountDirs(tree, r); err != nil {
		return nil, nil, err
	}
	for i, lower := range r.Lower {
		rel, err := filepath.Rel(tree, lower)
		if err != nil {
			return nil, nil, err
		}
		r.Lower[i] = filepath.Join(out.target, rel)
	}
	at := func(name string) string { return filepath.Join(out.target, name) }
	line := r.MountLine(at("upper"), at("work"), at("merged"))
	if err := os.WriteFile(filepath.Join(tree, "mount.txt"), []byte(line+"\n"), 0o644); err != nil {
		return nil, nil, err
	}
	return r, res, out.commit(tree)
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
