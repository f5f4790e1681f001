// Package layertar reads the tar of an image layer strictly (OCI image
// specification, layer.md). It knows nothing of images or file systems: it
// turns a stream into entries that are safe to act upon, and refuses what two
// tools could read differently or what aims outside its tree.
//
// Terms: a layer's entry either adds something (file, directory, symlink, hard
// link, fifo, device), hides something of the layers below (whiteout, opaque
// directory), or means nothing (Ignored). Names are cleaned, relative and free
// of ".."; a leading slash is dropped.
//
// What is wrong with a tar is an *Error; errors of the stream below are
// returned as they are. What is taken though not kept whole (attributes of
// foreign namespaces, impossible times, AUFS's own files) is a Note.
//
// Symlinks inside the tree are not looked at: that a name leads through one is
// for the extractor to see.
package layertar

import (
	"fmt"
	"time"
)

// Kind says what an entry is.
type Kind uint8

// The kinds of entry.
const (
	File Kind = iota + 1
	Dir
	Symlink
	Hardlink
	Fifo
	Device   // a character or block device
	Whiteout // hides Target in the layers below
	Opaque   // hides all that the layers below have in the directory Target
	Ignored  // means nothing in a layer; Notes say why
)

var kindNames = [...]string{"?", "file", "directory", "symlink", "hard link", "fifo", "device", "whiteout", "opaque directory", "ignored entry"}

// String is the kind's name for people.
func (k Kind) String() string {
	if int(k) >= len(kindNames) {
		k = 0
	}
	return kindNames[k]
}

// Entry is one member of a layer.
type Entry struct {
	Name     string // cleaned and relative; "." is the top
	Parent   string // directory of Name, "." at the top
	Base     string // last component of Name
	Kind     Kind
	Target   string // of a Whiteout or Opaque: the name hidden, or the directory emptied
	Linkname string // of a Symlink: as it is; of a Hardlink: a cleaned name
	Mode     uint32 // the low twelve bits
	UID, GID uint32 // below 2^32-1
	ModTime  time.Time
	Size     int64   // of a File, holes included
	Sparse   bool    // a File stored with holes
	Major    int64   // of a Device
	Minor    int64   // of a Device
	Block    bool    // a block Device
	Xattrs   []Xattr // those a layer may set, sorted by name
	Notes    []Note
}

// Xattr is an extended attribute.
type Xattr struct{ Name, Value string }

// Note says what of an entry was not taken as it is.
type Note struct {
	Kind string // one of the Note… words
	Text string // why, for people; foreign names in it are quoted
}

// The words of Note.Kind.
const (
	NoteOverlay = "overlay-xattr" // an overlay file system's mark, dropped
	NoteXattr   = "xattr"         // an attribute or ACL of a foreign namespace, dropped
	NoteTime    = "time"          // a time that was clamped
	NoteDevice  = "device"        // a device node
	NoteAUFS    = "aufs"          // a file of AUFS itself
	NoteGlobal  = "global-header" // a PAX global header, applied to nothing
	NoteEnd     = "end"           // the archive has no proper end, or something follows it
)

// Error reports a tar that is at fault.
type Error struct {
	Kind  string // one of the words below, which are those of manifests.Kind
	Entry string // name of the entry at fault as the tar has it; may be empty
	Err   error
}

// The words of Error.Kind.
const (
	UnsafePath = "unsafe-path" // a name that leads outside the tree
	Limit      = "limit"       // a bound is passed
	Malformed  = "malformed"   // not what the format says, or readable in two ways
	Truncated  = "truncated"   // the tar ends inside an entry
)

func (e *Error) Error() string {
	if e.Entry == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("entry %+.200q: %v", e.Entry, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Bounds that no caller needs to move.
const (
	MaxPath       = 4095      // bytes of a name; PATH_MAX less its NUL
	MaxComponent  = 255       // bytes of one component; NAME_MAX
	MaxLink       = 4095      // bytes of a symlink's target that the kernel stores
	MaxMajor      = 1<<12 - 1 // of a device's numbers, as the kernel has them
	MaxMinor      = 1<<20 - 1
	MaxXattrName  = 255      // XATTR_NAME_MAX
	MaxXattrValue = 1 << 16  // XATTR_SIZE_MAX
	MaxXattrList  = 1 << 16  // XATTR_LIST_MAX
	MaxTail       = 1 << 20  // bytes after the end, unless all are NUL: they are hashed and never seen
	maxBlank      = 64 << 20 // NULs after the end: some pad to a record, and a blob of nothing else would only cost time
	RatioFree     = 1 << 30  // a tar up to here is harmless, whatever its compressed form
	sparseFree    = 64 << 20 // of a sparse file's size is free of its limit …
	sparseSum     = 1 << 30  // … and of all of them together, which cost time though no space …
	sparseEarly   = 16 << 30 // … which is looked at before its end once this much has been given
	minTime       = -1 << 31 // 1901: what file systems with 32-bit times hold
	maxTime       = 1 << 33  // 2242
	maxID         = 1<<32 - 1
)
