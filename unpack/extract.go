package unpack

import (
	"cmp"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
)

// lowerView is the stack of layers below the one being unpacked. Paths given
// to it lead through no symlink.
type lowerView interface {
	look(path string) (node, error)
	device(path string) (deviceNode, bool)        // that was left out
	owner(path string) string                     // that could not be set; "" for none
	link(path string, toDir int, to string) error // makes a hard link
}

// extractor makes one layer directory, apart from the content of files. It is
// for one goroutine.
type extractor struct {
	setter
	root     int
	cache    *dirCache
	lower    lowerView // nil: the layer is unpacked on its own
	marks    bool      // write whiteouts and opaque marks to disk, not to meta alone
	dirs     map[string]*attrs
	opaque   pathSet
	hides    hiding
	cleared  map[string]int    // what was replaced, by the entry that last did so
	led      pathSet           // directories that were implied at some time
	pending  []*layertar.Entry // hard links whose target is not there yet
	file     int               // that entry made, to be taken from here; -1 if none
	filePath string            // of file
	detached []int             // directories in use that the cache had to forget
	removed  bool              // something was replaced
	hollow   bool              // some directory was
}

func newExtractor(root int, budget *budget) *extractor {
	_, err := unix.Fgetxattr(root, "system.posix_acl_default", nil)
	return &extractor{
		setter: setter{ids: &IDs{}, budget: budget, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), alwaysMod: err == nil, meta: &layerMeta{}},
		root:   root, cache: newDirCache(budget.dirs), marks: true, dirs: map[string]*attrs{".": impliedAttrs()},
		opaque: pathSet{}, hides: newHiding(), cleared: map[string]int{}, led: pathSet{}, file: -1,
	}
}

// close frees what the extractor holds; the root stays open.
func (x *extractor) close() {
	x.cache.flush()
	x.closeDetached()
	if x.file >= 0 {
		unix.Close(x.file)
	}
}

func (x *extractor) closeDetached() {
	for _, fd := range x.detached {
		unix.Close(fd)
	}
	x.detached = x.detached[:0]
}

// take is entry for a layer that may be right on top of others only: nothing
// more is made once that is known.
func (x *extractor) take(e *layertar.Entry) error {
	if x.meta.Fault != nil {
		return nil
	}
	err := x.entry(e)
	if x.lower == nil && len(x.led) > 0 && malformed(err) {
		return x.meta.excuse(e.Name, err)
	}
	return err
}

// entry makes one entry. A file is left open and empty, without the attributes
// that its content would change.
func (x *extractor) entry(e *layertar.Entry) error {
	x.closeDetached()
	x.meta.Entries++
	for _, n := range e.Notes {
		x.meta.skip(n.Kind, e.Name, n.Text)
	}
	switch e.Kind {
	case layertar.Ignored:
		return nil
	case layertar.Dir:
		return x.mkdir(e)
	case layertar.Whiteout, layertar.Opaque:
		return x.hide(e)
	}
	d, err := x.place(e)
	if err != nil {
		return err
	}
	x.fill(d.path)
	switch e.Kind {
	case layertar.File:
		return x.create(d, e)
	case layertar.Symlink:
		err = x.replacing(d, e.Base, func() error { return unix.Symlinkat(e.Linkname, d.fd, e.Base) })
		if err == nil {
			err = x.leafAttrs(d, e)
		}
	case layertar.Fifo:
		return x.fifo(d, e)
	case layertar.Hardlink:
		return x.link(d, e, linkTry{})
	case layertar.Device:
		return x.device(d, e.Base, deviceNode{
			Block: e.Block, Major: e.Major, Minor: e.Minor, Mode: e.Mode, UID: e.UID, GID: e.GID, Time: e.ModTime.UTC(),
		})
	}
	return err
}

// device notes a device, which is not made.
func (x *extractor) device(d *cachedDir, base string, n deviceNode) error {
	if err := x.clear(d, base); err != nil {
		return err
	}
	path := join(d.path, base)
	x.hides.device(path, n)
	return x.budget.hold(2*recorded(path) + rememberCost) // it is on two lists
}

// place is parent for an entry, refusing paths that no system call takes.
func (x *extractor) place(e *layertar.Entry) (*cachedDir, error) {
	d, err := x.parent(e.Parent)
	if err == nil && len(join(d.path, e.Base)) > maxResolved {
		return nil, errTooLong
	}
	return d, err
}

// parent opens the directory an entry lies in, making it if need be.
func (x *extractor) parent(name string) (*cachedDir, error) {
	if d := x.cache.get(name); d != nil {
		return d, nil
	}
	const flags = unix.O_PATH | unix.O_DIRECTORY
	fd, err := openBeneath(x.root, name, flags)
	if err == nil {
		return x.cache.put(name, fd), nil
	}
	if !gone(err) {
		return nil, err
	}
	path, _, err := x.follow(name)
	if err != nil {
		return nil, err
	}
	if path != name {
		if d := x.cache.get(path); d != nil {
			return d, nil
		}
	}
	if err := x.imply(path); err != nil {
		return nil, err
	}
	if fd, err = openBeneath(x.root, path, flags); err != nil {
		return nil, err
	}
	return x.cache.put(path, fd), nil
}

// imply makes the directories of a path free of symlinks that are not there.
func (x *extractor) imply(path string) error {
	parts := strings.Split(path, "/")
	n := x.plain(nil, parts)
	end := len(strings.Join(parts[:n], "/"))
	at, err := openBeneath(x.root, cmp.Or(path[:end], "."), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	for i, part := range parts[n:] {
		if end += len(part); n+i > 0 {
			end++
		}
		err = unix.Mkdirat(at, part, 0o700)
		if err == nil {
			err = x.implied(path[:end])
		} else if err == unix.EEXIST {
			err = nil
		}
		next := -1
		if err == nil {
			next, err = retry(func() (int, error) {
				return unix.Openat(at, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			})
		}
		unix.Close(at)
		if err != nil {
			return err
		}
		at = next
	}
	unix.Close(at)
	return nil
}

// implied notes a directory that was made for what lies in it.
func (x *extractor) implied(path string) error {
	x.dirs[path] = impliedAttrs()
	x.meta.setOwner(path, "")
	x.hollow, x.dirs[path].hollow = true, true
	if !x.hides.isDevice(path) { // in the place of which it does not matter what is below
		x.led[path] = true
	}
	return x.budget.remember(path)
}

// look says what lies at a path of the merged tree so far.
func (x *extractor) look(path string) (node, error) {
	n, err := lookBeneath(x.root, path)
	if err != nil || n.kind != absent || x.lower == nil {
		return n, err
	}
	if x.hides.paths[path] || x.hides.paths.above(path) || x.opaque.above(path) {
		return n, nil
	}
	return x.lower.look(path)
}

func lookBeneath(root int, path string) (node, error) {
	fd, err := openBeneath(root, path, unix.O_PATH)
	if gone(err) {
		return node{}, nil
	}
	if err != nil {
		return node{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return node{}, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return node{kind: directory}, nil
	case unix.S_IFLNK:
		buf := make([]byte, layertar.MaxLink+1)
		n, err := unix.Readlinkat(fd, "", buf)
		if err != nil {
			return node{}, err
		}
		return node{symlink, string(buf[:n])}, nil
	}
	if isWhiteout(&st) {
		return node{}, nil
	}
	return node{kind: other}, nil
}

// replacing runs a call that makes base in d; where something is in the way it
// is removed first.
func (x *extractor) replacing(d *cachedDir, base string, call func() error) error {
	err := call()
	if err != unix.EEXIST {
		return err
	}
	if err := x.clear(d, base); err != nil {
		return err
	}
	return call()
}

// clear removes what this layer has at base in d, if anything.
func (x *extractor) clear(d *cachedDir, base string) error {
	st, err := lstatAt(d.fd, base)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	if err := removeTree(d.fd, base); err != nil {
		return err
	}
	if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFDIR || kind == unix.S_IFLNK {
		x.hides.dropIn(join(d.path, base))
		x.cache.detach(d)
		x.detached = append(x.detached, d.fd)
		x.cache.flush()
	}
	x.removed = true
	path := join(d.path, base)
	x.cleared[path] = x.meta.Entries
	return x.budget.remember(path)
}

func (x *extractor) mkdir(e *layertar.Entry) error {
	if e.Name == "." {
		x.dirs["."] = entryAttrs(e)
		return nil
	}
	d, err := x.place(e)
	if err != nil {
		return err
	}
	x.fill(d.path)
	path := join(d.path, e.Base)
	err = unix.Mkdirat(d.fd, e.Base, 0o700)
	if err == unix.EEXIST {
		st, serr := lstatAt(d.fd, e.Base)
		if serr != nil {
			return serr
		}
		if err = nil; !isDir(&st) {
			// What it replaces had replaced what is below.
			x.opaque[path] = true
			err = x.replacing(d, e.Base, func() error { return unix.Mkdirat(d.fd, e.Base, 0o700) })
		}
	}
	if err != nil {
		return err
	}
	if x.dirs[path] == nil {
		err = x.budget.remember(path)
	}
	if err == nil && len(e.Xattrs) > 0 {
		err = x.budget.hold(xattrBytes(e.Xattrs))
	}
	x.dirs[path] = entryAttrs(e)
	x.meta.setOwner(path, "")
	return err
}

// hide notes a whiteout or opaque directory. They say nothing of what their
// own layer makes, before or after them, so they are written last.
func (x *extractor) hide(e *layertar.Entry) error {
	d, err := x.place(e)
	if err != nil {
		return err
	}
	if e.Kind == layertar.Opaque {
		x.opaque[d.path] = true
		return nil
	}
	path := join(d.path, baseOf(e.Target))
	if !x.hides.whiteout(path) {
		return nil
	}
	return x.budget.remember(path)
}

func (x *extractor) fifo(d *cachedDir, e *layertar.Entry) error {
	err := x.replacing(d, e.Base, func() error { return unix.Mknodat(d.fd, e.Base, unix.S_IFIFO|0o600, 0) })
	if err != nil {
		return err
	}
	// Opening a fifo for reading does not wait with O_NONBLOCK.
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.fd, e.Base, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	if err = x.ownFile(fd, d, e); err == nil {
		_, err = x.fdAttrs(fd, e, true)
	}
	return errors.Join(err, unix.Close(fd))
}

func baseOf(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func owner(uid, gid uint32) string {
	return strconv.FormatUint(uint64(uid), 10) + ":" + strconv.FormatUint(uint64(gid), 10)
}
