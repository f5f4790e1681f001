package unpack

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
)

// rawPath is a path of any bytes that survives JSON: '%' and what is no UTF-8
// are written as %XX.
type rawPath string

// MarshalText escapes the path.
func (p rawPath) MarshalText() ([]byte, error) {
	var out []byte
	for i := 0; i < len(p); {
		r, n := utf8.DecodeRuneInString(string(p[i:]))
		if p[i] == '%' || r == utf8.RuneError && n == 1 {
			out = fmt.Appendf(out, "%%%02X", p[i])
		} else {
			out = append(out, p[i:i+n]...)
		}
		i += n
	}
	return out, nil
}

// UnmarshalText is the mirror of MarshalText.
func (p *rawPath) UnmarshalText(text []byte) error {
	var b strings.Builder
	for s := string(text); ; {
		plain, rest, ok := strings.Cut(s, "%")
		b.WriteString(plain)
		if !ok {
			break
		}
		if len(rest) < 2 {
			return fmt.Errorf("path %q ends in an escape", text)
		}
		n, err := strconv.ParseUint(rest[:2], 16, 8)
		if err != nil {
			return fmt.Errorf("path %q: %w", text, err)
		}
		b.WriteByte(byte(n))
		s = rest[2:]
	}
	*p = rawPath(b.String())
	return nil
}

// ownerMap is uid:gid by path.
type ownerMap map[rawPath]string

// layerMeta is what is recorded of a layer beside its directory.
type layerMeta struct {
	Version   int             `json:"version"`
	DiffIDs   []digest.Digest `json:"diffIDs"` // the layer, and for one that does not stand alone those below it
	Entries   int             `json:"entries"`
	Files     int             `json:"files"`
	Bytes     int64           `json:"bytes"`
	Implied   []rawPath       `json:"implied,omitempty"`
	Led       []rawPath       `json:"led,omitempty"` // as Implied, until a later entry took their place
	Opaque    []rawPath       `json:"opaque,omitempty"`
	Whiteouts []rawPath       `json:"whiteouts,omitempty"`
	Devices   []deviceNode    `json:"devices,omitempty"`
	Lost      []lostXattr     `json:"lost,omitempty"`
	// NeedsLower says that a hard link's target was not there in time, so
	// that a file of a layer below is meant if there is one, or that Fault is
	// there: the first thing that is wrong with the layer, but may be right on
	// top of others.
	NeedsLower bool        `json:"needsLower,omitempty"`
	Fault      *layerFault `json:"fault,omitempty"`
	Owners     ownerMap    `json:"owners,omitempty"` // uid:gid that could not be set, other than 0:0; hard links under each name
	Skipped    []skipped   `json:"skipped,omitempty"`
	Unlisted   int         `json:"unlisted,omitempty"` // more skipped than are listed
}

type skipped struct {
	Kind string  `json:"kind"`
	Path rawPath `json:"path"`
	Why  string  `json:"why"`
}

// maxSkipped bounds what is listed of one layer.
const maxSkipped = 1000

func (m *layerMeta) skip(kind, path, why string) {
	if len(m.Skipped) >= maxSkipped {
		m.Unlisted++
		return
	}
	m.Skipped = append(m.Skipped, skipped{kind, rawPath(path), why})
}

// deviceNode is a device of the image, which is not made.
type deviceNode struct {
	Path  rawPath   `json:"path"`
	Block bool      `json:"block,omitempty"`
	Major int64     `json:"major"`
	Minor int64     `json:"minor"`
	Mode  uint32    `json:"mode"`
	UID   uint32    `json:"uid,omitempty"`
	GID   uint32    `json:"gid,omitempty"`
	Time  time.Time `json:"time"`
}

// lostXattr is an attribute of a file or directory that could not be set.
type lostXattr struct {
	Path  rawPath `json:"path"`
	Name  rawPath `json:"name"`
	Value []byte  `json:"value"`
	entry int     // that it is of, counted as layerMeta.Entries is
}

// lose records attributes of an entry that could not be set.
func (m *layerMeta) lose(path string, entry int, list []layertar.Xattr) {
	for _, a := range list {
		m.Lost = append(m.Lost, lostXattr{rawPath(path), rawPath(a.Name), []byte(a.Value), entry})
	}
}

// devices returns the devices by path.
func (m *layerMeta) devices() map[string]deviceNode {
	all := make(map[string]deviceNode, len(m.Devices))
	for _, n := range m.Devices {
		all[string(n.Path)] = n
	}
	return all
}

// setDevices records the devices.
func (m *layerMeta) setDevices(all map[string]deviceNode) {
	m.Devices = nil
	for _, path := range slices.Sorted(maps.Keys(all)) {
		m.Devices = append(m.Devices, all[path])
	}
}

// setOwner records whose a path should be; "" takes the record away.
func (m *layerMeta) setOwner(path, by string) {
	if by == "" {
		delete(m.Owners, rawPath(path))
		return
	}
	if m.Owners == nil {
		m.Owners = ownerMap{}
	}
	m.Owners[rawPath(path)] = by
}

// addFiles adds what a fileWriter recorded.
func (m *layerMeta) addFiles(w *layerMeta) {
	m.Files += w.Files
	m.Bytes += w.Bytes
	for _, s := range w.Skipped {
		m.skip(s.Kind, string(s.Path), s.Why)
	}
	m.Unlisted += w.Unlisted
	m.Lost = append(m.Lost, w.Lost...)
}

const (
	metaVersion = 1
	metaName    = "layer.json"
	fsName      = "fs" // the layer directory itself
)

// maxRecord bounds a record of our own store: that of a layer lists the owners of
// its files, where they could not be given to them.
const maxRecord = 1 << 30

// readRecord reads a file of our own store. For what is in its place nobody
// waits.
func readRecord(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() > maxRecord) {
		err = fmt.Errorf("read %s: it is no record", path)
	}
	if err != nil {
		return nil, err
	}
	raw := make([]byte, st.Size())
	_, err = io.ReadFull(f, raw)
	return raw, err
}

// loadMeta reads the record of a layer of our own store.
func loadMeta(dir string) (*layerMeta, error) {
	raw, err := readRecord(dir + "/" + metaName)
	if err != nil {
		return nil, err
	}
	m := &layerMeta{}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("read %s/%s: %w", dir, metaName, err)
	}
	if m.Version != metaVersion {
		return nil, fmt.Errorf("read %s/%s: version %d, want %d", dir, metaName, m.Version, metaVersion)
	}
	return m, nil
}

// attrs are what a directory will have once all is written.
type attrs struct {
	mode     uint32
	uid, gid uint32
	time     unix.Timespec
	xattrs   []layertar.Xattr
	implied  bool
	hollow   bool // implied by whiteouts alone
}

// impliedAttrs are those of an implied directory that no layer below has.
func impliedAttrs() *attrs { return &attrs{mode: 0o755, implied: true} }

func entryAttrs(e *layertar.Entry) *attrs {
	return &attrs{mode: e.Mode, uid: e.UID, gid: e.GID, time: timespec(e), xattrs: e.Xattrs}
}

// xattrBytes is the memory that attributes take.
func xattrBytes(list []layertar.Xattr) int {
	const each = 64
	n := 0
	for _, a := range list {
		n += len(a.Name) + len(a.Value) + each
	}
	return n
}

func timespec(e *layertar.Entry) unix.Timespec {
	ts, err := unix.TimeToTimespec(e.ModTime)
	if err != nil { // past 2038 where the system's times have 32 bits
		return unix.Timespec{}
	}
	return ts
}

// pathSet is a set of paths.
type pathSet map[string]bool

func newPathSet(paths []rawPath) pathSet {
	s := make(pathSet, len(paths))
	for _, p := range paths {
		s[string(p)] = true
	}
	return s
}

func (s pathSet) sorted() []rawPath {
	var out []rawPath
	for _, p := range slices.Sorted(maps.Keys(s)) {
		out = append(out, rawPath(p))
	}
	return out
}

// above reports whether the set holds a directory that path lies in.
func (s pathSet) above(path string) bool {
	if len(s) == 0 || path == "." {
		return false
	}
	for path != "." {
		if path = parentOf(path); s[path] {
			return true
		}
	}
	return false
}

func parentOf(path string) string {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i]
	}
	return "."
}

func join(parent, base string) string {
	if parent == "." {
		return base
	}
	return parent + "/" + base
}
