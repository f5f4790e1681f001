package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// reads counts what is read of a source, and can put something else in the
// place of its blobs.
type reads struct {
	*fixtures.Blobs
	opened atomic.Int64
	bytes  atomic.Int64
	forged []byte
}

func (r *reads) OpenLayer(_ context.Context, l manifests.Layer) (io.ReadCloser, error) {
	r.opened.Add(1)
	raw := r.Bytes(l.Blob.Digest)
	if r.forged != nil {
		raw = r.forged
	}
	return io.NopCloser(io.TeeReader(bytes.NewReader(raw), r)), nil
}

func (r *reads) Write(p []byte) (int, error) {
	r.bytes.Add(int64(len(p)))
	return len(p), nil
}

// TestPathsAreReadOnce exports with and without what was kept, of which the
// bytes are the same.
func TestPathsAreReadOnce(t *testing.T) {
	b := fixtures.NewBlobs()
	var files []fixtures.File
	for i := range 40 {
		files = append(files, fixtures.File{Name: fmt.Sprint("etc/f", i), Body: strings.Repeat(fmt.Sprint(i), 1000)})
	}
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{
		{Files: append(files, fixtures.File{Name: "bin", Link: "usr/bin"}, fixtures.File{Name: "usr/bin/sh", Body: "shell"}), Compression: manifests.Uncompressed},
		{Files: []fixtures.File{{Name: "etc/f3", Body: "upper"}, {Name: "etc/l", Type: '1', Link: "etc/f7"}}, Compression: manifests.Uncompressed},
	}})))
	for _, c := range []struct {
		paths []string
		want  int // openings of layers by WriteTar
	}{
		{[]string{"/etc/f3"}, 0}, {[]string{"/etc/f1*", "/usr/bin/sh"}, 0}, {[]string{"/etc"}, 0},
		{[]string{"/bin/sh"}, 1}, // through a symlink
		{[]string{"/etc/l"}, 1},  // the content is another name's
		{nil, 2},
	} {
		src := &reads{Blobs: b}
		tr, err := ReadTree(context.Background(), src, img, TreeOptions{Keep: c.paths})
		if err != nil {
			t.Fatal(err)
		}
		src.opened.Store(0)
		got, _ := exported(t, tr, c.paths...)
		if int(src.opened.Load()) != c.want {
			t.Errorf("%s: %d layers read, want %d", c.paths, src.opened.Load(), c.want)
		}
		if want, _ := exported(t, readTree(t, b, img), c.paths...); !bytes.Equal(got, want) {
			t.Errorf("%s: another tar", c.paths)
		}
	}
	if _, err := ReadTree(context.Background(), b, img, TreeOptions{Keep: []string{"["}}); err == nil {
		t.Error("no pattern")
	}
}

// TestPathsStopEarly: of files that are too large to keep, the layer is read to
// the last of them, and each is proven.
func TestPathsStopEarly(t *testing.T) {
	b := fixtures.NewBlobs()
	big := strings.Repeat("0123456789abcdef", maxKept/16+1)
	layer := func(big string) []byte {
		return fixtures.Tar(fixtures.File{Name: "a", Body: "a"}, fixtures.File{Name: "big", Body: big}, fixtures.File{Name: "more", Body: big})
	}
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Tar: layer(big), Compression: manifests.Uncompressed}}})))
	for _, path := range []string{"/big", "/*"} {
		src := &reads{Blobs: b}
		tr, err := ReadTree(context.Background(), src, img, TreeOptions{Keep: []string{path}})
		if err != nil {
			t.Fatal(err)
		}
		whole := src.bytes.Load()
		src.bytes.Store(0)
		raw, res := exported(t, tr, path)
		if res.Bytes < maxKept || !bytes.Contains(raw, []byte(big)) || src.bytes.Load() == 0 || path == "/big" && src.bytes.Load() > whole*3/4 {
			t.Errorf("%s: %d of %d bytes read, %+v", path, src.bytes.Load(), whole, res)
		}
		src.forged = layer(big[1:] + "x")
		_, err = tr.WriteTar(context.Background(), io.Discard, TarOptions{Paths: []string{path}})
		var bad *manifests.ContentError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), "changed") {
			t.Errorf("%s: forged: %v", path, err)
		}
	}
}

var _ manifests.LayerOpener = (*reads)(nil)
