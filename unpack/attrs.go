package unpack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// setter gives what was made its attributes.
type setter struct {
	noXattrs  bool
	ids       *IDs // for owners; its zero value leaves them
	budget    *budget
	uid, gid  uint32     // that new files get
	alwaysMod bool       // new files may not get the mode they are made with
	meta      *layerMeta // for what could not be set
}

// ownFile gives an open file its owner. It comes before everything else: chown
// clears set-id bits and capabilities.
func (s *setter) ownFile(fd int, d *cachedDir, e *layertar.Entry) error {
	return s.own(d.path, e.Base, e.UID, e.GID, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) })
}

// fdAttrs sets what else an entry says of an open file. It comes last: content
// clears capabilities, and everything moves the times. It returns the attributes
// that could not be set.
func (s *setter) fdAttrs(fd int, e *layertar.Entry, chmod bool) (lost []layertar.Xattr, err error) {
	if lost, err = s.setXattrs(fd, e.Name, e.Xattrs); err != nil {
		return nil, err
	}
	if chmod {
		if err := unix.Fchmod(fd, e.Mode); err != nil {
			return nil, err
		}
	}
	return lost, setTimes(fd, timespec(e))
}

// leafAttrs sets owner and times of a symlink; it has no other attributes.
func (s *setter) leafAttrs(d *cachedDir, e *layertar.Entry) error {
	err := s.own(d.path, e.Base, e.UID, e.GID, func(uid, gid int) error {
		return unix.Fchownat(d.fd, e.Base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return err
	}
	for _, a := range e.Xattrs {
		s.meta.skip(layertar.NoteXattr, e.Name, "attribute "+quote.Clean(a.Name)+": the kernel keeps none for symlinks")
	}
	ts := timespec(e)
	return unix.UtimesNanoAt(d.fd, e.Base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// dirAttrs sets the attributes of an open directory.
func (s *setter) dirAttrs(fd int, path string, a *attrs) error {
	err := s.setDirAttrs(fd, path, a)
	if err != nil {
		return fmt.Errorf("directory %s: %w", quote.Text(path), err)
	}
	return nil
}

func (s *setter) setDirAttrs(fd int, path string, a *attrs) error {
	if err := s.own(parentOf(path), baseOf(path), a.uid, a.gid, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) }); err != nil {
		return err
	}
	lost, err := s.setXattrs(fd, path, a.xattrs) // while the mode still allows it
	if err != nil {
		return err
	}
	s.meta.lose(path, s.meta.Entries, lost)
	if err := unix.Fchmod(fd, a.mode); err != nil {
		return err
	}
	return setTimes(fd, a.time)
}

// own gives something its owner, where that has to be set and may be; one that
// may not is recorded. To an ordinary user 0:0 is the caller's own place in an
// image, and root of a user namespace has only the owners that are mapped into
// it.
func (s *setter) own(dir, base string, uid, gid uint32, chown func(uid, gid int) error) error {
	if s.uid != 0 {
		return s.squash(join(dir, base), uid, gid)
	}
	u, g, err := s.ids.outside(uid, gid)
	if err != nil {
		return err
	}
	if u == s.uid && g == s.gid {
		if s.meta.Owners != nil {
			s.meta.setOwner(join(dir, base), "")
		}
		return nil
	}
	err = chown(int(u), int(g))
	if (err == unix.EINVAL || err == unix.EPERM) && s.ids.isZero() {
		return s.squash(join(dir, base), uid, gid)
	}
	if err == nil && s.meta.Owners != nil {
		s.meta.setOwner(join(dir, base), "")
	}
	return err
}

func (s *setter) squash(path string, uid, gid uint32) error {
	by := ""
	if uid != 0 || gid != 0 {
		by = owner(uid, gid)
	}
	return s.recordOwner(path, by)
}

// recordOwner records whose a path should be, within bounds.
func (s *setter) recordOwner(path, by string) error {
	if _, known := s.meta.Owners[rawPath(path)]; by != "" && !known {
		if err := s.budget.hold(recorded(path) + ownerCost); err != nil {
			return err
		}
	}
	s.meta.setOwner(path, by)
	return nil
}

// setXattrs sets attributes; what the file system or the caller's rights do
// not allow is skipped, reported and returned.
func (s *setter) setXattrs(fd int, path string, list []layertar.Xattr) (lost []layertar.Xattr, err error) {
	if s.noXattrs {
		return nil, nil
	}
	for _, a := range list {
		err := unix.Fsetxattr(fd, a.Name, s.xattrValue(a), 0)
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
			if s.budget.full() {
				return nil, err
			}
			why = "larger than the file system keeps" // ext4 says so by ENOSPC
		default:
			return nil, fmt.Errorf("set attribute %s: %w", quote.Text(a.Name), err)
		}
		s.meta.skip(layertar.NoteXattr, path, "attribute "+quote.Clean(a.Name)+": "+why)
		lost = append(lost, a)
	}
	if len(lost) > 0 {
		err = s.budget.hold(len(lost)*recorded(path) + xattrBytes(lost))
	}
	return lost, err
}

// xattrValue is what is written for an attribute. Under a map, capabilities of
// a file are those of its root: the kernel heeds the others in no user
// namespace but the first (capabilities(7), "File capability extended attribute
// versioning").
func (s *setter) xattrValue(a layertar.Xattr) []byte {
	const revision, revisionMask, size2 = 0x02000000, 0xff000000, 20
	value := []byte(a.Value)
	if s.ids.isZero() || a.Name != "security.capability" || len(value) != size2 || binary.LittleEndian.Uint32(value)&revisionMask != revision {
		return value
	}
	root, _ := mapped(s.ids.UIDs, 0)
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
	if errors.Is(err, unix.EMLINK) {
		return &layertar.Error{Kind: layertar.Limit, Entry: e.Name, Err: errors.New("more links than the file system takes")}
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("%s %s: %w", e.Kind, quote.Text(e.Name), err)
}
