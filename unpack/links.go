package unpack

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
)

// linkTry says which try a hard link is in.
type linkTry struct {
	again bool // the whole layer is there by now
	last  bool // nothing more will come
	taken bool // a later entry has the name: only look whether the target is there
}

// link makes a hard link. Where the layer has no such file yet, it is one of
// the layers below; failing that, and where those are not known, one that
// comes later.
func (x *extractor) link(d *cachedDir, e *layertar.Entry, try linkTry) error {
	target, missing, err := x.follow(parentOf(e.Linkname))
	if err != nil {
		return err
	}
	path, to := join(d.path, e.Base), join(target, baseOf(e.Linkname))
	if !missing {
		n, err := lookBeneath(x.root, to)
		if err != nil {
			return err
		}
		if n.kind == directory {
			return &layertar.Error{Kind: layertar.Malformed, Entry: e.Name, Err: errors.New("a hard link to a directory")}
		}
		if n.kind != absent && try.taken {
			return nil
		}
		if n.kind != absent {
			if err := x.recordOwner(path, x.meta.Owners[rawPath(to)]); err != nil {
				return err
			}
			return x.linkHere(d, e, path, to)
		}
	}
	below := node{}
	n, device := x.hides.devices[to]
	if x.lower != nil && !device { // which hides what is below
		if below, err = x.lower.look(to); err != nil {
			return err
		}
	}
	switch {
	case try.taken && (below.kind == symlink || below.kind == other || device):
		return nil
	case below.kind == symlink || below.kind == other:
		if err := x.recordOwner(path, x.lower.owner(to)); err != nil {
			return err
		}
		return x.replacing(d, e.Base, func() error { return x.lower.link(to, d.fd, e.Base) })
	}
	if !device && x.lower != nil {
		n, device = x.lower.device(to)
	}
	if !device {
		return x.later(e, try)
	}
	x.meta.skip(layertar.NoteDevice, e.Name, "a hard link to a device")
	return x.device(d, e.Base, n)
}

// later keeps a hard link for another try, or gives up on it.
func (x *extractor) later(e *layertar.Entry, try linkTry) error {
	x.meta.NeedsLower = true
	if !try.last {
		e.Xattrs, e.Notes = nil, nil // those are of the file
		x.pending = append(x.pending, e)
		if !try.again {
			return x.budget.remember(e.Name + e.Linkname)
		}
	} else if x.meta.Fault == nil {
		x.meta.Fault = &layerFault{Path: rawPath(e.Name), Target: rawPath(e.Linkname)}
	}
	return nil
}

func (x *extractor) linkHere(d *cachedDir, e *layertar.Entry, path, to string) error {
	if path == to {
		return nil
	}
	if strings.HasPrefix(to, path+"/") {
		return errIntoReplaced(e.Name)
	}
	from, err := openBeneath(x.root, parentOf(to), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	base := baseOf(to)
	call := func() error { return unix.Linkat(from, base, d.fd, e.Base, 0) }
	if err = call(); err != unix.EEXIST {
		return err
	}
	a, err := lstatAt(from, base)
	if err != nil {
		return err
	}
	if b, err := lstatAt(d.fd, e.Base); err != nil || a.Ino == b.Ino && a.Dev == b.Dev {
		return err
	}
	return x.replacing(d, e.Base, call)
}

func errIntoReplaced(name string) error {
	return &layertar.Error{Kind: layertar.Malformed, Entry: name, Err: errors.New("a hard link into what it replaces")}
}

// maxRounds bounds the time spent on links to links to links in the wrong
// order, which no builder writes.
const maxRounds = 8

// lateLinks makes the hard links that came before their targets; links to
// links may take several rounds.
func (x *extractor) lateLinks() error {
	last := false
	for round := 1; len(x.pending) > 0; round++ {
		todo := x.pending
		x.pending = nil
		for _, e := range todo {
			if x.meta.Fault != nil {
				return nil
			}
			if err := x.lateLink(e, last); err != nil {
				return atEntry(e, err)
			}
		}
		last = len(x.pending) == len(todo) || round >= maxRounds
	}
	return nil
}

func (x *extractor) lateLink(e *layertar.Entry, last bool) error {
	d, err := x.place(e)
	if err == nil {
		x.fill(d.path)
		_, gone := lstatAt(d.fd, e.Base)
		err = x.link(d, e, linkTry{again: true, last: last, taken: gone == nil})
	}
	if x.lower == nil && malformed(err) { // what came later stands in the way
		return x.meta.excuse(e.Name, err)
	}
	return err
}
