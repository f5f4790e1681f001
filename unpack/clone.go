package unpack

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// cloner makes layers out of those that a store has already. Files share their
// blocks with the store's until somebody writes to either (FICLONE); they are
// never the same inode, so that no later writer changes the store.
type cloner struct {
	store  *LayerStore
	unlock func()
}

// newCloner returns nil where there is nothing to clone from, or no way to:
// another file system, or one whose files cannot share blocks.
func newCloner(ctx context.Context, store *LayerStore, img *manifests.Image, to int) (*cloner, error) {
	if store == nil || os.Geteuid() != 0 || len(img.Layers) == 0 { // an ordinary user's layers have not their owners
		return nil, nil
	}
	sample := filepath.Join(store.dir, placeOf("layers", img.Layers[0].DiffID), metaName)
	if !shares(sample, to) {
		return nil, nil
	}
	unlock, err := store.lock(ctx, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	return &cloner{store, unlock}, nil
}

func (c *cloner) close() {
	if c != nil {
		c.unlock()
	}
}

// shares tries whether a file's blocks can be shared with one in a directory.
func shares(file string, dir int) bool {
	from, err := os.Open(file)
	if err != nil {
		return false
	}
	defer from.Close()
	const name = "shares-blocks"
	to, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false
	}
	defer unix.Close(to)
	defer unix.Unlinkat(dir, name, 0)
	return unix.IoctlFileClone(to, int(from.Fd())) == nil
}

// clone makes p of the store's layer. ok is false if the store does not have
// it as it is in the image.
func (c *cloner) clone(ctx context.Context, j *job, p *part) (ok bool, err error) {
	if c == nil {
		return false, nil
	}
	layer := j.img.Layers[j.index]
	st := &staged{final: placeOf("layers", layer.DiffID)}
	if err := c.store.find(st); err != nil || len(st.meta.Owners) > 0 {
		return false, nil
	}
	from, err := openDir(filepath.Join(st.dir, fsName))
	if err != nil {
		return false, err
	}
	defer unix.Close(from)
	root, err := openDir(p.dir)
	if err != nil {
		return false, err
	}
	defer unix.Close(root)
	x := newExtractor(root, j.budget)
	defer x.close()
	x.noXattrs, x.ids, x.marks = j.options.NoXattrs, &j.options.IDs, false
	w := &cloneWalk{x: x, from: from, first: map[uint64]string{}}
	for todo := []string{"."}; len(todo) > 0; {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		dir := todo[len(todo)-1]
		more, err := w.directory(dir)
		if err != nil {
			return false, j.fail(layer, err)
		}
		todo = append(todo[:len(todo)-1], more...)
	}
	for _, path := range st.meta.Implied {
		x.dirs[string(path)] = impliedAttrs()
	}
	if j.progress != nil {
		j.progress(layer.Blob, layer.Blob.Size)
	}
	p.meta, p.dirs, p.cloned = st.meta, x.dirs, true
	return true, nil
}

// cloneWalk goes through a layer directory and has an extractor make the same.
type cloneWalk struct {
	x     *extractor
	from  int               // the layer directory
	first map[uint64]string // of each file with several names, by inode
}

// directory makes what is in one directory, and returns the directories in it.
func (w *cloneWalk) directory(path string) (dirs []string, err error) {
	fd, err := openBeneath(w.from, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	e := w.entry(path, &st)
	if e.Xattrs, err = readXattrs(fd); err != nil {
		return nil, err
	}
	if err := w.x.entry(e); err != nil {
		return nil, atEntry(e, err)
	}
	all, err := names(fd)
	if err != nil {
		return nil, err
	}
	for _, name := range all {
		st, err := lstatAt(fd, name)
		if err != nil {
			return nil, err
		}
		switch {
		case isDir(&st):
			dirs = append(dirs, join(path, name))
			continue
		case isWhiteout(&st):
			continue
		}
		e := w.entry(join(path, name), &st)
		if err := w.make(fd, e); err != nil {
			return nil, atEntry(e, err)
		}
	}
	return dirs, nil
}

// entry describes what lies in a layer directory as a layer's tar would.
func (w *cloneWalk) entry(path string, st *unix.Stat_t) *layertar.Entry {
	e := &layertar.Entry{
		Name: path, Parent: parentOf(path), Base: baseOf(path), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		ModTime: time.Unix(st.Mtim.Unix()), Size: st.Size,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Kind = layertar.Dir
		return e
	case unix.S_IFREG:
		e.Kind = layertar.File
	case unix.S_IFLNK:
		e.Kind = layertar.Symlink
	case unix.S_IFIFO:
		e.Kind = layertar.Fifo
	default:
		e.Kind = layertar.Ignored // no layer of ours has it
	}
	if st.Nlink < 2 {
		return e
	}
	if first, ok := w.first[st.Ino]; ok {
		e.Kind, e.Linkname = layertar.Hardlink, first
	} else {
		w.first[st.Ino] = path
	}
	return e
}

// make makes what is no directory.
func (w *cloneWalk) make(dir int, e *layertar.Entry) error {
	if e.Kind == layertar.Symlink {
		n, err := lookBeneath(dir, e.Base)
		if err != nil {
			return err
		}
		e.Linkname = n.target
	}
	if e.Kind != layertar.File {
		return w.x.entry(e)
	}
	from, err := openBeneath(dir, e.Base, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	if e.Xattrs, err = readXattrs(from); err != nil {
		return err
	}
	const capability = "security.capability"
	value := make([]byte, 64) // the kernel's longest has 24
	if n, err := unix.Fgetxattr(from, capability, value); err == nil {
		e.Xattrs = append(e.Xattrs, layertar.Xattr{Name: capability, Value: string(value[:n])})
	}
	if err := w.x.entry(e); err != nil {
		return err
	}
	if e.Size > 0 {
		if err := unix.IoctlFileClone(w.x.file, from); err != nil {
			return err
		}
	}
	if _, err := w.x.fdAttrs(w.x.file, e, true); err != nil {
		return err
	}
	err = unix.Close(w.x.file)
	w.x.file = -1
	return err
}
