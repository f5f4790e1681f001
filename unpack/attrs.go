package unpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// openFile is the file whose content is being written.
type openFile struct {
	fd    int
	entry *layertar.Entry
	at    int64 // written so far, holes included
}

// create opens a new file for its content.
func (x *extractor) create(d *cachedDir, e *layertar.Entry) error {
	mode := e.Mode & 0o777
	if len(e.Xattrs) > 0 {
		mode |= 0o600 // without it an ordinary user may set none
	}
	err := x.replacing(d, e.Base, func() (err error) {
		x.file.fd, err = retry(func() (int, error) {
			return unix.Openat(d.fd, e.Base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		})
		return err
	})
	if err != nil {
		x.file.fd = -1
		return err
	}
	x.file.entry, x.file.at = e, 0
	return nil
}

// content writes the next bytes of the open file.
func (x *extractor) content(p []byte) error {
	if err := x.budget.spend(int64(len(p))); err != nil {
		return err
	}
	x.file.at += int64(len(p))
	if !x.file.entry.Sparse {
		return writeAll(x.file.fd, p)
	}
	for len(p) > 0 {
		n := min(len(p), hole)
		var err error
		if bytes.Equal(p[:n], zeros[:n]) {
			_, err = unix.Seek(x.file.fd, int64(n), unix.SEEK_CUR)
		} else {
			err = writeAll(x.file.fd, p[:n])
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// hole is the unit in which the holes of sparse files are looked for.
const hole = 4096

var zeros [hole]byte

// closeFile ends the open file: length, attributes, close.
func (x *extractor) closeFile() (err error) {
	f := x.file
	x.file.fd = -1
	if f.entry.Sparse {
		err = unix.Ftruncate(f.fd, f.at)
	}
	if err == nil {
		force := x.alwaysMod || len(f.entry.Xattrs) > 0 || f.entry.Mode&0o7000 != 0 || f.entry.Mode&umask() != 0
		err = x.fdAttrs(f.fd, f.entry, force)
	}
	x.meta.Files++
	x.meta.Bytes += f.at
	return errors.Join(err, unix.Close(f.fd))
}

// fdAttrs sets what an entry says of an open file. The order matters: chown
// clears set-id bits and capabilities, and everything moves the times.
func (x *extractor) fdAttrs(fd int, e *layertar.Entry, chmod bool) error {
	if err := x.own(e.Name, e.UID, e.GID, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) }); err != nil {
		return err
	}
	if err := x.setXattrs(fd, e.Name, e.Xattrs); err != nil {
		return err
	}
	if chmod {
		if err := unix.Fchmod(fd, e.Mode); err != nil {
			return err
		}
	}
	return setTimes(fd, timespec(e))
}

// leafAttrs sets owner and times of a symlink; it has no other attributes.
func (x *extractor) leafAttrs(d *cachedDir, e *layertar.Entry) error {
	err := x.own(e.Name, e.UID, e.GID, func(uid, gid int) error {
		return unix.Fchownat(d.fd, e.Base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return err
	}
	for _, a := range e.Xattrs {
		x.meta.skip(layertar.NoteXattr, e.Name, "attribute "+quote.Clean(a.Name)+": the kernel keeps none for symlinks")
	}
	ts := timespec(e)
	return unix.UtimesNanoAt(d.fd, e.Base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// dirAttrs sets the attributes of an open directory.
func (x *extractor) dirAttrs(fd int, path string, a *attrs) error {
	err := x.setDirAttrs(fd, path, a)
	if err != nil {
		return fmt.Errorf("directory %s: %w", quote.Text(path), err)
	}
	return nil
}

func (x *extractor) setDirAttrs(fd int, path string, a *attrs) error {
	if err := x.own(path, a.uid, a.gid, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) }); err != nil {
		return err
	}
	if err := x.setXattrs(fd, path, a.xattrs); err != nil { // while the mode still allows it
		return err
	}
	if err := unix.Fchmod(fd, a.mode); err != nil {
		return err
	}
	return setTimes(fd, a.time)
}

// own gives something its owner, where that has to be set and may be; one that
// may not is recorded. To an ordinary user 0:0 is the caller's own place in an
// image, and root of a user namespace has only the owners that are mapped into
// it.
func (x *extractor) own(path string, uid, gid uint32, chown func(uid, gid int) error) error {
	if x.uid != 0 {
		x.squash(path, uid, gid)
		return nil
	}
	u, g, err := x.ids.outside(uid, gid)
	if err != nil || u == x.uid && g == x.gid {
		return err
	}
	err = chown(int(u), int(g))
	if (err == unix.EINVAL || err == unix.EPERM) && x.ids.isZero() {
		x.squash(path, uid, gid)
		return nil
	}
	return err
}

func (x *extractor) squash(path string, uid, gid uint32) {
	if uid == 0 && gid == 0 {
		return
	}
	if x.meta.Owners == nil {
		x.meta.Owners = map[rawPath]string{}
	}
	x.meta.Owners[rawPath(path)] = owner(uid, gid)
}

// setXattrs sets attributes; what the file system or the caller's rights do
// not allow is skipped and reported.
func (x *extractor) setXattrs(fd int, path string, list []layertar.Xattr) error {
	if x.noXattrs {
		return nil
	}
	for _, a := range list {
		err := unix.Fsetxattr(fd, a.Name, x.xattrValue(a), 0)
		why := ""
		switch err {
		case nil:
			continue
		case unix.EOPNOTSUPP:
			why = "the file system keeps no such attributes"
		case unix.EPERM, unix.EACCES:
			why = "only root may set it"
		case unix.EINVAL:
			why = "the kernel refuses its value"
		case unix.E2BIG, unix.ERANGE:
			why = "larger than the file system keeps"
		case unix.ENOSPC:
			if x.budget.full() {
				return err
			}
			why = "larger than the file system keeps" // ext4 says so by ENOSPC
		default:
			return fmt.Errorf("set attribute %s: %w", quote.Text(a.Name), err)
		}
		x.meta.skip(layertar.NoteXattr, path, "attribute "+quote.Clean(a.Name)+": "+why)
	}
	return nil
}

// xattrValue is what is written for an attribute. Under a map, capabilities of
// a file are those of its root: the kernel heeds the others in no user
// namespace but the first (capabilities(7), "File capability extended attribute
// versioning").
func (x *extractor) xattrValue(a layertar.Xattr) []byte {
	const revision, revisionMask, size2 = 0x02000000, 0xff000000, 20
	value := []byte(a.Value)
	if x.ids.isZero() || a.Name != "security.capability" || len(value) != size2 || binary.LittleEndian.Uint32(value)&revisionMask != revision {
		return value
	}
	root, _ := mapped(x.ids.UIDs, 0)
	binary.LittleEndian.PutUint32(value, binary.LittleEndian.Uint32(value)+0x01000000)
	return binary.LittleEndian.AppendUint32(value, root)
}

// noMarks explains why a layer cannot be kept as overlay file systems want it.
func noMarks(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
		return &manifests.UnsupportedError{Subject: "layer directories here",
			Reason: fmt.Sprintf("the file system or the kernel refuses whiteouts to this user (%v)", err)}
	}
	return err
}

// atEntry names the entry in an error that does not.
func atEntry(e *layertar.Entry, err error) error {
	var bad *layertar.Error
	if errors.As(err, &bad) {
		if bad.Entry == "" {
			return &layertar.Error{Kind: bad.Kind, Entry: e.Name, Err: bad.Err}
		}
		return err
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("%s %s: %w", e.Kind, quote.Text(e.Name), err)
}
