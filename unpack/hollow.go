package unpack

import (
	"golang.org/x/sys/unix"
)

// A directory is hollow if nothing but whiteouts led to it. Where the layer
// hides it as well it is not made: a whiteout is no content, and below what is
// hidden it says nothing more. In whichever order the two come, umoci makes
// none; containerd makes an empty one if the outer comes first.

// fill notes that something lies in a directory.
func (x *extractor) fill(path string) {
	if !x.hollow {
		return
	}
	for a := x.dirs[path]; a != nil && a.hollow; a = x.dirs[path] {
		a.hollow = false
		path = parentOf(path)
	}
}

// dropHollow removes the hollow directories that the layer hides.
func (x *extractor) dropHollow() error {
	if !x.hollow {
		return nil
	}
	dropped := pathSet{}
	for _, p := range x.hides.paths.sorted() {
		path := string(p)
		if a := x.dirs[path]; a == nil || !a.hollow || x.hides.deviceOnly(path) || dropped.above(path) {
			continue
		}
		dropped[path] = true
		delete(x.hides.devices, path) // in whose place it was
		dir, err := openBeneath(x.root, parentOf(path), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = removeTree(dir, baseOf(path))
		unix.Close(dir)
		if err != nil {
			return err
		}
	}
	if len(dropped) == 0 {
		return nil
	}
	x.cache.flush()
	for path := range x.dirs {
		if dropped[path] || dropped.above(path) {
			delete(x.dirs, path)
			delete(x.opaque, path)
		}
	}
	return nil
}
