package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// Open opens the file, directory or stream that ref names for reading. It
// handles the transports Layout, LayoutArchive, DockerArchive, Dir, Path and
// Stdin; others are an *UnsupportedError. It does not select images: see
// Choose. What is not there is a *NotFoundError, a format that is not known an
// *UnsupportedError naming what was found, a damaged one a *ContentError.
//
// A tar that is both an OCI layout and a docker archive is read as the layout,
// whose digests are exact, unless blobs of the layout are absent.
func Open(ctx context.Context, ref manifests.Reference, o OpenOptions) (Source, error) {
	switch ref.Transport {
	case manifests.Stdin:
		return openStdin(ctx, o)
	case manifests.Layout, manifests.LayoutArchive, manifests.DockerArchive, manifests.Dir, manifests.Path:
	default:
		return nil, &manifests.UnsupportedError{Subject: ref.String(), Reason: "not a file or directory"}
	}
	st, err := os.Stat(ref.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &manifests.NotFoundError{Subject: "file or directory " + quote.Text(ref.Path)}
	}
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return openDir(ref)
	}
	if ref.Transport == manifests.Layout || ref.Transport == manifests.Dir {
		return nil, &manifests.UnsupportedError{Subject: quote.Clean(ref.Path), Reason: "not a directory, which " + string(ref.Transport) + ": reads"}
	}
	return openFile(ctx, ref, st, o)
}

func openDir(ref manifests.Reference) (Source, error) {
	bad := func(reason string) (Source, error) {
		return nil, &manifests.UnsupportedError{Subject: quote.Clean(ref.Path), Reason: reason}
	}
	switch ref.Transport {
	case manifests.LayoutArchive, manifests.DockerArchive:
		return bad("a directory, and " + string(ref.Transport) + ": reads a file")
	}
	root, err := os.OpenRoot(ref.Path)
	if err != nil {
		return nil, err
	}
	has := func(name string) bool { _, err := root.Lstat(name); return err == nil }
	var src Source
	switch {
	case has("oci-layout") && ref.Transport != manifests.Dir:
		src, err = newLayoutDir(root, ref.Path)
	case has("version") && has("manifest.json") && ref.Transport != manifests.Layout:
		src, err = newSkopeoDir(root, ref.Path)
	case ref.Transport == manifests.Layout:
		_, err = bad("not an OCI image layout: it holds no oci-layout file")
	case ref.Transport == manifests.Dir:
		_, err = bad("not a dir: dump: it does not hold both version and manifest.json")
	default:
		_, err = bad("a directory that is neither an OCI image layout nor a dir: dump")
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return src, nil
}

func openFile(ctx context.Context, ref manifests.Reference, st fs.FileInfo, o OpenOptions) (Source, error) {
	f, err := os.Open(ref.Path)
	if err != nil {
		return nil, err
	}
	if o.SpoolDir == "" {
		o.SpoolDir = filepath.Dir(ref.Path)
	}
	in := &input{name: quote.Clean(ref.Path), r: f, size: st.Size(), close: f.Close}
	if !st.Mode().IsRegular() { // a pipe of the shell's, say
		if in, err = spool(ctx, o.SpoolDir, in.name, f, codec.None); err != nil {
			f.Close()
			return nil, err
		}
		f.Close()
	}
	return openInput(ctx, in, ref.Transport, o)
}

const stdinName = "standard input"

func openStdin(ctx context.Context, o OpenOptions) (Source, error) {
	if o.Stdin == nil {
		return nil, &manifests.InputError{What: "reference", Input: "-", Why: "there is no standard input"}
	}
	if o.SpoolDir == "" {
		o.SpoolDir = "."
	}
	if in, ok := seekableStdin(o.Stdin); ok {
		return openInput(ctx, in, manifests.Stdin, o)
	}
	in, err := spool(ctx, o.SpoolDir, stdinName, o.Stdin, codec.None)
	if err != nil {
		return nil, err
	}
	return openInput(ctx, in, manifests.Stdin, o)
}

// seekableStdin spares the copy where the shell has opened a file for us.
func seekableStdin(r io.Reader) (*input, bool) {
	f, ok := r.(*os.File)
	if !ok {
		return nil, false
	}
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, false
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil || at > st.Size() {
		return nil, false
	}
	n := st.Size() - at
	return &input{name: stdinName, r: io.NewSectionReader(f, at, n), size: n, close: func() error { return nil }}, true
}

// openInput finds the format of a file by its content. It takes over in.
func openInput(ctx context.Context, in *input, as manifests.Transport, o OpenOptions) (src Source, err error) {
	defer func() {
		if err != nil {
			in.close()
			src = nil // not a nil pointer to some kind of Source
		}
	}()
	head, err := in.head()
	if err != nil {
		return nil, err
	}
	if format := codec.Sniff(head); format != codec.None {
		plain, err := spool(ctx, o.SpoolDir, in.name, io.NewSectionReader(in.r, 0, in.size), format)
		if err != nil {
			return nil, err
		}
		in.close()
		in = plain
		if head, err = in.head(); err != nil {
			return nil, err
		}
		if !isTar(head) {
			return nil, in.unsupported(fmt.Sprintf("a %s file holding no tar but %s", format, describe(head)))
		}
	}
	if !isTar(head) {
		return nil, in.unsupported(describe(head) + ", not an archive of images")
	}
	if o.Other != nil {
		other, ok, err := o.Other(in.r, in.size, in.name)
		if err != nil {
			return nil, err
		}
		if ok {
			return otherSource{other, sync.OnceValue(func() error { return errors.Join(other.Close(), in.close()) })}, nil
		}
	}
	c, err := newContainer(in)
	if err != nil {
		return nil, err
	}
	return openContainer(ctx, c, as)
}

func openContainer(ctx context.Context, c *container, as manifests.Transport) (Source, error) {
	layout := c.has("oci-layout") && c.has("index.json")
	docker := c.has("manifest.json")
	switch {
	case layout && docker && as != manifests.LayoutArchive:
		return newHybrid(ctx, c)
	case layout:
		return newLayoutTar(c)
	case as == manifests.LayoutArchive && !c.cut:
		return nil, c.in.unsupported("a tar that is no OCI image layout: it does not hold both oci-layout and index.json")
	case docker && as != manifests.LayoutArchive:
		return newDockerTar(ctx, c)
	case c.cut:
		return nil, manifests.Bad(manifests.KindTruncated, c.in.name, "the tar has no end, and lists no images before it stops")
	case c.has("repositories"):
		return nil, c.in.unsupported("a docker archive without manifest.json, from a docker older than 1.10; load and save it again with a newer one")
	}
	return nil, c.in.unsupported("a tar that is neither an OCI image layout nor a docker archive")
}

// kinds are files that people hand us by mistake.
var kinds = []struct{ magic, is string }{
	{"\xfd7zXZ\x00", "an xz file"},
	{"BZh", "a bzip2 file"},
	{"PK\x03\x04", "a zip file"},
	{"\x7fELF", "a program"},
	{"hsqs", "a squashfs image"},
	{"\x1f\x8b", "a gzip file"},
	{"\x28\xb5\x2f\xfd", "a zstd file"},
	{"{", "text that may be JSON"},
}

func describe(head []byte) string {
	for _, k := range kinds {
		if strings.HasPrefix(string(head), k.magic) {
			return k.is
		}
	}
	return "something that begins with " + quote.Text(string(head[:min(len(head), 8)]))
}
