package unpack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// Changes is what a container has written over an image: the upper directory
// of an overlay whose lower directories are those of a LayerStore.
//
// The upper directory is the container's and treated as hostile: no link in it
// is followed, nothing in it but regular files and directories is opened, and
// what is read of it is bounded. A container that writes meanwhile can make a
// call fail, or give a file that is half old and half new; pause it.
//
// Changes hold the store's lock, which gc waits for, until Close. They are not
// safe for concurrent use.
type Changes struct {
	below  *base
	upper  int // its directory; -1: nothing was written
	cache  *dirCache
	ids    IDs
	single bool // one id stands for all
	o      ChangesOptions
	unlock func()
	mounts pathSet // what was mounted over …
	leads  insides // … and the directories above
	held   int64   // bytes of names in memory
	res    *LayerResult
}

// ChangesOptions for OpenChanges. The zero value works.
type ChangesOptions struct {
	// IDs are the ids that the container had, where its user namespace had
	// others than the caller's: owners of what it wrote are mapped back.
	IDs IDs
	// Latest, if not zero, is written instead of every later time of a file:
	// what makes layers of the same changes, made at other times, the same.
	Latest time.Time
	// Mounts are the paths in the container over which something was mounted.
	// Directories and empty files that are there for nothing else are no
	// changes, nor are directories above them that hold nothing else, nor the
	// time of a directory in which one was made.
	Mounts []string
	// Limits are those of whoever unpacks the layer. A layer that passes them is
	// an error.
	Limits layertar.Limits
}

// OpenChanges opens the changes over the image of these layers, bottom first.
// An upper directory that is not there holds none. Layers that the store does
// not hold are a *manifests.NotFoundError.
func (s *LayerStore) OpenChanges(ctx context.Context, diffIDs []digest.Digest, upper string, o ChangesOptions) (_ *Changes, err error) {
	if err := o.IDs.check(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(s.dir); errors.Is(err, fs.ErrNotExist) {
		return nil, notUnpacked(s.dir)
	}
	unlock, err := s.lock(ctx, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	c := &Changes{upper: -1, cache: newDirCache(maxOpenDirs / 4), ids: o.IDs, single: os.Geteuid() != 0, o: o, unlock: unlock}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	c.setMounts(o.Mounts)
	if c.below, err = s.openBase(diffIDs); err != nil {
		return nil, err
	}
	c.upper, err = openDir(upper)
	if errors.Is(err, fs.ErrNotExist) {
		c.upper, err = -1, nil
	}
	return c, err
}

// Close lets go of the layers.
func (c *Changes) Close() error {
	c.cache.flush()
	if c.below != nil {
		c.below.close()
	}
	if c.upper >= 0 {
		unix.Close(c.upper)
		c.upper = -1
	}
	if c.unlock != nil {
		c.unlock()
		c.unlock = nil
	}
	return nil
}

func notUnpacked(dir string) error {
	return &manifests.NotFoundError{Subject: "unpacked layers of the image", In: dir}
}

// base is the image's own tree, as an overlay of its layers shows it, and what
// is recorded beside the layers because it could not be had on disk.
type base struct {
	*stack
	owners  map[fileID]ownerIDs
	lost    map[fileID][]layertar.Xattr
	devices map[string][]string // names by directory
}

type fileID struct{ dev, ino uint64 }

type ownerIDs struct{ uid, gid uint32 }

func idOf(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), st.Ino} }

// openBase opens the layers of an image that was unpacked.
func (s *LayerStore) openBase(diffIDs []digest.Digest) (_ *base, err error) {
	b := &base{newStack(), map[fileID]ownerIDs{}, map[fileID][]layertar.Xattr{}, map[string][]string{}}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if len(diffIDs) == 0 {
		return b, nil
	}
	record, err := loadImage(filepath.Join(s.dir, placeOf("images", identity.ChainID(diffIDs))))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notUnpacked(s.dir)
	}
	if err != nil {
		return nil, err
	}
	for _, layer := range record.Layers {
		m, err := loadMeta(filepath.Join(s.dir, layer))
		if err != nil {
			return nil, err
		}
		if err := b.push(filepath.Join(s.dir, layer, fsName), m); err != nil {
			return nil, err
		}
		if err := b.recall(m); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// recall takes in what could not be had in the topmost layer. Owners and
// attributes are known by inode: those of a hard link may be recorded under one
// name only.
func (b *base) recall(m *layerMeta) error {
	for path := range b.layers[len(b.layers)-1].devices {
		b.devices[parentOf(path)] = append(b.devices[parentOf(path)], baseOf(path))
	}
	root := b.layers[len(b.layers)-1].root
	for path, text := range m.Owners {
		st, err := lstatAt(root, string(path))
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		var o ownerIDs
		if _, err := fmt.Sscanf(text, "%d:%d", &o.uid, &o.gid); err != nil {
			return fmt.Errorf("recorded owner %q: %w", text, err)
		}
		b.owners[idOf(&st)] = o
	}
	for _, l := range m.Lost {
		st, err := lstatAt(root, string(l.Path))
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		b.lost[idOf(&st)] = append(b.lost[idOf(&st)], layertar.Xattr{Name: string(l.Name), Value: string(l.Value)})
	}
	return nil
}

// diskNode is what lies at a path on disk.
type diskNode struct {
	kind     layertar.Kind // 0: something that no layer can have, such as a socket
	st       unix.Stat_t
	uid, gid uint32 // inside the container
	own      ownerIDs
	link     string // of a Symlink
	xattrs   []layertar.Xattr
	layer    int // of the base; -1: the upper directory
}

func (n *diskNode) isDir() bool { return n != nil && n.kind == layertar.Dir }

// kinds by the type bits of a mode.
func kindOf(st *unix.Stat_t) layertar.Kind {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return layertar.File
	case unix.S_IFDIR:
		return layertar.Dir
	case unix.S_IFLNK:
		return layertar.Symlink
	case unix.S_IFIFO:
		return layertar.Fifo
	case unix.S_IFCHR, unix.S_IFBLK:
		if isWhiteout(st) {
			return layertar.Whiteout
		}
		return layertar.Device
	}
	return 0
}

// node says what the image has at a path, without its attributes' names; nil
// for nothing.
func (c *Changes) node(path string) (*diskNode, error) {
	f, err := c.below.find(path)
	if err != nil || f.kind == absent {
		return nil, err
	}
	n := &diskNode{layer: f.layer}
	if f.kind == directory {
		if n.layer = c.below.attrsFrom(path, f); n.layer < 0 {
			n.kind, n.st.Mode, n.layer = layertar.Dir, unix.S_IFDIR|0o755, f.all[0]
			return n, nil
		}
	}
	if n.st, err = lstatAt(c.below.layers[n.layer].root, path); err != nil {
		return nil, err
	}
	n.kind = kindOf(&n.st)
	if !c.single {
		n.uid, n.gid = n.st.Uid, n.st.Gid
	}
	n.own = ownerIDs{n.uid, n.gid}
	if o, ok := c.below.owners[idOf(&n.st)]; ok {
		n.own = o
	}
	n.link = f.target
	return n, nil
}

// list gives the names in a directory of the image.
func (b *base) list(path string) ([]string, error) {
	f, err := b.find(path)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, i := range f.dirs {
		fd, err := openBeneath(b.layers[i].root, path, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		all, err := names(fd)
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
		for _, name := range all {
			seen[name] = true
		}
	}
	var out []string
	for _, name := range pathSet(seen).sorted() {
		f, err := b.find(join(path, string(name)))
		if err != nil {
			return nil, err
		}
		if f.kind != absent {
			out = append(out, string(name))
		}
	}
	return out, nil
}
