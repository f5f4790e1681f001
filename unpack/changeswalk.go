package unpack

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
)

// change is a path that the upper directory speaks of.
type change struct {
	path    string
	up      *diskNode // nil: it is gone
	below   *diskNode // nil: it is new
	hidden  bool      // a directory above hides what the image has here
	opaque  bool      // up is a directory that hides what the image has in it
	changed bool      // both are there and differ
	quiet   bool      // a directory that may have been made or touched to mount something in it
}

// walk visits what the upper directory holds and hides, parents first, names
// in byte order. The top is visited too.
func (c *Changes) walk(ctx context.Context, visit func(*change) error) error {
	if c.upper < 0 {
		return nil
	}
	below, err := c.node(".")
	if err != nil {
		return err
	}
	up, err := c.lookUpper(".", ".", below)
	if err != nil || up == nil {
		return err
	}
	up.takeOpaque() // an overlay does not look for it there
	top := &change{path: ".", up: up, below: below}
	if top.changed, err = c.topDiffers(up, below); err != nil {
		return err
	}
	if err := visit(top); err != nil {
		return err
	}
	return c.walkDir(ctx, ".", false, visit)
}

// topDiffers is differs for the top directory, whose times are those of the
// container's making, and whose attributes the overlay takes from the upper
// directory.
func (c *Changes) topDiffers(up, below *diskNode) (bool, error) {
	if below == nil {
		return up.st.Mode&0o7777 != 0o755 || up.uid != 0 || up.gid != 0 || len(up.xattrs) > 0, nil
	}
	same := *up
	same.st.Mtim = below.st.Mtim
	return c.differs(".", &same, below)
}

// walkDir visits what lies in a directory of the upper one. hidden says that
// nothing of the image is to be seen in it.
func (c *Changes) walkDir(ctx context.Context, path string, hidden bool, visit func(*change) error) error {
	all, leave, err := c.enter(path)
	if err != nil {
		return err
	}
	defer leave()
	if hidden { // what it hides has gone
		if all, err = c.withBelow(all, path); err != nil {
			return err
		}
	}
	for _, name := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.walkName(ctx, path, name, hidden, visit); err != nil {
			return err
		}
	}
	return nil
}

// withBelow adds the names that the image has in a directory, sorted, each once.
func (c *Changes) withBelow(names []string, path string) ([]string, error) {
	below, err := c.below.list(path)
	if err != nil {
		return nil, err
	}
	names = append(slices.Clip(names), below...)
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (c *Changes) walkName(ctx context.Context, parent, name string, hidden bool, visit func(*change) error) error {
	path := join(parent, name)
	if len(path) > layertar.MaxPath {
		return &layertar.Error{Kind: layertar.Limit, Entry: path[:200], Err: errLongPath}
	}
	below, err := c.node(path)
	if err != nil {
		return err
	}
	up, err := c.lookUpper(parent, name, below)
	if err != nil {
		return err
	}
	ch := &change{path: path, up: up, below: below, hidden: hidden}
	switch {
	case up == nil && !hidden: // it went this moment, and may be anything
		return nil
	case up == nil || up.kind == layertar.Whiteout:
		if below == nil {
			return nil
		}
		ch.up = nil
		return visit(ch)
	}
	if up.isDir() && up.takeOpaque() && below.isDir() && !hidden {
		list, err := c.below.list(path)
		if err != nil {
			return err
		}
		ch.opaque = len(list) > 0
	}
	if ours, err := c.forMount(ch); ours || err != nil {
		return err
	}
	if err := visit(ch); err != nil || !up.isDir() {
		return err
	}
	return c.walkDir(ctx, path, hidden && below.isDir() || ch.opaque, visit)
}

// differs compares what the upper directory and the image have at a path, by
// all that a layer can say of it. Content is read where all else is equal:
// what was opened for writing and not written is no change.
func (c *Changes) differs(path string, up, below *diskNode) (bool, error) {
	if below == nil || up.kind != below.kind {
		return true, nil
	}
	a, b := &up.st, &below.st
	symlink := up.kind == layertar.Symlink
	if up.uid != below.uid || up.gid != below.gid || a.Mtim != b.Mtim || !symlink && a.Mode != b.Mode || up.link != below.link {
		return true, nil
	}
	switch up.kind {
	case layertar.File:
		if a.Size != b.Size || a.Nlink > 1 { // an overlay breaks the image's links: these are new
			return true, nil
		}
	case layertar.Dir:
	default:
		return a.Rdev != b.Rdev, nil
	}
	var err error
	if below.xattrs, err = c.xattrsBelow(path, below); err != nil {
		return false, err
	}
	if !slices.Equal(up.xattrs, below.xattrs) {
		return true, nil
	}
	if up.kind == layertar.Dir {
		return false, nil
	}
	same, err := c.sameContent(path, up, below)
	return !same, err
}

func (c *Changes) xattrsBelow(path string, n *diskNode) ([]layertar.Xattr, error) {
	fd, err := openBeneath(c.below.layers[n.layer].root, path, unix.O_PATH)
	if err != nil {
		return nil, atPath("open", path, err)
	}
	defer unix.Close(fd)
	list, err := c.xattrs(procFD(fd), path)
	if err != nil && err != unix.EACCES { // closed to its owner: it had none that he could set
		return nil, atPath("read", path, err)
	}
	m := &diskNode{xattrs: list}
	m.takeOpaque()
	m.add(c.below.lost[idOf(&n.st)])
	return m.xattrs, nil
}

// add adds attributes of other names than n has.
func (n *diskNode) add(list []layertar.Xattr) {
	for _, a := range list {
		if i, found := slices.BinarySearchFunc(n.xattrs, a, compareNames); !found {
			n.xattrs = slices.Insert(n.xattrs, i, a)
		}
	}
}

func compareNames(a, b layertar.Xattr) int { return strings.Compare(a.Name, b.Name) }

// giveBack gives what was copied from the image the attributes that it could
// not have on disk. Capabilities go with the content they were given to.
func (c *Changes) giveBack(path string, n, below *diskNode) error {
	if below == nil || below.kind != n.kind {
		return nil
	}
	lost := c.below.lost[idOf(&below.st)]
	if slices.ContainsFunc(lost, func(a layertar.Xattr) bool { return a.Name == layertar.Capability }) {
		same := n.st.Size == below.st.Size
		if same {
			var err error
			if same, err = c.sameContent(path, n, below); err != nil {
				return err
			}
		}
		if !same {
			lost = slices.DeleteFunc(slices.Clone(lost), func(a layertar.Xattr) bool { return a.Name == layertar.Capability })
		}
	}
	n.add(lost)
	return nil
}

// sameContent compares two files of one size.
func (c *Changes) sameContent(path string, up, below *diskNode) (bool, error) {
	a, err := c.open(path, up)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := c.open(path, below)
	if err != nil {
		return false, nil // an ordinary user may not read it, and so cannot tell
	}
	defer b.Close()
	const step = 128 << 10
	x, y := make([]byte, step), make([]byte, step)
	for {
		n, err := io.ReadFull(a, x)
		m, berr := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if berr == io.EOF || berr == io.ErrUnexpectedEOF {
			return err == berr, nil
		}
		if err != nil || berr != nil {
			return false, nil
		}
	}
}

// setMounts notes where something was mounted.
func (c *Changes) setMounts(list []string) {
	c.mounts, c.leads = pathSet{}, insides{}
	for _, m := range list {
		path, err := layertar.Clean(m)
		if err != nil || path == "." {
			continue
		}
		if !c.mounts[path] {
			c.mounts[path] = true
			c.leads.add(path)
		}
	}
}

// forMount finds out in what the two differ, and what of that was done to mount
// something; ours says that it is nothing but a mount point.
func (c *Changes) forMount(ch *change) (ours bool, err error) {
	if c.mounts[ch.path] && ch.below == nil {
		if ours, err = c.empty(ch.path, ch.up); ours || err != nil {
			return ours, err
		}
	}
	up := *ch.up
	if up.isDir() && c.leads[ch.path] != nil {
		if ch.quiet, err = c.mountMade(ch.path); err != nil {
			return false, err
		}
		if ch.below == nil {
			ch.quiet = true
		} else if ch.quiet {
			up.st.Mtim = ch.below.st.Mtim
		}
	}
	ch.changed, err = c.differs(ch.path, &up, ch.below)
	return false, err
}

func (c *Changes) empty(path string, n *diskNode) (bool, error) {
	if !n.isDir() {
		return n.kind == layertar.File && n.st.Size == 0, nil
	}
	all, leave, err := c.enter(path)
	if err != nil {
		return false, err
	}
	leave()
	return len(all) == 0, nil
}

// mountMade tells whether a mount point was made in a directory, or what leads
// to one.
func (c *Changes) mountMade(dir string) (bool, error) {
	for _, name := range c.leads[dir] {
		below, err := c.node(join(dir, name))
		if err != nil {
			return false, err
		}
		if up, err := c.lookUpper(dir, name, nil); err != nil || up != nil && below == nil {
			return err == nil, err
		}
	}
	return false, nil
}

// PathChange is a path that a container has changed.
type PathChange struct {
	Letter string // as of Change: A, C or D
	Path   string // without a slash in front; foreign text
}

// List lists what the container has changed, as docker diff does: parents
// before what is in them, names in byte order. Of a directory that is gone
// only itself is listed, of a new one everything in it. A directory is changed
// if its attributes are, or what it holds. The top is not listed.
func (c *Changes) List(ctx context.Context) ([]PathChange, error) {
	l := &lister{}
	err := c.walk(ctx, func(ch *change) error {
		l.visit(ch)
		return nil
	})
	return l.list, contentError(err)
}

// lister makes a list of changes.
type lister struct {
	list  []PathChange
	quiet []*change // directories that are listed if what is in them is
}

func (l *lister) visit(ch *change) {
	for n := len(l.quiet); n > 0 && !strings.HasPrefix(ch.path, l.quiet[n-1].path+"/"); n-- {
		l.quiet = l.quiet[:n-1]
	}
	letter := ""
	switch {
	case ch.path == ".":
	case ch.up == nil:
		letter = "D"
	case ch.below == nil:
		letter = "A"
	case ch.changed:
		letter = "C"
	}
	if ch.quiet && letter != "C" && ch.path != "." {
		l.quiet = append(l.quiet, ch)
		return
	}
	if letter == "" {
		return
	}
	for i, q := range l.quiet {
		if q.below == nil {
			l.list = append(l.list, PathChange{"A", q.path})
			continue
		}
		next, made := ch.path, letter != "C"
		if i+1 < len(l.quiet) {
			next, made = l.quiet[i+1].path, l.quiet[i+1].below == nil
		}
		if made && parentOf(next) == q.path {
			l.list = append(l.list, PathChange{"C", q.path})
		}
	}
	l.quiet = l.quiet[:0]
	l.list = append(l.list, PathChange{letter, ch.path})
}
