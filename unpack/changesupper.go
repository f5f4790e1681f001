package unpack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// maxNames bounds the names of an upper directory that are held at a time, in
// bytes with nameCost for each: all those on the way to one path.
const (
	maxNames = 1 << 30
	nameCost = 32
)

// procFD is a path to what an open descriptor names, for calls that take none
// opened with O_PATH. No link but the kernel's own lies on it.
func procFD(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// dir opens a directory of the upper one. The descriptor is the cache's, and
// good until the next call.
func (c *Changes) dir(path string) (int, error) {
	if d := c.cache.get(path); d != nil {
		return d.fd, nil
	}
	fd, err := openBeneath(c.upper, path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	return c.cache.put(path, fd).fd, nil
}

// enter lists a directory of the upper one; leave is to be called when all in
// it has been looked at. What has gone meanwhile is empty.
func (c *Changes) enter(path string) (all []string, leave func(), err error) {
	fd, err := c.dir(path)
	if gone(err) {
		return nil, func() {}, nil
	}
	if err != nil {
		return nil, nil, atPath("open", path, err)
	}
	restore := func() {}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, atPath("stat", path, err)
	}
	if c.single && st.Mode&0o500 != 0o500 && int(st.Uid) == os.Geteuid() {
		if restore, err = opened(fd, &st, 0o700); err != nil {
			return nil, nil, atPath("open", path, err)
		}
	}
	r, err := retry(func() (int, error) { return unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		restore()
		return nil, nil, atPath("open", path, err)
	}
	all, err = c.names(r)
	unix.Close(r)
	if err != nil {
		restore()
		return nil, nil, atPath("list", path, err)
	}
	size := heldBy(all)
	return all, func() { c.held -= size; restore() }, nil
}

// opened gives the owner of what fd names some rights to it until restore is
// called: the root of a container needs none, and an ordinary user outside
// does.
func opened(fd int, st *unix.Stat_t, rights uint32) (restore func(), err error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Chmod(procFD(own), st.Mode&0o7777|rights); err != nil {
		unix.Close(own)
		return nil, err
	}
	return func() {
		_ = unix.Chmod(procFD(own), st.Mode&0o7777) // it was allowed a moment ago
		unix.Close(own)
	}, nil
}

func heldBy(names []string) (n int64) {
	for _, name := range names {
		n += int64(len(name)) + nameCost
	}
	return n
}

var errNames = errors.New("the names in its directories take too much memory")

// names is the function names, within maxNames.
func (c *Changes) names(fd int) ([]string, error) {
	var out []string
	buf := make([]byte, 32<<10)
	for held := c.held; ; {
		n, err := retry(func() (int, error) { return unix.ReadDirent(fd, buf) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			c.held = held
			slices.Sort(out)
			return out, nil
		}
		from := len(out)
		_, _, out = unix.ParseDirent(buf[:n], -1, out)
		if held += heldBy(out[from:]); held > maxNames {
			return nil, &layertar.Error{Kind: layertar.Limit, Err: errNames}
		}
	}
}

// lookUpper says what the upper directory has under a name; nil for nothing.
func (c *Changes) lookUpper(parent, name string, below *diskNode) (*diskNode, error) {
	path := join(parent, name)
	dir, err := c.dir(parent)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, atPath("open", parent, err)
	}
	fd, err := retry(func() (int, error) { return unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0) })
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, atPath("open", path, err)
	}
	defer unix.Close(fd)
	n, err := c.nodeOf(fd, path)
	if err == nil {
		err = c.own(n, below)
	}
	if err == nil {
		err = c.giveBack(path, n, below)
	}
	if err != nil {
		return nil, atPath("read", path, err)
	}
	return n, nil
}

func (c *Changes) nodeOf(fd int, path string) (*diskNode, error) {
	n := &diskNode{layer: -1}
	if err := unix.Fstat(fd, &n.st); err != nil {
		return nil, err
	}
	switch n.kind = kindOf(&n.st); n.kind {
	case layertar.Symlink:
		buf := make([]byte, layertar.MaxLink+1)
		k, err := unix.Readlinkat(fd, "", buf)
		n.link = string(buf[:max(k, 0)])
		return n, err
	case layertar.File, layertar.Dir:
		err := c.allowed(fd, &n.st, func() (err error) {
			n.xattrs, err = c.xattrs(procFD(fd), path)
			return err
		})
		return n, err
	}
	return n, nil
}

// allowed does what the owner may need more rights for.
func (c *Changes) allowed(fd int, st *unix.Stat_t, do func() error) error {
	err := do()
	if !c.single || !errors.Is(err, unix.EACCES) || int(st.Uid) != os.Geteuid() {
		return err
	}
	restore, err := opened(fd, st, 0o600)
	if err != nil {
		return err
	}
	defer restore()
	return do()
}

// own finds out to whom something belongs. What the container has not given
// away belongs to whom the image says, also where that could not be had on
// disk.
func (c *Changes) own(n, below *diskNode) error {
	switch {
	case c.single:
		n.uid, n.gid = 0, 0
	case c.ids.isZero():
		n.uid, n.gid = n.st.Uid, n.st.Gid
	default:
		var ok, also bool
		n.uid, ok = inside(c.ids.UIDs, n.st.Uid)
		n.gid, also = inside(c.ids.GIDs, n.st.Gid)
		if n.kind != layertar.Whiteout && !ok {
			return &UnmappedError{"user", n.st.Uid}
		}
		if n.kind != layertar.Whiteout && !also {
			return &UnmappedError{"group", n.st.Gid}
		}
	}
	n.own = ownerIDs{n.uid, n.gid}
	if below != nil && below.kind == n.kind && below.uid == n.uid && below.gid == n.gid {
		n.own = below.own
	}
	return nil
}

// inside maps an id outside of the container back.
func inside(maps []IDMap, id uint32) (uint32, bool) {
	for _, m := range maps {
		if id >= m.Outside && id-m.Outside < m.Size {
			return m.Inside + (id - m.Outside), true
		}
	}
	return 0, false
}

// Marks of an overlay without which a file or directory is not what it seems.
const (
	markRedirect = "user.overlay.redirect"
	markMetacopy = "user.overlay.metacopy"
	markOpaque   = "user.overlay.opaque"
)

// xattrs reads the attributes that a layer may have. Of the others, access
// control lists are reported: the rest is the host's.
func (c *Changes) xattrs(file, path string) (out []layertar.Xattr, err error) {
	names, err := xattrNames(func(to []byte) (int, error) { return unix.Listxattr(file, to) })
	if err != nil {
		return nil, err
	}
	var value []byte
	for _, name := range names {
		switch {
		case name == markRedirect, name == markMetacopy:
			return nil, &manifests.UnsupportedError{Subject: "the upper directory", Reason: "it was mounted with redirect_dir or metacopy (" + name + ")"}
		case strings.HasPrefix(name, "system.posix_acl"):
			c.skip(layertar.NoteXattr, path, "an access control list")
			continue
		case name == layertar.Capability:
		case !strings.HasPrefix(name, "user."), strings.HasPrefix(name, "user.overlay.") && name != markOpaque, name == "user.rootlesscontainers", name == "user.":
			continue
		}
		if value == nil {
			value = make([]byte, layertar.MaxXattrValue)
		}
		k, err := unix.Getxattr(file, name, value)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, err
		}
		a := layertar.Xattr{Name: name, Value: string(value[:k])}
		if name == layertar.Capability && !c.plainCapability(&a) {
			c.skip(layertar.NoteXattr, path, "capabilities of another user namespace")
			continue
		}
		out = append(out, a)
	}
	slices.SortFunc(out, compareNames)
	return out, nil
}

// plainCapability turns capabilities that count in the container alone into
// those of an image: the mirror of setter.xattrValue.
func (c *Changes) plainCapability(a *layertar.Xattr) bool {
	const revision, size3, size2 = 0x03000000, 24, 20
	v := []byte(a.Value)
	if len(v) != size3 || binary.LittleEndian.Uint32(v)&0xff000000 != revision {
		return true
	}
	root := uint32(0)
	if c.single {
		root = uint32(os.Geteuid())
	} else if !c.ids.isZero() {
		root, _ = mapped(c.ids.UIDs, 0)
	}
	if binary.LittleEndian.Uint32(v[size2:]) != root {
		return false
	}
	binary.LittleEndian.PutUint32(v, binary.LittleEndian.Uint32(v)-0x01000000)
	a.Value = string(v[:size2])
	return true
}

// takeOpaque takes the opaque mark out of a directory's attributes.
func (n *diskNode) takeOpaque() bool {
	i := slices.IndexFunc(n.xattrs, func(a layertar.Xattr) bool { return a.Name == markOpaque })
	if i < 0 {
		return false
	}
	opaque := n.xattrs[i].Value == "y"
	n.xattrs = slices.Delete(n.xattrs, i, i+1)
	return opaque
}

// open opens a regular file for reading: what was looked at, or nothing.
func (c *Changes) open(path string, n *diskNode) (*os.File, error) {
	if n.layer >= 0 {
		fd, err := openBeneath(c.below.layers[n.layer].root, path, unix.O_RDONLY)
		if err != nil {
			return nil, atPath("open", path, err)
		}
		return os.NewFile(uintptr(fd), path), nil
	}
	at, err := openBeneath(c.upper, path, unix.O_PATH)
	if gone(err) {
		return nil, atPath("open", path, errTorn)
	}
	if err != nil {
		return nil, atPath("open", path, err)
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, atPath("stat", path, err)
	}
	if idOf(&st) != idOf(&n.st) || st.Mode != n.st.Mode || st.Size != n.st.Size {
		return nil, atPath("open", path, errTorn)
	}
	var fd int
	err = c.allowed(at, &st, func() (err error) {
		fd, err = retry(func() (int, error) { return unix.Open(procFD(at), unix.O_RDONLY|unix.O_CLOEXEC, 0) })
		return err
	})
	if err != nil {
		return nil, atPath("open", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// errTorn reports a container that writes while its files are read.
var errTorn = errors.New("it changed while it was read; pause or stop the container")

// atPath names a path of the container in an error.
func atPath(op, path string, err error) error {
	var inner *fs.PathError
	var bad *layertar.Error
	switch {
	case errors.As(err, &inner):
		return err
	case errors.As(err, &bad):
		return &layertar.Error{Kind: bad.Kind, Entry: path, Err: bad.Err}
	}
	return fmt.Errorf("%s %s: %w", op, quote.Text("/"+path), err)
}

// skip reports what is not kept.
func (c *Changes) skip(kind, path, why string) {
	if c.res != nil {
		c.res.skip(kind, path, why)
	}
}
