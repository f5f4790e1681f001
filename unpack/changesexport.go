package unpack

import (
	"context"
	"errors"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// WriteTar writes what the container sees as a tar to w: the image's files as
// they are unpacked, and what was written over them. Owners are given back as
// in WriteLayer, and so are device nodes, which are never unpacked. The tar is of
// the same form, but that directories come last, those inside before those around
// them, as in Tree.WriteTar. Sockets are left out and reported. Options.Paths
// follow no links.
func (c *Changes) WriteTar(ctx context.Context, w io.Writer, o TarOptions) (*LayerResult, error) {
	globs, err := parseGlobs(o.Paths)
	if err != nil {
		return nil, err
	}
	c.res = &LayerResult{}
	out := &guardedWriter{w: w}
	x := &exporter{layerWriter: newLayerWriter(c, out), take: anyGlob(globs), globs: globs, met: make([]bool, len(globs))}
	if err := x.all(ctx); err != nil {
		if out.err != nil {
			return nil, out.err
		}
		return nil, contentError(err)
	}
	c.res.TarResult = x.res
	return c.res.done(), nil
}

// exporter writes what a container sees.
type exporter struct {
	*layerWriter
	take  func(path string) bool
	globs []glob
	met   []bool    // by globs: something matches
	dirs  []*change // to be written last
}

func (x *exporter) all(ctx context.Context) error {
	top, err := x.c.node(".")
	if err == nil && top != nil {
		top.xattrs, err = x.c.xattrsBelow(".", top)
	}
	if err != nil {
		return err
	}
	inUpper := x.c.upper >= 0
	if inUpper {
		if top, err = x.c.lookUpper(".", ".", top); err != nil {
			return err
		}
		if top != nil {
			top.takeOpaque()
		}
	}
	if top == nil {
		return nil
	}
	x.keep(".", top)
	if err := x.dir(ctx, ".", inUpper, true); err != nil {
		return err
	}
	if i := slices.Index(x.met, false); i >= 0 {
		return &manifests.NotFoundError{Subject: "path " + quote.Text(x.globs[i].text), In: "the container"}
	}
	for _, d := range slices.Backward(x.dirs) {
		if err := x.member(d.path, d.up); err != nil {
			return err
		}
	}
	return errors.Join(ctx.Err(), x.tw.Close(), x.out.Flush())
}

// taken reports whether a path is asked for.
func (x *exporter) taken(path string) bool {
	for i, g := range x.globs {
		x.met[i] = x.met[i] || g.match(path)
	}
	return x.take(path)
}

func (x *exporter) keep(path string, n *diskNode) {
	if x.taken(path) {
		x.dirs = append(x.dirs, &change{path: path, up: n})
	}
}

// dir writes what is in a directory: of the upper directory, of the image, or
// of both.
func (x *exporter) dir(ctx context.Context, path string, inUpper, inBase bool) error {
	var all []string
	if inUpper {
		upper, leave, err := x.c.enter(path)
		if err != nil {
			return err
		}
		defer leave()
		all = upper
	}
	if inBase {
		var err error
		upper := all
		if all, err = x.c.withBelow(all, path); err != nil {
			return err
		}
		if err := x.devices(path, upper); err != nil {
			return err
		}
	}
	for _, name := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := x.name(ctx, path, name, inUpper, inBase); err != nil {
			return err
		}
	}
	return nil
}

func (x *exporter) name(ctx context.Context, parent, name string, inUpper, inBase bool) (err error) {
	path := join(parent, name)
	if len(path) > layertar.MaxPath {
		return &layertar.Error{Kind: layertar.Limit, Entry: path[:200], Err: errLongPath}
	}
	var up, below *diskNode
	if inBase {
		if below, err = x.c.node(path); err != nil {
			return err
		}
	}
	if inUpper {
		if up, err = x.c.lookUpper(parent, name, below); err != nil {
			return err
		}
	}
	n := up
	if up == nil && below != nil {
		n = below
		if n.isDir() || n.kind == layertar.File {
			if n.xattrs, err = x.c.xattrsBelow(path, n); err != nil {
				return err
			}
		}
	}
	switch {
	case n == nil, n.kind == layertar.Whiteout:
		return nil
	case n.kind == 0:
		x.c.skip("socket", path, "no tar can have one")
		return nil
	case !n.isDir():
		if !x.taken(path) {
			return nil
		}
		return x.member(path, n)
	}
	opaque := up != nil && up.takeOpaque()
	x.keep(path, n)
	return x.dir(ctx, path, up != nil, below.isDir() && !opaque)
}

// devices writes the image's device nodes in a directory, where upper has
// nothing of that name.
func (x *exporter) devices(dir string, upper []string) error {
	for _, name := range slices.Compact(slices.Sorted(slices.Values(x.c.below.devices[dir]))) {
		path := join(dir, name)
		f, err := x.c.below.find(path)
		if err != nil {
			return err
		}
		if _, over := slices.BinarySearch(upper, name); over || f.device == nil || !x.taken(path) {
			continue
		}
		if err := x.member(path, f.device.node()); err != nil {
			return err
		}
	}
	return nil
}

// node is what would lie on disk.
func (d *deviceNode) node() *diskNode {
	n := &diskNode{kind: layertar.Device, own: ownerIDs{d.UID, d.GID}}
	n.st.Mode, n.st.Rdev = unix.S_IFCHR|d.Mode, unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	if d.Block {
		n.st.Mode = unix.S_IFBLK | d.Mode
	}
	n.st.Mtim, _ = unix.TimeToTimespec(d.Time) // it was one before
	return n
}
