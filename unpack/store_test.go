package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

func TestStoreSharesLayers(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	one, two := load(t, b, roots[0]), load(t, b, roots[1])
	store := NewLayerStore(t.TempDir() + "/store")
	if _, ok := store.Lookup(one); ok {
		t.Error("found in an empty store")
	}
	var told atomic.Int64
	o := Options{Progress: func(_ ocispec.Descriptor, n int64) { told.Add(n) }}
	r, res, err := store.Unpack(context.Background(), b, one, o)
	if err != nil {
		t.Fatal(err)
	}
	if res.LayersNew != 2 || res.LayersShared != 0 || res.Files == 0 || res.Bytes == 0 {
		t.Errorf("%+v", res)
	}
	if want := one.Layers[0].Blob.Size + one.Layers[1].Blob.Size; told.Load() != want {
		t.Errorf("progress of %d bytes, want %d", told.Load(), want)
	}
	st, err := os.Stat(store.dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	found, ok := store.Lookup(one)
	if !ok || strings.Join(found.Lower, ":") != strings.Join(r.Lower, ":") {
		t.Errorf("%v, want %v", found, r)
	}
	// The second image has one layer more, and nothing else is read.
	only := manifests.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		if d.Digest != two.Layers[1].Blob.Digest {
			t.Errorf("%s was read", d.Digest)
		}
		return b.Fetch(ctx, d)
	})
	if _, ok := store.Lookup(two); ok {
		t.Error("found an image of which a layer is missing")
	}
	if _, res, err = store.Unpack(context.Background(), only, two, Options{}); err != nil || res.LayersNew != 1 || res.LayersShared != 1 {
		t.Errorf("%+v %v", res, err)
	}
	before := res
	if _, res, err = store.Unpack(context.Background(), nil, two, Options{}); err != nil || res.LayersShared != 2 || res.Files != before.Files {
		t.Errorf("%+v %v", res, err)
	}
	left, err := os.ReadDir(store.dir + "/tmp")
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestStoreGC(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	one, two := load(t, b, roots[0]), load(t, b, roots[1])
	store := NewLayerStore(t.TempDir() + "/store")
	if n, size, err := store.GC(context.Background(), nil, false); n != 0 || size != 0 || err != nil {
		t.Errorf("of no store: %d %d %v", n, size, err)
	}
	for _, img := range []*manifests.Image{one, two} {
		if _, _, err := store.Unpack(context.Background(), b, img, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(store.dir+"/tmp/left/layer0/fs", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		n, size, err := store.GC(context.Background(), one.Config.RootFS.DiffIDs, dry)
		if n != 1 || size == 0 || err != nil {
			t.Errorf("dry %v: %d %d %v", dry, n, size, err)
		}
		if _, ok := store.Lookup(two); ok != dry {
			t.Errorf("dry %v: found %v", dry, ok)
		}
	}
	if _, ok := store.Lookup(one); !ok {
		t.Error("what was to be kept is gone")
	}
	if left, _ := os.ReadDir(store.dir + "/tmp"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if n, _, err := store.GC(context.Background(), nil, false); n != 2 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	all, err := store.list("layers")
	if len(all) > 0 || err != nil {
		t.Errorf("%v %v", all, err)
	}
}

// opener gives tars as they are, as bundles and docker archives do, but for
// the one layer it holds compressed.
type opener struct {
	*fixtures.Blobs
	opened     atomic.Int64
	compressed digest.Digest
	err        error
}

func (o *opener) OpenLayer(_ context.Context, l manifests.Layer) (io.ReadCloser, error) {
	if o.err != nil {
		return nil, o.err
	}
	if l.Blob.Digest == o.compressed {
		return nil, fmt.Errorf("layer %s: %w", l.Blob.Digest, manifests.ErrCompressed)
	}
	o.opened.Add(1)
	raw := fixtures.Decompress(o.Bytes(l.Blob.Digest), l.Compression)
	return manifests.BytesReader(raw, ocispec.Descriptor{Digest: l.DiffID, Size: int64(len(raw))}), nil
}

func TestLayersThatNeedNoDecompression(t *testing.T) {
	b := fixtures.NewBlobs()
	root := fixtures.Sample(b)[0]
	img := load(t, b, root)
	dir := t.TempDir()
	if _, err := WriteRootfs(context.Background(), b, img, dir+"/a", Options{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "c"} {
		o := &opener{Blobs: b}
		var src manifests.Fetcher = o
		if name == "c" {
			g, err := manifests.NewGraph(context.Background(), []manifests.Entry{{Source: o, Root: root}}, 0)
			if err != nil {
				t.Fatal(err)
			}
			src = g
		}
		var told atomic.Int64
		progress := func(_ ocispec.Descriptor, n int64) { told.Add(n) }
		if _, err := WriteRootfs(context.Background(), src, img, dir+"/"+name, Options{Progress: progress}); err != nil {
			t.Fatal(err)
		}
		if want := img.Layers[0].Blob.Size + img.Layers[1].Blob.Size; o.opened.Load() != 2 || told.Load() != want {
			t.Errorf("%s: %d layers opened, progress of %d bytes, want %d", name, o.opened.Load(), told.Load(), want)
		}
		sameTree(t, name, tree(t, dir+"/a"), tree(t, dir+"/"+name))
	}
}

func TestLayersHeldCompressed(t *testing.T) {
	b := fixtures.NewBlobs()
	root := fixtures.Sample(b)[0]
	img := load(t, b, root)
	dir := t.TempDir()
	if _, err := WriteRootfs(context.Background(), b, img, dir+"/a", Options{}); err != nil {
		t.Fatal(err)
	}
	var told atomic.Int64
	progress := func(_ ocispec.Descriptor, n int64) { told.Add(n) }
	o := &opener{Blobs: b, compressed: img.Layers[0].Blob.Digest}
	if _, err := WriteRootfs(context.Background(), o, img, dir+"/b", Options{Progress: progress}); err != nil {
		t.Fatal(err)
	}
	if want := img.Layers[0].Blob.Size + img.Layers[1].Blob.Size; o.opened.Load() != 1 || told.Load() != want {
		t.Errorf("%d layers opened, progress of %d bytes, want 1 and %d", o.opened.Load(), told.Load(), want)
	}
	sameTree(t, "b", tree(t, dir+"/a"), tree(t, dir+"/b"))

	o = &opener{Blobs: b, err: errors.New("no more")}
	if _, err := WriteRootfs(context.Background(), o, img, dir+"/c", Options{}); !errors.Is(err, o.err) {
		t.Errorf("%v, want what the source says", err)
	}
	clean(t, "another error", dir+"/c")
}

func TestDamage(t *testing.T) {
	b := fixtures.NewBlobs()
	root := fixtures.Sample(b)[1]
	img := load(t, b, root)
	dir := t.TempDir()
	for _, c := range []struct {
		what string
		want manifests.Kind
		make func([]byte) []byte
	}{
		{"flipped", manifests.KindDigest, func(p []byte) []byte { p = bytes.Clone(p); p[len(p)/2] ^= 1; return p }},
		{"cut", manifests.KindTruncated, func(p []byte) []byte { return p[:len(p)/2] }},
		{"longer", manifests.KindSize, func(p []byte) []byte { return append(bytes.Clone(p), 0) }},
	} {
		layer := img.Layers[1].Blob.Digest
		b.Corrupt(layer, c.make)
		_, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{})
		var bad *manifests.ContentError
		if !errors.As(err, &bad) || bad.Kind != c.want || !strings.HasPrefix(err.Error(), "layer 2 of 2 "+short(layer)) {
			t.Errorf("%s: %v", c.what, err)
		}
		clean(t, c.what, dir+"/rootfs")
		b.Heal(layer)
	}
	b.Remove(img.Layers[0].Blob.Digest)
	var none *manifests.NotFoundError
	if _, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{}); !errors.As(err, &none) {
		t.Errorf("missing: %v", err)
	}
	b.Heal(img.Layers[0].Blob.Digest)
	forged := *img
	forged.Layers = append([]manifests.Layer{}, img.Layers...)
	forged.Layers[0].DiffID = digest.FromString("something else")
	var bad *manifests.ContentError
	_, _, err := NewLayerStore(dir+"/store").Unpack(context.Background(), b, &forged, Options{})
	if !errors.As(err, &bad) || bad.Kind != manifests.KindDiffID {
		t.Errorf("diffID: %v", err)
	}
}

func TestCancel(t *testing.T) {
	b := fixtures.NewBlobs()
	img := load(t, b, manyFiles(b)[0])
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	o := Options{Progress: func(ocispec.Descriptor, int64) { cancel() }}
	if _, err := WriteRootfs(ctx, b, img, dir+"/rootfs", o); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	clean(t, "cancelled", dir+"/rootfs")
	if _, _, err := NewLayerStore(dir+"/store").Unpack(ctx, b, img, o); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestTargetInTheWay(t *testing.T) {
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Sample(b)[0])
	dir := t.TempDir()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(dir+"/full/x", 0o755))
	must(os.WriteFile(dir+"/file", nil, 0o644))
	must(os.Mkdir(dir+"/empty", 0o755))
	must(os.Symlink("empty", dir+"/link"))
	var conflict *manifests.ConflictError
	for _, name := range []string{"full", "file"} {
		if _, err := WriteRootfs(context.Background(), b, img, dir+"/"+name, Options{}); !errors.As(err, &conflict) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := writeLayers(context.Background(), b, img, dir+"/"+name, Options{}); !errors.As(err, &conflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := WriteRootfs(context.Background(), b, img, dir+"/link", Options{}); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir + "/empty/etc/passwd"); err != nil {
		t.Error(err)
	}
	if _, err := WriteRootfs(context.Background(), b, img, dir+"/no/such", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestWriteLayers(t *testing.T) {
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Sample(b)[1])
	dir := t.TempDir() + "/it's, a: dir"
	r, res, err := writeLayers(context.Background(), b, img, dir, Options{})
	if err != nil || res.LayersNew != 2 {
		t.Fatal(res, err)
	}
	line, err := os.ReadFile(dir + "/mount.txt")
	if err != nil || string(line) != r.MountLine(dir+"/upper", dir+"/work", dir+"/merged")+"\n" {
		t.Errorf("%q %v", line, err)
	}
	if _, err := WriteRootfs(context.Background(), b, img, filepath.Dir(dir)+"/rootfs", Options{}); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		return
	}
	if out, err := exec.Command("sh", "-c", string(line)).CombinedOutput(); err != nil {
		requirePeer(t, "cannot mount: "+string(out))
	}
	defer unix.Unmount(dir+"/merged", unix.MNT_DETACH)
	sameTree(t, "layers", tree(t, filepath.Dir(dir)+"/rootfs"), tree(t, dir+"/merged"))
}

func TestWriteLayersOfManyLayers(t *testing.T) {
	rootOnly(t)
	b := fixtures.NewBlobs()
	var spec fixtures.ImageSpec
	for i := range 120 {
		spec.Layers = append(spec.Layers, fixtures.LayerSpec{Files: []fixtures.File{{Name: "d/"}, {Name: fmt.Sprint("d/", i), Body: fmt.Sprint(i)}}})
	}
	img := load(t, b, fixtures.Root("", b.Image(spec)))
	dir := t.TempDir() + "/a b"
	if _, _, err := writeLayers(context.Background(), b, img, dir, Options{}); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(dir + "/mount.txt")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", string(line)).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v %s", line, err, out)
	}
	defer unix.Unmount(dir+"/merged", unix.MNT_DETACH)
	if all, err := os.ReadDir(dir + "/merged/d"); len(all) != 120 || err != nil {
		t.Errorf("%d files, %v", len(all), err)
	}
}

// TestRootlessUnpack holds for root too, but for owners.
func TestRootlessUnpack(t *testing.T) {
	b := fixtures.NewBlobs()
	files := []fixtures.File{
		{Name: "closed/", Mode: -1},
		{Name: "closed/in/", Mode: 0o555},
		{Name: "closed/in/f", Body: "x", Mode: 0o444, UID: 7, GID: 8, Xattrs: map[string]string{"user.a": "b"}},
		{Name: "dev/null", Type: '3', Major: 1, Minor: 3},
		{Name: "pipe", Type: '6', Mode: 0o622, UID: 7},
		{Name: "capable", Body: "x", Xattrs: map[string]string{layertar.Capability: "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		{Name: "su", Mode: 0o4755},
	}
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: files}, {Files: []fixtures.File{
		{Name: "closed/.wh.in"}, {Name: "closed/new", Body: "y"},
	}}}})))
	dir := t.TempDir()
	for range 2 { // what is closed must be removed too
		res, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{})
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Lstat(dir + "/rootfs/closed")
		if err != nil || st.Mode().Perm() != 0 {
			t.Errorf("%v %v", st.Mode(), err)
		}
		wantSquashed, wantSkipped := 0, "device"
		if os.Geteuid() != 0 {
			wantSquashed, wantSkipped = 1, "device xattr"
		}
		var kinds []string
		for _, s := range res.Skipped {
			kinds = append(kinds, s.Kind)
		}
		if res.SquashedOwners != wantSquashed || strings.Join(kinds, " ") != wantSkipped {
			t.Errorf("%+v", res)
		}
		if err := removePath(dir + "/rootfs"); err != nil {
			t.Fatal(err)
		}
	}
	store := NewLayerStore(dir + "/store")
	r, _, err := store.Unpack(context.Background(), b, img, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(r.Lower[0] + "/closed"); err != nil || st.Mode().Perm() != 0 {
		t.Errorf("fix-up: %v %v", st, err)
	}
	if n, _, err := store.GC(context.Background(), nil, false); n != 2 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if err := removePath(store.dir); err != nil {
		t.Error(err)
	}
}

func TestImageWithoutLayers(t *testing.T) {
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{})))
	dir := t.TempDir()
	if _, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{}); err != nil {
		t.Fatal(err)
	}
	r, _, err := NewLayerStore(dir+"/store").Unpack(context.Background(), b, img, Options{})
	if err != nil || len(r.Lower) != 2 {
		t.Fatal(r, err)
	}
}

func TestRawPath(t *testing.T) {
	for _, p := range []string{"", "plain", "per%cent", "\xff\xfe", "über", "a\xc3", "%41", "new\nline"} {
		text, err := rawPath(p).MarshalText()
		var back rawPath
		if err == nil {
			err = back.UnmarshalText(text)
		}
		if err != nil || string(back) != p {
			t.Errorf("%q → %q → %q: %v", p, text, back, err)
		}
	}
}

// writeLayers is WriteLayers of one image.
func writeLayers(ctx context.Context, src manifests.Fetcher, img *manifests.Image, dir string, o Options) (*Rootfs, *Result, error) {
	all, err := WriteLayers(ctx, []ImageFrom{{src, img}}, dir, o)
	if err != nil {
		return nil, nil, err
	}
	return all[0].Rootfs, all[0].Result, nil
}

// TestStrangeRecord: for what is in the place of a record nobody waits.
func TestStrangeRecord(t *testing.T) {
	b := fixtures.NewBlobs()
	img := load(t, b, manyFiles(b)[0])
	store := NewLayerStore(t.TempDir() + "/store")
	if _, _, err := store.Unpack(t.Context(), b, img, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, record := range []string{placeOf("images", imageKey(img)) + "/" + imageName, placeOf("layers", img.Layers[0].DiffID) + "/" + metaName} {
		record = store.dir + "/" + record
		if err := errors.Join(os.Remove(record), unix.Mkfifo(record, 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, ok := store.Lookup(img); ok {
			t.Error("it is there")
		}
		if _, _, err := store.Unpack(t.Context(), b, img, Options{}); err != nil {
			t.Error(err)
		}
	}
}
