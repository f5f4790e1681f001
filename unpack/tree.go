package unpack

import (
	"cmp"
	"context"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// Tree is an image's merged file system as the entries of its layers tell it.
// Nothing is written to disk for it and no rights are needed: owners, devices
// and attributes are the image's own. What a layer does to those below it is
// the same as in WriteRootfs, and so is what is refused.
//
// A Tree does not change and is safe for concurrent use.
type Tree struct {
	image  TreeImage
	bounds Options
	root   *inode
	layers [][]*record // by layer; as the tars have them, one for each entry
}

// TreeImage is an image and the source it is read from.
type TreeImage struct {
	Source manifests.Fetcher
	Image  *manifests.Image
}

// TreeOptions for reading a tree. The zero value works.
type TreeOptions struct {
	Jobs     int                // layers read at once; 0 means GOMAXPROCS. Each takes some 4 MiB of memory.
	Digests  bool               // of files' content, for Diff
	Progress manifests.Progress // told of the bytes of layer blobs that are read
	Limits   layertar.Limits    // of each layer; Compressed is set for each
	Window   int64              // bytes a zstd layer's window may take; 0 means codec.DefaultWindow
	Memory   int64              // bytes that entries may take; 0 means DefaultTreeMemory
	// Keep are patterns as in TarOptions.Paths. Of the files they match, what
	// has room in 16 MiB is kept in memory, so that WriteTar need not read their
	// layers again. One that does not parse is a *manifests.InputError.
	Keep []string
}

// bounds are those options that go for every reading of a layer.
func (o TreeOptions) bounds() Options {
	return Options{Limits: o.Limits, Window: o.Window, Memory: o.Memory}
}

// Node is something in a Tree, under one of its names.
type Node struct {
	Path string // relative, through no symlink; "." is the top
	// First is the name, in the order of Walk, that the other hard links of the
	// same file follow; Path itself for what has one name.
	First    string
	Kind     layertar.Kind // File, Dir, Symlink, Fifo or Device
	Mode     uint32        // the low twelve bits; 0777 for a symlink
	UID, GID uint32
	ModTime  time.Time // in UTC
	Size     int64     // of a File, holes included
	Sparse   bool      // a File stored with holes
	Linkname string    // of a Symlink
	Major    int64     // of a Device
	Minor    int64
	Block    bool // a block Device
	Xattrs   []layertar.Xattr
	Digest   digest.Digest // of a File's content, where TreeOptions asked for it
	Layer    int           // that it is of, counted from 1; 0 for the top where no layer has it
	Implied  bool          // a directory that no layer has an entry for
}

// ReadTree reads the tree of one image. See ReadTrees.
func ReadTree(ctx context.Context, src manifests.Fetcher, img *manifests.Image, o TreeOptions) (*Tree, error) {
	trees, err := ReadTrees(ctx, []TreeImage{{src, img}}, o)
	if err != nil {
		return nil, err
	}
	return trees[0], nil
}

// ReadTrees reads the trees of several images. A layer that several have is
// read once. Digests and diffIDs of all that is read are proven. Errors are
// those of WriteRootfs; more entries than TreeOptions.Memory holds, at some 300
// bytes and the length of its name for each, directories that names lead through
// included, is a *manifests.ContentError of kind limit.
func ReadTrees(ctx context.Context, images []TreeImage, o TreeOptions) ([]*Tree, error) {
	bounds := newTreeBounds(o.Memory)
	read, err := readLayers(ctx, images, o, bounds)
	if err != nil {
		return nil, err
	}
	trees := make([]*Tree, len(images))
	for i, im := range images {
		t := &Tree{image: im, bounds: o.bounds()}
		for _, l := range im.Image.Layers {
			t.layers = append(t.layers, read[l.DiffID])
		}
		if t.root, err = compose(ctx, im.Image, t.layers, bounds); err != nil {
			return nil, err
		}
		trees[i] = t
	}
	return trees, nil
}

// Image is the image the tree is of.
func (t *Tree) Image() *manifests.Image { return t.image.Image }

// Walk visits all of the tree: directories before what is in them, names in
// byte order. The first error ends it and is returned.
func (t *Tree) Walk(visit func(*Node) error) error {
	return t.root.walk(".", func(path string, n *inode) error { return visit(n.node(path)) })
}

// Find returns what lies at a path, which may begin with a slash; nil where
// there is nothing. No symlink is followed.
func (t *Tree) Find(path string) *Node {
	path, err := layertar.Clean(path)
	if err != nil {
		return nil
	}
	if n := t.root.at(path); n != nil {
		return n.node(path)
	}
	return nil
}

// record is one entry of a layer, as small as it can be kept.
type record struct {
	name, link string
	kind       layertar.Kind
	sparse     bool
	block      bool
	mode       uint16
	uid, gid   uint32
	nsec       int32
	sec        int64
	size       int64 // of a File; the major number of a Device
	minor      int64
	sum        [32]byte // of a File's content
	more       *extra   // nil for most
}

// extra is what few entries have.
type extra struct {
	xattrs []layertar.Xattr
	parts  []extent // of a sparse File; nil where there are too many
	// content of a File that was kept; nil for most.
	content []byte
}

// inode is a file, directory or other thing of a tree; hard links share it.
type inode struct {
	rec      *record // nil: a directory no entry speaks of
	children map[string]*inode
	first    string // the name that comes first; none of a directory
	layer    int32  // from 1
	dir      bool
	implied  bool // in the layer at hand
	hollow   bool // implied by whiteouts alone, there
}

func newDir(rec *record, layer int) *inode {
	return &inode{rec: rec, dir: true, implied: rec == nil, layer: int32(layer)}
}

func (n *inode) device() bool { return n.rec != nil && n.rec.kind == layertar.Device }

// set gives a directory a child, or with nil takes it away.
func (n *inode) set(name string, child *inode) {
	if child == nil {
		delete(n.children, name)
		return
	}
	if n.children == nil {
		n.children = map[string]*inode{}
	}
	n.children[name] = child
}

// at finds what lies at a path, following no symlink.
func (n *inode) at(path string) *inode {
	if path == "." {
		return n
	}
	for rest, more := path, true; more && n != nil; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		n = n.children[part]
	}
	return n
}

func (n *inode) walk(path string, visit func(path string, n *inode) error) error {
	if err := visit(path, n); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		if err := n.children[name].walk(join(path, name), visit); err != nil {
			return err
		}
	}
	return nil
}

// walkBack is walk from the end.
func (n *inode) walkBack(path string, visit func(path string, n *inode) error) error {
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(n.children))) {
		if err := n.children[name].walkBack(join(path, name), visit); err != nil {
			return err
		}
	}
	return visit(path, n)
}

// is says what lies there to who looks for a directory. Devices are not made
// on disk, and nothing is what they are there.
func (n *inode) is() node {
	switch {
	case n == nil || n.device():
		return node{}
	case n.dir:
		return node{kind: directory}
	case n.rec.kind == layertar.Symlink:
		return node{symlink, n.rec.link}
	}
	return node{kind: other}
}

func (n *inode) node(path string) *Node {
	v := &Node{Path: path, First: cmp.Or(n.first, path), Kind: layertar.Dir, Mode: 0o755, ModTime: time.Unix(0, 0).UTC(), Layer: int(n.layer), Implied: n.rec == nil}
	if n.rec == nil {
		return v
	}
	r := n.rec
	v.Kind, v.Mode, v.UID, v.GID, v.ModTime = r.kind, uint32(r.mode), r.uid, r.gid, time.Unix(r.sec, int64(r.nsec)).UTC()
	if r.more != nil {
		v.Xattrs = r.more.xattrs
	}
	switch r.kind {
	case layertar.File:
		v.Size, v.Sparse = r.size, r.sparse
		if r.sum != ([32]byte{}) {
			v.Digest = digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(r.sum[:]))
		}
	case layertar.Symlink:
		v.Linkname, v.Mode = r.link, 0o777
	case layertar.Device:
		v.Major, v.Minor, v.Block = r.size, r.minor, r.block
	}
	return v
}
