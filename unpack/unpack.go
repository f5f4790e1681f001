package unpack

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// Options for unpacking. The zero value works.
type Options struct {
	Jobs     int                // layers unpacked at once; 0 means GOMAXPROCS. Each takes some 8 MiB of memory.
	Progress manifests.Progress // told of the bytes of layer blobs that are read
	Limits   layertar.Limits    // of each layer; Compressed is set for each
	Window   int64              // bytes a zstd layer's window may take; 0 means codec.DefaultWindow
	Memory   int64              // bytes of names that may be held of all layers; 0 means DefaultMemory
	// NoXattrs leaves out all extended attributes. It has no effect on a
	// LayerStore, whose layers are shared.
	NoXattrs bool
	// IDs maps owners, for root; an owner it does not have is an
	// *UnmappedError. It has no effect on a LayerStore, whose layers are
	// shared.
	IDs IDs
	// Store, if not nil, is where a merged root filesystem may take layers from
	// that are unpacked already, for root on a file system whose files can
	// share blocks. Such layers are not read again.
	Store *LayerStore
	// Namespace is the user namespace that the caller works in, as the
	// namespace around it has its ids, for a runtime bundle that is to be run
	// from there. Zero for a caller that works in none of its own.
	Namespace IDs
}

func (o Options) jobs() int {
	if o.Jobs > 0 {
		return o.Jobs
	}
	return runtime.GOMAXPROCS(0)
}

// Result tells what was unpacked. Entries, Files and Bytes are sums over all
// layers of the image, those that were there already included.
type Result struct {
	Entries        int   // entries of the layers' tars
	Files          int   // regular files among them
	Bytes          int64 // their sizes
	LayersNew      int   // layers unpacked
	LayersShared   int   // layers that were there already
	Skipped        []Skipped
	SquashedOwners int // entries that belong to the caller instead of their owner; of a merged tree, names in it
	// OwnersFile is where a merged tree's are recorded; "" for none. Those of
	// layers are recorded beside each.
	OwnersFile string
}

// Skipped is something of a layer that was not made as the layer has it.
type Skipped struct {
	Kind  string // "device", "xattr", "overlay-xattr", "time", "aufs", "global-header", "end", "config"; "more" sums up what is not listed
	Layer int    // counted from 1; 0 is no layer's
	Path  string // as in the layer; foreign text. Of the config: which part
	Why   string // safe to print
}

// add counts a layer of an image.
func (r *Result) add(layer int, m *layerMeta) {
	r.Entries += m.Entries
	r.Files += m.Files
	r.Bytes += m.Bytes
	r.SquashedOwners += len(m.Owners)
	for _, s := range m.Skipped {
		r.Skipped = append(r.Skipped, Skipped{s.Kind, layer, string(s.Path), s.Why})
	}
	if m.Unlisted > 0 {
		r.Skipped = append(r.Skipped, Skipped{"more", layer, "", fmt.Sprintf("and %d more", m.Unlisted)})
	}
}

// Rootfs is an image's layers as directories, ready for an overlay mount. The
// directories are shared and must not be written to.
type Rootfs struct {
	// Lower holds the lower directories, absolute, topmost first; there are at
	// least two, as the kernel wants for a mount without an upper directory. Whiteouts are character devices 0:0, opaque directories
	// have user.overlay.opaque=y.
	Lower []string
	// Mode, UID and GID are the root directory's own, which an overlay takes
	// from its upper directory. UID and GID are the caller's where the caller
	// is not root.
	Mode     uint32
	UID, GID uint32
}

// maxLower is the kernel's bound on lower directories of one overlay.
const maxLower = 500

// MountLine is the command that mounts the root filesystem at target. With
// upper and work it is writable; without them it is read-only. The kernel takes
// no more than a page of options this way, which some forty layers fill;
// fsconfig(2) takes more.
func (r *Rootfs) MountLine(upper, work, target string) string {
	lower := make([]string, len(r.Lower))
	for i, dir := range r.Lower {
		lower[i] = lowerEscape.Replace(dir)
	}
	options := "userxattr,lowerdir=" + strings.Join(lower, ":")
	if upper != "" {
		options += ",upperdir=" + dirEscape.Replace(upper) + ",workdir=" + dirEscape.Replace(work)
	} else {
		options = "ro," + options
	}
	return "mount -t overlay overlay -o " + shellQuote(options) + " " + shellQuote(target)
}

// An overlay's options are cut at commas, and its lower directories at colons
// (kernel, Documentation/filesystems/overlayfs.rst).
var (
	lowerEscape = strings.NewReplacer(`\`, `\\`, ",", `\,`, ":", `\:`)
	dirEscape   = strings.NewReplacer(`\`, `\\`, ",", `\,`)
)

// shellQuote makes one word of s for a POSIX shell.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+=:,@%", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
