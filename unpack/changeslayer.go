package unpack

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// LayerResult tells what a layer of changes, or a tar of a container, holds.
type LayerResult struct {
	TarResult
	Removed int       // whiteouts and opaque directories
	Skipped []Skipped // sorted by path; Kind is "socket", "name", "xattr", "device" or "more"
	more    int
}

func (r *LayerResult) skip(kind, path, why string) {
	if len(r.Skipped) >= maxSkipped {
		r.more++
		return
	}
	r.Skipped = append(r.Skipped, Skipped{Kind: kind, Path: path, Why: why})
}

func (r *LayerResult) done() *LayerResult {
	if r.more > 0 {
		r.Skipped = append(r.Skipped, Skipped{Kind: "more", Why: fmt.Sprintf("and %d more", r.more)})
	}
	return r
}

// WriteLayer writes the changes as the tar of a layer (OCI image specification,
// layer.md) to w: a PAX tar, parents before what is in them, names in byte
// order, owners as numbers as the container sees them, times to the
// nanosecond, attributes by the list that unpacking goes by, hard links, files
// with holes in GNU's sparse format 1.0. The same changes give the same bytes.
//
// What is gone is a whiteout; a directory that hides what the image has in it
// has an opaque whiteout and all that it holds. What was copied to the upper
// directory and is as the image has it is left out, but for the parents of what
// is not: they are written with their attributes, as all engines do. The time
// of the top directory is not kept.
//
// An owner that could not be set when the image was unpacked, and that the
// container has not changed, is the image's again: that is so for a path that
// the image has too, as the same kind of thing. Sockets, and names that a layer
// gives another meaning, are left out and reported.
//
// The tar is read again while it is written, by the rules of unpacking: what
// these refuse is a *manifests.ContentError, of kind limit where a bound of
// ChangesOptions.Limits is passed.
func (c *Changes) WriteLayer(ctx context.Context, w io.Writer) (*LayerResult, error) {
	c.res = &LayerResult{}
	check := startCheck(c.o.Limits)
	x := newLayerWriter(c, io.MultiWriter(w, check.in))
	err := x.layer(ctx)
	if cerr := check.end(err); cerr != nil && (err == nil || errors.Is(err, cerr)) {
		err = cerr
	}
	if err != nil {
		return nil, contentError(err)
	}
	c.res.TarResult = x.res
	return c.res.done(), nil
}

// contentError gives what is wrong with a tree the type of all bad content.
func contentError(err error) error {
	var bad *layertar.Error
	if errors.As(err, &bad) {
		return &manifests.ContentError{Kind: manifests.Kind(bad.Kind), Subject: "what the container wrote", Err: err}
	}
	return err
}

// layerCheck reads a layer's tar while it is written.
type layerCheck struct {
	in   *io.PipeWriter
	done chan error
}

func startCheck(limits layertar.Limits) *layerCheck {
	out, in := io.Pipe()
	l := &layerCheck{in, make(chan error, 1)}
	go func() {
		err := readThrough(out, limits)
		out.CloseWithError(err) // nil: all has been read
		l.done <- err
	}()
	return l
}

func readThrough(tarball io.Reader, limits layertar.Limits) error {
	r := layertar.NewReader(tarball, limits)
	for {
		e, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Kind == layertar.Ignored {
			return &layertar.Error{Kind: layertar.Malformed, Entry: e.Name, Err: errors.New("it means nothing in a layer")}
		}
	}
}

// end tells what the check found, once the tar has been written or err has
// ended it.
func (l *layerCheck) end(err error) error {
	l.in.CloseWithError(err)
	return <-l.done
}

// layerWriter writes members from disk.
type layerWriter struct {
	tarWriter
	c       *Changes
	pending []*change         // parents that are written if something in them is
	first   map[fileID]string // the names that further hard links link to
	barred  string            // a directory that no layer can have, with a slash; nothing in it is written
}

func newLayerWriter(c *Changes, w io.Writer) *layerWriter {
	x := &layerWriter{c: c, first: map[fileID]string{}}
	x.out = bufio.NewWriterSize(w, 256<<10)
	x.buf = make([]byte, 64<<10)
	x.tw = tar.NewWriter(x.out)
	return x
}

func (x *layerWriter) layer(ctx context.Context) error {
	if err := x.c.walk(ctx, x.visit); err != nil {
		return err
	}
	if err := x.tw.Close(); err != nil {
		return err
	}
	return x.out.Flush()
}

func (x *layerWriter) visit(ch *change) error {
	if x.barred != "" && strings.HasPrefix(ch.path, x.barred) {
		return nil
	}
	for n := len(x.pending); n > 0 && !strings.HasPrefix(ch.path, x.pending[n-1].path+"/"); n-- {
		x.pending = x.pending[:n-1]
	}
	switch {
	case ch.up == nil:
		return x.whiteout(ch)
	case !x.sayable(ch):
		if ch.up.isDir() {
			x.barred = ch.path + "/"
		}
		return x.whiteout(ch)
	case ch.changed && !(ch.quiet && ch.below == nil) || ch.hidden || ch.opaque:
		if err := x.parents(); err != nil {
			return err
		}
		return x.write(ch)
	case ch.up.isDir() && ch.path != ".":
		x.pending = append(x.pending, ch)
	}
	return nil
}

// sayable tells whether a layer can have something under this name.
func (x *layerWriter) sayable(ch *change) bool {
	base := baseOf(ch.path)
	switch {
	case ch.up.kind == 0:
		x.c.skip("socket", ch.path, "no layer can have one")
	case strings.HasPrefix(base, ".wh."):
		x.c.skip("name", ch.path, "in a layer such a name hides something")
	case strings.Trim(ch.path, "\n") == "":
		x.c.skip("name", ch.path, "nothing but newlines")
	default:
		return true
	}
	return false
}

// parents writes the directories that lead to what is written next.
func (x *layerWriter) parents() error {
	for _, ch := range x.pending {
		if err := x.write(ch); err != nil {
			return err
		}
	}
	x.pending = x.pending[:0]
	return nil
}

func (x *layerWriter) write(ch *change) error {
	if err := x.member(ch.path, ch.up); err != nil || !ch.opaque {
		return err
	}
	return x.mark(join(ch.path, ".wh..wh..opq"))
}

// whiteout hides what the image has at a path, if it is not hidden already.
func (x *layerWriter) whiteout(ch *change) error {
	if ch.hidden || ch.below == nil {
		return nil
	}
	if err := x.parents(); err != nil {
		return err
	}
	return x.mark(join(parentOf(ch.path), ".wh."+baseOf(ch.path)))
}

func (x *layerWriter) mark(name string) error {
	x.c.res.Removed++
	x.res.Entries++
	return x.tw.WriteHeader(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name, ModTime: time.Unix(0, 0)})
}

// member writes one name.
func (x *layerWriter) member(path string, n *diskNode) error {
	h := x.header(path, n)
	x.res.Entries++
	if n.kind != layertar.Dir && n.st.Nlink > 1 {
		if first, ok := x.first[idOf(&n.st)]; ok {
			h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
			return x.tw.WriteHeader(h)
		}
		x.first[idOf(&n.st)] = path
	}
	if n.kind != layertar.File {
		return x.tw.WriteHeader(h)
	}
	x.res.Files++
	x.res.Bytes += h.Size
	if h.Size == 0 {
		return x.tw.WriteHeader(h)
	}
	f, err := x.c.open(path, n)
	if err != nil {
		return err
	}
	defer f.Close()
	if parts, ok, err := findHoles(int(f.Fd()), h.Size); err != nil {
		return atPath("read", path, err)
	} else if ok {
		err = x.sparse(h, parts, f)
		return torn(path, err)
	}
	return torn(path, x.whole(h, f))
}

func torn(path string, err error) error {
	if err == io.ErrUnexpectedEOF {
		return atPath("read", path, errTorn)
	}
	return err
}

func (x *layerWriter) header(path string, n *diskNode) *tar.Header {
	st := &n.st
	h := &tar.Header{
		Format: tar.FormatPAX, Name: path, Mode: int64(st.Mode & 0o7777), Uid: int(n.own.uid), Gid: int(n.own.gid),
		ModTime: x.time(st), Typeflag: tar.TypeReg, Linkname: n.link,
	}
	switch n.kind {
	case layertar.File:
		h.Size = st.Size
	case layertar.Dir:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case layertar.Symlink:
		h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
	case layertar.Fifo:
		h.Typeflag = tar.TypeFifo
	case layertar.Device:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	}
	for _, a := range n.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+a.Name] = a.Value
	}
	return h
}

// time is the time of a member. One that no layer can have is left for the
// check to report.
func (x *layerWriter) time(st *unix.Stat_t) time.Time {
	t := time.Unix(st.Mtim.Unix()).UTC()
	if latest := x.c.o.Latest; !latest.IsZero() && t.After(latest) {
		return latest.UTC()
	}
	return t
}

// Bounds on the parts of a file with holes.
const (
	maxDiskParts = 32 << 10 // more than package tar reads is of use to nobody
	maxDiskZeros = 1 << 30  // bytes of holes written out as zeros because the parts are too many
)

// findHoles finds the parts of a file that the file system has with holes; ok
// is false for another. Where the holes are said to be depends on the file
// system; blocks of zeros are the same everywhere.
func findHoles(fd int, size int64) (list []extent, ok bool, err error) {
	if at, err := unix.Seek(fd, 0, unix.SEEK_HOLE); err != nil || at >= size {
		_, err = unix.Seek(fd, 0, unix.SEEK_SET)
		return nil, false, err
	}
	p := &parts{gap: hole, most: maxDiskParts}
	buf := make([]byte, 64*hole)
	data := int64(0)
	for at := int64(0); at < size; {
		from, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err != nil {
			return nil, false, err
		}
		to, err := unix.Seek(fd, from, unix.SEEK_HOLE)
		if err != nil {
			return nil, false, err
		}
		from, to = from&^(hole-1), min((to+hole-1)&^(hole-1), size)
		from = max(from, at)
		data += to - from
		if err := p.scan(fd, from, to, buf); err != nil {
			return nil, false, err
		}
		at = max(to, at+1)
	}
	stored := int64(0)
	for _, e := range p.list {
		stored += e.end - e.at
	}
	if stored-data > maxDiskZeros {
		return nil, false, &layertar.Error{Kind: layertar.Limit, Err: errors.New("it has too many holes")}
	}
	_, err = unix.Seek(fd, 0, unix.SEEK_SET)
	return withEnd(p.list, size), true, err
}

// scan looks for parts in a range of a file.
func (p *parts) scan(fd int, from, to int64, buf []byte) error {
	for p.pos = from; p.pos < to; {
		want := buf[:min(int64(len(buf)), to-p.pos)]
		n, err := retry(func() (int, error) { return unix.Pread(fd, want, p.pos) })
		if err != nil {
			return err
		}
		if n < len(want) {
			return errTorn
		}
		p.add(want)
	}
	return nil
}

// withEnd adds the empty part by which a hole at the end is known.
func withEnd(list []extent, size int64) []extent {
	if len(list) == 0 || list[len(list)-1].end < size {
		return append(slices.Clip(list), extent{size, size})
	}
	return list
}

var errLongPath = fmt.Errorf("its path is longer than %d bytes", layertar.MaxPath)
