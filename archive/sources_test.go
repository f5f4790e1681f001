package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// form is one way images lie about, and how to lay them out that way.
type form struct {
	name   string
	format Format
	exact  bool // keeps the digests of manifests
	single bool // holds one root, without its name
	open   func(t *testing.T, b *fixtures.Blobs, roots []manifests.Root) (Source, error)
}

func forms() []form {
	file := func(make func(b *fixtures.Blobs, roots []manifests.Root) []byte, as manifests.Transport) func(*testing.T, *fixtures.Blobs, []manifests.Root) (Source, error) {
		return func(t *testing.T, b *fixtures.Blobs, roots []manifests.Root) (Source, error) {
			return openBytes(t, make(b, roots), as)
		}
	}
	layoutTar := func(b *fixtures.Blobs, roots []manifests.Root) []byte { return b.LayoutTar(roots...) }
	docker := func(b *fixtures.Blobs, roots []manifests.Root) []byte { return b.DockerArchive(roots...) }
	wrapped := func(c manifests.Compression, make func(*fixtures.Blobs, []manifests.Root) []byte) func(*fixtures.Blobs, []manifests.Root) []byte {
		return func(b *fixtures.Blobs, roots []manifests.Root) []byte { return fixtures.Compress(make(b, roots), c) }
	}
	return []form{
		{"layout", FormatLayout, true, false, func(t *testing.T, b *fixtures.Blobs, roots []manifests.Root) (Source, error) {
			dir := t.TempDir()
			b.WriteLayout(t, dir, roots...)
			return open(manifests.Reference{Transport: manifests.Layout, Path: dir})
		}},
		{"layout by path", FormatLayout, true, false, func(t *testing.T, b *fixtures.Blobs, roots []manifests.Root) (Source, error) {
			dir := t.TempDir()
			b.WriteLayout(t, dir, roots...)
			return open(manifests.Reference{Transport: manifests.Path, Path: dir})
		}},
		{"layout tar", FormatLayoutArchive, true, false, file(layoutTar, manifests.LayoutArchive)},
		{"layout tar by path", FormatLayoutArchive, true, false, file(layoutTar, manifests.Path)},
		{"layout tar in gzip", FormatLayoutArchive, true, false, file(wrapped(manifests.Gzip, layoutTar), manifests.Path)},
		{"docker archive", FormatDockerArchive, false, false, file(docker, manifests.DockerArchive)},
		{"docker archive by path", FormatDockerArchive, false, false, file(docker, manifests.Path)},
		{"docker archive in zstd", FormatDockerArchive, false, false, file(wrapped(manifests.Zstd, docker), manifests.DockerArchive)},
		{"standard input, a pipe", FormatDockerArchive, false, false, func(t *testing.T, b *fixtures.Blobs, roots []manifests.Root) (Source, error) {
			return Open(context.Background(), manifests.Reference{Transport: manifests.Stdin}, OpenOptions{SpoolDir: t.TempDir(), Stdin: bytes.NewReader(docker(b, roots))})
		}},
		{"dir", FormatDir, true, true, func(t *testing.T, b *fixtures.Blobs, roots []manifests.Root) (Source, error) {
			dir := t.TempDir()
			b.SkopeoDir(dir, roots[0])
			return open(manifests.Reference{Transport: manifests.Dir, Path: dir})
		}},
		{"store", FormatStore, true, false, func(t *testing.T, b *fixtures.Blobs, roots []manifests.Root) (Source, error) {
			dir := t.TempDir()
			b.WriteLayout(t, dir, roots...)
			return OpenStore(dir)
		}},
		{"our hybrid tar", FormatLayoutArchive, true, false, func(t *testing.T, b *fixtures.Blobs, roots []manifests.Root) (Source, error) {
			return openTar(t, b, roots, Hybrid)
		}},
	}
}

func open(ref manifests.Reference) (Source, error) {
	return Open(context.Background(), ref, OpenOptions{})
}

func openBytes(t testing.TB, data []byte, as manifests.Transport) (Source, error) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return open(manifests.Reference{Transport: as, Path: path})
}

// openTar writes the healthy images with PlanTar, then puts the damage that b
// has into the file.
func openTar(t *testing.T, b *fixtures.Blobs, roots []manifests.Root, kind TarKind) (Source, error) {
	whole := fixtures.NewBlobs()
	for _, d := range b.Digests() {
		whole.Add("", b.Original(d))
	}
	var buf bytes.Buffer
	plan, err := PlanTar(whole.Graph(t, roots...), TarOptions{Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Write(context.Background(), &buf, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	data := buf.Bytes()
	for _, d := range b.Digests() {
		was, is := b.Original(d), b.Bytes(d)
		if i := bytes.Index(data, was); i >= 0 && len(was) == len(is) {
			copy(data[i:], is)
		}
	}
	return openBytes(t, data, manifests.Path)
}

// readAll builds the graph of all roots and reads every blob of it.
func readAll(src Source) (*manifests.Graph, error) {
	ctx := context.Background()
	roots, err := src.Roots(ctx)
	if err != nil {
		return nil, err
	}
	g, err := manifests.NewGraph(ctx, manifests.Entries(src, roots), 0)
	if err != nil {
		return nil, err
	}
	for _, d := range g.Blobs() {
		if _, err := readBlob(src, d); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func readBlob(src manifests.Fetcher, d ocispec.Descriptor) ([]byte, error) {
	r, err := src.Fetch(context.Background(), d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func eachForm(t *testing.T, test func(t *testing.T, f form)) {
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) { test(t, f) })
	}
}

func TestSourceGivesWhatWasPut(t *testing.T) {
	eachForm(t, func(t *testing.T, f form) {
		b := fixtures.NewBlobs()
		put := fixtures.Sample(b)
		src, err := f.open(t, b, put)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		if got := src.(interface{ Format() Format }).Format(); got != f.format {
			t.Errorf("format %s, want %s", got, f.format)
		}
		roots, err := src.Roots(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		checkRoots(t, f, roots, put)
		g, err := readAll(src)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range roots {
			for _, img := range g.Images(r) {
				if !slices.Contains(b.Digests(), img.ID()) {
					t.Errorf("%s: config %s is not what was put", r.Display(), img.ID())
				}
				checkLayers(t, b, src, img)
			}
		}
	})
}

func checkRoots(t *testing.T, f form, roots, put []manifests.Root) {
	t.Helper()
	if f.single {
		put = put[:1]
	}
	if len(roots) != len(put) {
		t.Fatalf("%d roots, want %d", len(roots), len(put))
	}
	for _, want := range put {
		i := slices.IndexFunc(roots, func(r manifests.Root) bool { return f.single || r.Name == want.Name })
		if i < 0 {
			t.Errorf("%s is not there", want.Name)
			continue
		}
		if f.exact && (roots[i].Descriptor.Digest != want.Descriptor.Digest || roots[i].State() != manifests.Exact) {
			t.Errorf("%s: %s (%s), want %s", want.Name, roots[i].Descriptor.Digest, roots[i].State(), want.Descriptor.Digest)
		}
		if !f.exact && roots[i].State() != manifests.Rebuilt {
			t.Errorf("%s: %s, want rebuilt", want.Name, roots[i].State())
		}
	}
}

// checkLayers compares an image's layers, decompressed, with its diffIDs.
func checkLayers(t *testing.T, b *fixtures.Blobs, src Source, img *manifests.Image) {
	t.Helper()
	for _, l := range img.Layers {
		data, err := readBlob(src, l.Blob)
		if err != nil {
			t.Fatal(err)
		}
		if got := digest.FromBytes(fixtures.Decompress(data, l.Compression)); got != l.DiffID {
			t.Errorf("layer %s holds %s, want %s", l.Blob.Digest, got, l.DiffID)
		}
		if o, ok := src.(manifests.LayerOpener); ok {
			r, err := o.OpenLayer(context.Background(), l)
			if err != nil {
				t.Fatal(err)
			}
			tar, err := io.ReadAll(r)
			if err != nil || digest.FromBytes(tar) != l.DiffID {
				t.Errorf("OpenLayer gives %s, %v; want %s", digest.FromBytes(tar), err, l.DiffID)
			}
			r.Close()
		}
	}
}

// TestSourceNamesDamage flips a byte of every blob in turn.
func TestSourceNamesDamage(t *testing.T) {
	eachForm(t, func(t *testing.T, f form) {
		if strings.HasSuffix(f.name, "by path") {
			t.Skip("the same as by transport once it is open")
		}
		t.Parallel()
		whole := fixtures.NewBlobs()
		fixtures.Sample(whole)
		for _, d := range whole.Digests() {
			b := fixtures.NewBlobs()
			put := fixtures.Sample(b)
			b.Corrupt(d, func(data []byte) []byte {
				data[len(data)/2] ^= 1
				return data
			})
			if f.format == FormatDockerArchive && !stillReadable(b, d) {
				continue // the damage is in what this form does not hold, or holds decompressed
			}
			src, err := f.open(t, b, put)
			if err == nil {
				_, err = readAll(src)
				src.Close()
			}
			if err == nil && !reaches(whole, put, f, d) {
				continue
			}
			if f.single && d == put[0].Descriptor.Digest {
				continue // nothing says what the manifest of a dir should hash to
			}
			var bad *manifests.ContentError
			if !errors.As(err, &bad) {
				t.Errorf("damage of %s: %v, want a ContentError", d, err)
			}
		}
	})
}

// stillReadable reports whether a docker archive can be made at all, and holds
// the damage as it is: layers are decompressed and manifests are left out.
func stillReadable(b *fixtures.Blobs, d digest.Digest) bool {
	return bytes.HasPrefix(b.Original(d), []byte(`{"created"`)) || bytes.HasPrefix(b.Original(d), []byte(`{"architecture"`))
}

// reaches reports whether the form holds d at all.
func reaches(b *fixtures.Blobs, put []manifests.Root, f form, d digest.Digest) bool {
	if f.single {
		put = put[:1]
	}
	g, err := manifests.NewGraph(context.Background(), manifests.Entries(b, put), 0)
	if err != nil {
		return false
	}
	if f.format == FormatDockerArchive {
		return false
	}
	return slices.ContainsFunc(allBlobs(g), func(o ocispec.Descriptor) bool { return o.Digest == d })
}

func TestSourceServesManyAtOnce(t *testing.T) {
	eachForm(t, func(t *testing.T, f form) {
		b := fixtures.NewBlobs()
		src, err := f.open(t, b, fixtures.Sample(b))
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := readAll(src); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

func TestSourceRefusesWhatIsNotThere(t *testing.T) {
	eachForm(t, func(t *testing.T, f form) {
		b := fixtures.NewBlobs()
		src, err := f.open(t, b, fixtures.Sample(b))
		if err != nil {
			t.Fatal(err)
		}
		absent := ocispec.Descriptor{Digest: digest.FromString("not there"), Size: 9}
		var nf *manifests.NotFoundError
		if _, err := src.Fetch(context.Background(), absent); !errors.As(err, &nf) {
			t.Errorf("absent blob: %v, want NotFoundError", err)
		}
		for _, d := range []digest.Digest{"", "sha256:../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
			if r, err := src.Fetch(context.Background(), ocispec.Descriptor{Digest: d}); err == nil {
				r.Close()
				t.Errorf("digest %q was taken", d)
			}
		}
		g, err := readAll(src)
		if err != nil {
			t.Fatal(err)
		}
		there := g.Blobs()[0]
		ctx, cancel := context.WithCancel(context.Background())
		r, err := src.Fetch(ctx, there)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
			t.Errorf("read after cancel: %v", err)
		}
		r.Close()
		if _, err := src.Fetch(ctx, there); !errors.Is(err, context.Canceled) {
			t.Errorf("fetch after cancel: %v", err)
		}
		there.Size++
		if _, err := readBlob(src, there); err == nil {
			t.Error("a blob shorter than its descriptor was taken")
		}
		there.Size--
		for range 2 {
			if err := src.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if _, err := readBlob(src, there); err == nil {
			t.Error("a blob was read after Close")
		}
	})
}

func TestChoose(t *testing.T) {
	b := fixtures.NewBlobs()
	put := fixtures.Sample(b)
	path := filepath.Join(t.TempDir(), "x.tar")
	again := put[0]
	again.Name.Tag = "again"
	if err := os.WriteFile(path, b.DockerArchive(put[0], again, put[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		path:                             "[example.com/app:1 example.com/app:again example.com/app:2]",
		path + "//example.com/app:2":     "[example.com/app:2]",
		"docker-archive:" + path + ":@1": "[example.com/app:2]",
		"docker-archive:" + path + ":@0": "[example.com/app:1 example.com/app:again]",
		"docker-archive:" + path + ":@2": "not found, have [example.com/app:1 example.com/app:again example.com/app:2]",
		path + "//nginx":                 "not found, have [example.com/app:1 example.com/app:again example.com/app:2]",
	} {
		ref, err := manifests.ParseReference(text, "")
		if err != nil {
			t.Fatal(err)
		}
		src, err := open(ref)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		roots, err := Choose(context.Background(), src, ref)
		got := fmt.Sprint(displays(roots))
		var nf *manifests.NotFoundError
		if errors.As(err, &nf) {
			got = fmt.Sprint("not found, have ", nf.Have)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
