package unpack

import (
	"maps"
	"slices"

	"github.com/imgpack/imgpack/manifests"
)

// Aspect is something in which two files can differ. The words are stable.
type Aspect string

// The aspects, in the order in which Change has them.
const (
	AspectKind    Aspect = "kind" // the others are then not looked at
	AspectSize    Aspect = "size"
	AspectContent Aspect = "content"
	AspectTarget  Aspect = "target" // of a symlink
	AspectDevice  Aspect = "device" // its numbers, and whether it is a block device
	AspectMode    Aspect = "mode"   // of symlinks there is none
	AspectOwner   Aspect = "owner"
	AspectXattrs  Aspect = "xattrs"
	AspectMtime   Aspect = "mtime"
)

// Aspects are all of them.
var Aspects = []Aspect{AspectKind, AspectSize, AspectContent, AspectTarget, AspectDevice, AspectMode, AspectOwner, AspectXattrs, AspectMtime}

// Change is a path at which two trees differ.
type Change struct {
	From *Node    // nil: it was added
	To   *Node    // nil: it was deleted
	What []Aspect // in which both differ; nil where one of them is missing
}

// Letter is what docker diff calls the change: A, C or D.
func (c Change) Letter() string {
	switch {
	case c.From == nil:
		return "A"
	case c.To == nil:
		return "D"
	}
	return "C"
}

// Path is where the change is.
func (c Change) Path() string {
	if c.To == nil {
		return c.From.Path
	}
	return c.To.Path
}

// DiffOptions for Diff. The zero value works.
type DiffOptions struct {
	Paths  []string // patterns as in TarOptions; one that matches nothing is no error
	Ignore []Aspect
}

// Diff returns what is different in b, directories before what is in them,
// names in byte order. Of a directory that is only in one of them, everything
// in it is listed. Which names are hard links to one another is not looked at.
//
// Both trees must have been read with TreeOptions.Digests: without them files
// of one size are taken to be the same. A pattern that does not parse is a
// *manifests.InputError.
func Diff(a, b *Tree, o DiffOptions) ([]Change, error) {
	globs, err := parseGlobs(o.Paths)
	if err != nil {
		return nil, err
	}
	for _, ignored := range o.Ignore {
		if !slices.Contains(Aspects, ignored) {
			return nil, &manifests.InputError{What: "aspect", Input: string(ignored), Why: "there is no such"}
		}
	}
	d := &differ{take: anyGlob(globs), ignore: o.Ignore}
	d.both(".", a.root, b.root)
	return d.changes, nil
}

type differ struct {
	take    func(path string) bool
	ignore  []Aspect
	changes []Change
}

// both compares what lies at a path, either of which may be nil.
func (d *differ) both(path string, a, b *inode) {
	if (a == nil || b == nil || a.rec == nil || a.rec != b.rec) && d.take(path) {
		d.compare(path, a, b)
	}
	names := map[string]bool{}
	for _, n := range []*inode{a, b} {
		if n != nil {
			for name := range n.children {
				names[name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		d.both(join(path, name), a.child(name), b.child(name))
	}
}

func (n *inode) child(name string) *inode {
	if n == nil {
		return nil
	}
	return n.children[name]
}

func (d *differ) compare(path string, a, b *inode) {
	var c Change
	if a != nil {
		c.From = a.node(path)
	}
	if b != nil {
		c.To = b.node(path)
	}
	if a != nil && b != nil {
		for _, what := range differing(c.From, c.To) {
			if !slices.Contains(d.ignore, what) {
				c.What = append(c.What, what)
			}
		}
		if c.What == nil {
			return
		}
	}
	d.changes = append(d.changes, c)
}

// differing says in what two nodes differ.
func differing(a, b *Node) (what []Aspect) {
	if a.Kind != b.Kind {
		return []Aspect{AspectKind}
	}
	for _, it := range []struct {
		aspect Aspect
		same   bool
	}{
		{AspectSize, a.Size == b.Size},
		{AspectContent, a.Size == b.Size && a.Digest == b.Digest},
		{AspectTarget, a.Linkname == b.Linkname},
		{AspectDevice, a.Major == b.Major && a.Minor == b.Minor && a.Block == b.Block},
		{AspectMode, a.Mode == b.Mode},
		{AspectOwner, a.UID == b.UID && a.GID == b.GID},
		{AspectXattrs, slices.Equal(a.Xattrs, b.Xattrs)},
		{AspectMtime, a.ModTime.Equal(b.ModTime)},
	} {
		if !it.same {
			what = append(what, it.aspect)
		}
	}
	return what
}
