package unpack

import (
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// finish makes what had to wait for the whole layer, and completes meta.
func (x *extractor) finish() error {
	if err := x.lateLinks(); err != nil {
		return err
	}
	if err := x.settle(); err != nil {
		return err
	}
	if x.marks {
		if err := x.writeMarks(); err != nil {
			return err
		}
		if err := applyDirs(x.root, x.dirs, x.dirAttrs); err != nil {
			return err
		}
	}
	implied := pathSet{}
	for path, a := range x.dirs {
		if a.implied {
			implied[path] = true
			delete(x.led, path)
		}
	}
	x.meta.Led = x.led.sorted()
	x.meta.Implied, x.meta.Opaque = implied.sorted(), x.opaque.sorted()
	x.meta.setDevices(x.hides.devices)
	x.meta.Whiteouts = x.hides.paths.sorted()
	return nil
}

// settle brings whiteouts, opaque directories and what the layer made into
// their final relation.
func (x *extractor) settle() error {
	for path := range x.dirs {
		if !x.removed {
			break
		}
		n, err := lookBeneath(x.root, path)
		if err != nil {
			return err
		}
		if n.kind != directory { // replaced later on
			delete(x.dirs, path)
			delete(x.opaque, path)
		}
	}
	if err := x.dropOwners(); err != nil {
		return err
	}
	x.dropLost()
	if err := x.dropHollow(); err != nil {
		return err
	}
	for path := range x.hides.paths {
		if a, ok := x.dirs[path]; ok { // hidden below and made anew
			x.opaque[path] = true
			a.implied = false
		}
	}
	for path := range x.led {
		if x.hides.paths[path] && !x.hides.deviceOnly(path) || x.hides.paths.above(path) {
			delete(x.led, path)
		}
	}
	for path := range x.hides.paths {
		n, err := lookBeneath(x.root, path)
		if err != nil {
			return err
		}
		if n.kind != absent || x.dirs[parentOf(path)] == nil || x.opaque[parentOf(path)] || x.opaque.above(path) {
			delete(x.hides.paths, path)
		}
		if n.kind != absent {
			delete(x.hides.devices, path)
		}
	}
	return nil
}

// dropOwners removes the owners of what was replaced later on.
func (x *extractor) dropOwners() error {
	if !x.removed {
		return nil
	}
	for path := range x.meta.Owners {
		n, err := lookBeneath(x.root, string(path))
		if err != nil {
			return err
		}
		if n.kind == absent {
			delete(x.meta.Owners, path)
		}
	}
	return nil
}

// dropLost does the same for attributes.
func (x *extractor) dropLost() {
	var last lostXattr
	gone := false
	x.meta.Lost = slices.DeleteFunc(x.meta.Lost, func(l lostXattr) bool {
		if l.entry != last.entry || l.Path != last.Path { // an entry may have lost many
			last, gone = l, x.replaced(string(l.Path), l.entry)
		}
		return gone
	})
}

// replaced tells whether an entry was, or a directory it lay in.
func (x *extractor) replaced(path string, entry int) bool {
	for x.cleared[path] <= entry {
		if path == "." {
			return false
		}
		path = parentOf(path)
	}
	return true
}

// writeMarks writes whiteouts and opaque marks as overlay file systems know
// them.
func (x *extractor) writeMarks() error {
	for _, path := range x.hides.paths.sorted() {
		d, err := x.parent(parentOf(string(path)))
		if err != nil {
			return err
		}
		if err := unix.Mknodat(d.fd, baseOf(string(path)), unix.S_IFCHR, 0); err != nil {
			return fmt.Errorf("make whiteout: %w", noMarks(err))
		}
	}
	for _, path := range x.opaque.sorted() {
		fd, err := openBeneath(x.root, string(path), unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Fsetxattr(fd, "user.overlay.opaque", []byte("y"), 0)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("mark directory opaque: %w", noMarks(err))
		}
	}
	return nil
}

// applyDirs gives directories their attributes, those inside before those
// around them, because the latter may close the way.
func applyDirs(root int, dirs map[string]*attrs, apply func(fd int, path string, a *attrs) error) error {
	paths := slices.Sorted(maps.Keys(dirs))
	slices.Reverse(paths)
	top := slices.Index(paths, ".") // sorts amid the others
	paths = append(slices.Delete(paths, top, top+1), ".")
	for _, path := range paths {
		fd, err := openBeneath(root, path, unix.O_RDONLY|unix.O_DIRECTORY)
		if gone(err) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		err = apply(fd, path, dirs[path])
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}
