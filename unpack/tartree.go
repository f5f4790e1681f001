package unpack

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// TarOptions for Tree.WriteTar. The zero value works.
type TarOptions struct {
	// Paths are patterns; what one of them matches is taken, with all that lies
	// below. None stands for everything. * and ? match no slash, ** does.
	Paths    []string
	Progress manifests.Progress // told of the bytes of layer blobs that are read
}

// TarResult tells what was written.
type TarResult struct {
	Entries int   // all of them
	Files   int   // regular files, each once
	Bytes   int64 // their sizes
}

// WriteTar writes the tree, or some of it, as a PAX tar to w: owners as
// numbers, times to the nanosecond, attributes as SCHILY.xattr, devices, hard
// links, and files with holes in GNU's sparse format 1.0. The same tree and
// options give the same bytes. Symlinks, fifos and devices have no attributes
// in the tar, as they can have none on disk.
//
// The order is one in which any tar can extract it: what has no content, by
// path; files, layer by layer as the layers have them, each layer being read
// once at most; last directories, those inside before those around them, so that times
// and closed modes stay. The further names of a file follow the first. No
// parents are added to what Paths choose. A name is never used twice.
//
// What TreeOptions.Keep has kept is not read again. Of other files the layer is
// read again, and proven by its digests, or by those of the files where that
// saves reading it to the end; the source must still be open. What fails after the first byte leaves w without the end of a tar.
// A pattern that matches nothing is a *manifests.NotFoundError.
func (t *Tree) WriteTar(ctx context.Context, w io.Writer, o TarOptions) (*TarResult, error) {
	p, err := t.plan(o.Paths)
	if err != nil {
		return nil, err
	}
	out := &guardedWriter{w: w}
	x := &tarWriter{out: bufio.NewWriterSize(out, 256<<10), buf: make([]byte, 64<<10)}
	x.tw = tar.NewWriter(x.out)
	if err := x.all(ctx, t, p, o.Progress); err != nil {
		if out.err != nil { // it is not the layer's fault
			return nil, out.err
		}
		return nil, err
	}
	return &x.res, nil
}

// guardedWriter remembers an error.
type guardedWriter struct {
	w   io.Writer
	err error
}

func (g *guardedWriter) Write(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	var n int
	n, g.err = g.w.Write(p)
	return n, g.err
}

// tarMember is an inode and the names that are written of it.
type tarMember struct {
	*inode
	names []string
}

// tarPlan is what a tar holds.
type tarPlan struct {
	plain []*tarMember             // without content, by path
	files []map[*record]*tarMember // by layer
	take  func(path string) bool   // also for directories, which are met again
}

func (t *Tree) plan(paths []string) (*tarPlan, error) {
	take, err := t.choose(paths)
	if err != nil {
		return nil, err
	}
	p := &tarPlan{take: take, files: make([]map[*record]*tarMember, len(t.layers)+1)}
	seen := map[*inode]*tarMember{}
	err = t.root.walk(".", func(path string, n *inode) error {
		if n.dir || !take(path) {
			return nil
		}
		if path == n.first { // which is held anyway
			path = n.first
		}
		if m := seen[n]; m != nil {
			m.names = append(m.names, path)
			return nil
		}
		m := &tarMember{n, []string{path}}
		seen[n] = m
		if n.rec.kind != layertar.File || n.rec.size == 0 {
			p.plain = append(p.plain, m)
			return nil
		}
		if p.files[n.layer] == nil {
			p.files[n.layer] = map[*record]*tarMember{}
		}
		p.files[n.layer][n.rec] = m
		return nil
	})
	return p, err
}

// tarWriter writes members.
type tarWriter struct {
	tw  *tar.Writer
	out *bufio.Writer // below tw
	buf []byte
	res TarResult
}

func (x *tarWriter) all(ctx context.Context, t *Tree, p *tarPlan, progress manifests.Progress) error {
	for _, m := range p.plain {
		if err := x.member(m, nil); err != nil {
			return err
		}
	}
	for i := range t.layers {
		if err := x.layer(ctx, t, i, p.files[i+1], progress); err != nil {
			return err
		}
	}
	err := t.root.walkBack(".", func(path string, n *inode) error {
		if !n.dir || !p.take(path) || n == t.root && n.rec == nil {
			return nil
		}
		return x.member(&tarMember{n, []string{path}}, nil)
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	return errors.Join(x.tw.Close(), x.out.Flush())
}

// member writes an inode under all its names.
func (x *tarWriter) member(m *tarMember, content io.Reader) error {
	h := m.header()
	var err error
	if m.sparseParts() != nil && content != nil {
		err = x.sparse(h, m.sparseParts(), content)
	} else {
		err = x.whole(h, content)
	}
	if err != nil {
		return err
	}
	x.res.Entries += len(m.names)
	if h.Typeflag == tar.TypeReg {
		x.res.Files++
		x.res.Bytes += m.rec.size
	}
	for _, name := range m.names[1:] {
		h.Name, h.Typeflag, h.Linkname, h.Size, h.PAXRecords = name, tar.TypeLink, m.names[0], 0, nil
		if err := x.tw.WriteHeader(h); err != nil {
			return err
		}
	}
	return nil
}

func (x *tarWriter) whole(h *tar.Header, content io.Reader) error {
	if err := x.tw.WriteHeader(h); err != nil || content == nil {
		return err
	}
	return x.copy(x.tw, content, h.Size)
}

// copy copies n bytes.
func (x *tarWriter) copy(w io.Writer, content io.Reader, n int64) error {
	copied, err := io.CopyBuffer(onlyWriter{w}, io.LimitReader(content, n), x.buf)
	if err == nil && copied < n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// onlyWriter hides all but Write, so that the buffer is used.
type onlyWriter struct{ io.Writer }

func (m *tarMember) header() *tar.Header {
	n := m.node(m.names[0])
	h := &tar.Header{
		Format: tar.FormatPAX, Name: n.Path, Mode: int64(n.Mode), Uid: int(n.UID), Gid: int(n.GID), ModTime: n.ModTime,
		Typeflag: tar.TypeReg, Size: n.Size, Linkname: n.Linkname,
	}
	switch n.Kind {
	case layertar.Dir:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case layertar.Symlink:
		h.Typeflag = tar.TypeSymlink
	case layertar.Fifo:
		h.Typeflag = tar.TypeFifo
	case layertar.Device:
		h.Typeflag = tar.TypeChar
		if n.Block {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = n.Major, n.Minor
	}
	if n.Kind == layertar.File || n.Kind == layertar.Dir {
		for _, a := range n.Xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+a.Name] = a.Value
		}
	}
	return h
}
