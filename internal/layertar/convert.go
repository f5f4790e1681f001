package layertar

import (
	"archive/tar"
	"maps"
	"slices"
	"strings"
)

// convert turns a header into an entry.
func convert(h *tar.Header, src *source) (*Entry, error) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		e := &Entry{Name: "pax_global_header", Parent: ".", Base: "pax_global_header"}
		e.ignore(NoteGlobal, "a PAX global header; it applies to nothing here")
		return e, nil
	}
	// A text of an extended header is part of all of it in memory, which may
	// be a megabyte, and entries are kept.
	if len(h.PAXRecords) > 0 {
		h.Name, h.Linkname = strings.Clone(h.Name), strings.Clone(h.Linkname)
	}
	name, err := clean(h.Name, src.lim.Depth)
	if err != nil {
		return nil, err
	}
	if err := oneReading(h, src); err != nil {
		return nil, err
	}
	e := &Entry{Name: name, Mode: uint32(h.Mode) & 0o7777, Sparse: isSparse(h)}
	if e.Sparse {
		e.Size = h.Size
	}
	e.Parent, e.Base = split(name)
	if err := hides(e); err != nil || e.Kind != 0 {
		return e, err
	}
	if err := setKind(e, h, src.lim.Depth); err != nil {
		return nil, err
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= maxID || int64(h.Gid) >= maxID {
		return nil, bad(Malformed, "its owner %d:%d is out of range", h.Uid, h.Gid)
	}
	e.UID, e.GID = uint32(h.Uid), uint32(h.Gid)
	clampTime(e, h.ModTime)
	return e, setXattrs(e, h, src.lim.Xattrs)
}

func setKind(e *Entry, h *tar.Header, maxDepth int64) (err error) {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		e.Kind, e.Size = File, h.Size
		if strings.HasSuffix(h.Name, "/") {
			return bad(Malformed, "a regular file whose name ends in a slash") // a directory to some tools
		}
	case tar.TypeDir:
		e.Kind = Dir
	case tar.TypeSymlink:
		e.Kind, e.Linkname = Symlink, h.Linkname
		err = checkSymlink(h.Linkname)
	case tar.TypeLink:
		e.Kind = Hardlink
		e.Linkname, err = linkTarget(h.Linkname, maxDepth)
	case tar.TypeFifo:
		e.Kind = Fifo
	case tar.TypeChar, tar.TypeBlock:
		e.Kind, e.Major, e.Minor, e.Block = Device, h.Devmajor, h.Devminor, h.Typeflag == tar.TypeBlock
		if h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0 {
			return bad(Malformed, "character device 0:0, which is an overlay file system's own whiteout")
		}
		if uint64(h.Devmajor) > MaxMajor || uint64(h.Devminor) > MaxMinor {
			return bad(Malformed, "device %d:%d, of which no kernel has the numbers", h.Devmajor, h.Devminor)
		}
		e.note(NoteDevice, "device %c %d:%d", map[byte]rune{tar.TypeChar: 'c', tar.TypeBlock: 'b'}[h.Typeflag], h.Devmajor, h.Devminor)
	}
	if err == nil && e.Name == "." && e.Kind != Dir {
		return bad(Malformed, "the top directory as a %s", e.Kind)
	}
	return err
}

func checkSymlink(target string) error {
	switch {
	case target == "":
		return bad(Malformed, "a symlink to nothing")
	case strings.IndexByte(target, 0) >= 0:
		return bad(Malformed, "its target holds a NUL")
	case len(target) > MaxLink:
		return bad(Limit, "its target is longer than %d bytes", MaxLink)
	}
	return nil
}

// Records of PAX headers (POSIX pax; GNU tar's sparse formats).
const (
	paxPath       = "path"
	paxLink       = "linkpath"
	paxSize       = "size"
	paxSparse     = "GNU.sparse."
	paxSparseName = "GNU.sparse.name"
	paxXattr      = "SCHILY.xattr."
	paxACL        = "SCHILY.acl."
)

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, paxSparse) {
			return true
		}
	}
	return false
}

// ustarSize is the first size that a ustar header cannot say in octal.
const ustarSize = 1 << 33

// oneReading refuses headers whose parts contradict each other: another tool
// may believe the other part.
func oneReading(h *tar.Header, src *source) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
	case tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		if h.Size != 0 { // some tools skip what follows, some read it as entries
			return bad(Malformed, "an entry of type %+q with a size, %d", h.Typeflag, h.Size)
		}
	default:
		return bad(Malformed, "entry type %+q is unknown", h.Typeflag)
	}
	r := h.PAXRecords
	if p := r[paxPath]; p != "" && p != h.Name && r[paxSparseName] != h.Name {
		return bad(Malformed, "its PAX header calls it %+.200q", p)
	}
	if p := r[paxLink]; p != "" && p != h.Linkname {
		return bad(Malformed, "its PAX header has it link to %+.200q", p)
	}
	if r[paxSize] == "" || isSparse(h) || h.Size >= ustarSize {
		return nil
	}
	if n, ok := src.rawSize(); !ok || n != h.Size {
		return bad(Malformed, "two sizes, %d and %d", h.Size, n)
	}
	return nil
}

func setXattrs(e *Entry, h *tar.Header, most int64) error {
	if len(h.PAXRecords) == 0 {
		return nil
	}
	n, lists := int64(0), false
	for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		name, ok := strings.CutPrefix(k, paxXattr)
		if !ok {
			if strings.HasPrefix(k, paxACL) && !lists { // a header may have thousands
				lists = true
				e.note(NoteXattr, "an access control list")
			}
			continue
		}
		if n++; n > most {
			return past(LimitXattrs, "more than %d extended attributes", most)
		}
		if note := foreign(name); note != "" {
			e.note(note, "extended attribute %+.200q", name)
			continue
		}
		value := h.PAXRecords[k]
		if len(name) > MaxXattrName || len(value) > MaxXattrValue {
			return bad(Limit, "extended attribute %+.50q is larger than the kernel takes", name)
		}
		e.Xattrs = append(e.Xattrs, Xattr{strings.Clone(name), strings.Clone(value)})
	}
	return nil
}

// Capability is the one attribute outside user.* that a layer may set.
const Capability = "security.capability"

// foreign returns the note with which an attribute is dropped, "" if it is to
// be kept.
func foreign(name string) string {
	switch {
	case strings.HasPrefix(name, "user.overlay."), strings.HasPrefix(name, "trusted.overlay."):
		return NoteOverlay
	case name == "user.rootlesscontainers" || name == "user.":
		return NoteXattr
	case strings.HasPrefix(name, "user."), name == Capability:
		return ""
	}
	return NoteXattr
}
