package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

func planned(t testing.TB, g *manifests.Graph, kind TarKind) *Tar {
	t.Helper()
	plan, err := PlanTar(g, TarOptions{Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// TestTarIsTheSame writes one graph in every way, and the same images from
// other sources.
func TestTarIsTheSame(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	g := b.Graph(t, roots...)
	for _, kind := range []TarKind{Hybrid, OCI} {
		var want bytes.Buffer
		var moved atomic.Int64
		plan := planned(t, g, kind)
		if err := plan.Write(bg, &want, WriteOptions{Progress: func(_ ocispec.Descriptor, n int64) { moved.Add(n) }}); err != nil {
			t.Fatal(err)
		}
		if int64(want.Len()) != plan.Size() || moved.Load() != g.Size() {
			t.Errorf("%d bytes, %d planned; %d moved of %d", want.Len(), plan.Size(), moved.Load(), g.Size())
		}
		store := newStore(t)
		add(t, store, b, AddOptions{}, roots...)
		var stored []manifests.Entry
		for _, r := range roots {
			stored = append(stored, manifests.Entry{Source: store, Root: r})
		}
		other, err := manifests.NewGraph(bg, stored, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range []*manifests.Graph{g, other} {
			for _, jobs := range []int{0, 1, 8} {
				path := filepath.Join(t.TempDir(), "x.tar")
				if err := planned(t, g, kind).WriteFile(bg, path, WriteOptions{Jobs: jobs}); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want.Bytes()) {
					t.Errorf("%s with %d jobs differs from what Write gives: %v", kind, jobs, err)
				}
			}
		}
	}
}

// TestTarMembers checks the order, that each is there once, and that nothing
// is listed that is absent.
func TestTarMembers(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	twice := roots[0]
	twice.Name.Tag = "again"
	roots = append(roots, twice, twice, manifests.Root{Descriptor: roots[1].Descriptor})
	g := b.Graph(t, roots...)
	for kind, front := range map[TarKind][]string{Hybrid: {"oci-layout", "index.json", "manifest.json"}, OCI: {"oci-layout", "index.json"}} {
		var buf bytes.Buffer
		if err := planned(t, g, kind).Write(bg, &buf, WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		want := front
		for _, d := range allBlobs(g) {
			want = append(want, blobPath(d.Digest))
		}
		names, bodies := members(t, buf.Bytes())
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("%s: members (-want +got):\n%s", kind, diff)
		}
		if kind == Hybrid {
			checkDockerPart(t, b, roots, bodies)
		}
	}
}

func members(t *testing.T, archive []byte) (names []string, bodies map[string][]byte) {
	t.Helper()
	bodies = map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if err != nil {
			return names, bodies
		}
		var body bytes.Buffer
		if _, err := body.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		names, bodies[h.Name] = append(names, h.Name), body.Bytes()
	}
}

func checkDockerPart(t *testing.T, b *fixtures.Blobs, roots []manifests.Root, bodies map[string][]byte) {
	t.Helper()
	var images []dockerImage
	if err := json.Unmarshal(bodies["manifest.json"], &images); err != nil {
		t.Fatal(err)
	}
	var tags []string
	for _, img := range images {
		tags = append(tags, strings.Join(img.RepoTags, " "))
		for _, name := range append(img.Layers, img.Config) {
			if bodies[name] == nil {
				t.Errorf("manifest.json lists %s, which is not there", name)
			}
		}
	}
	want := []string{"example.com/app:1 example.com/app:again", "example.com/app:2", "docker.io/library/other:latest", "example.com/multi:1"}
	if diff := cmp.Diff(want, tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	multi := b.Graph(t, roots[3]).Images(roots[3])
	local := slices.IndexFunc(multi, func(i *manifests.Image) bool { return manifests.Platforms{}.Match(i.Platform()) })
	if got := images[3].Config; got != blobPath(multi[max(local, 0)].ID()) {
		t.Errorf("the index is represented by %s, which is not this platform's", got)
	}
}

func TestTwoImagesUnderOneName(t *testing.T) {
	b := fixtures.NewBlobs()
	g := b.Graph(t, fixtures.Root("app:1", small(b, "one")), fixtures.Root("app:1", small(b, "two")))
	var conflict *manifests.ConflictError
	if _, err := PlanTar(g, TarOptions{Kind: Hybrid}); !errors.As(err, &conflict) {
		t.Errorf("tar: %v, want ConflictError", err)
	}
	if err := WriteLayout(bg, filepath.Join(t.TempDir(), "x"), g, WriteOptions{}); !errors.As(err, &conflict) {
		t.Errorf("layout: %v, want ConflictError", err)
	}
	if _, err := newStore(t).Add(bg, g, AddOptions{Force: true}); !errors.As(err, &conflict) {
		t.Errorf("store: %v, want ConflictError", err)
	}
}

func TestWriteLayout(t *testing.T) {
	b := fixtures.NewBlobs()
	g := b.Graph(t, fixtures.Sample(b)...)
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	if err := os.Mkdir(two, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, d := range []string{one, two} {
		if err := WriteLayout(bg, d, g, WriteOptions{Jobs: 1 + 3*i}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(snapshot(t, one), snapshot(t, two)); diff != "" {
		t.Errorf("two layouts of one graph differ:\n%s", diff)
	}
	src, err := open(manifests.Reference{Transport: manifests.Layout, Path: one})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := readAll(src); err != nil {
		t.Error(err)
	}
	if err := WriteLayout(bg, one, g, WriteOptions{Replace: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a layout that is there: %v, want fs.ErrExist", err)
	}
}

// TestWriteLeavesNothing has each blob in turn damaged, and the work cancelled.
func TestWriteLeavesNothing(t *testing.T) {
	b := fixtures.NewBlobs()
	g := b.Graph(t, fixtures.Sample(b)...)
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	try := func(what string, ctx context.Context, o WriteOptions, is func(error) bool) {
		t.Helper()
		errs := map[string]error{
			"tar":    planned(t, g, Hybrid).WriteFile(ctx, path, WriteOptions{Replace: true, Progress: o.Progress, Jobs: 2}),
			"layout": WriteLayout(ctx, path+".d", g, o),
		}
		for kind, err := range errs {
			if !is(err) {
				t.Errorf("%s of %s: %v", kind, what, err)
			}
		}
		if after := snapshot(t, dir); after != before {
			t.Fatalf("%s left something:\n%s\nwas:\n%s", what, after, before)
		}
	}
	for _, d := range g.Blobs() {
		b.Corrupt(d.Digest, func(p []byte) []byte { p[len(p)-1] ^= 1; return p })
		try(string(d.Digest), bg, WriteOptions{}, func(err error) bool {
			var bad *manifests.ContentError
			return errors.As(err, &bad) && strings.Contains(err.Error(), string(d.Digest))
		})
		b.Heal(d.Digest)
	}
	ctx, cancel := context.WithCancel(bg)
	try("a cancelled one", ctx, WriteOptions{Progress: func(ocispec.Descriptor, int64) { cancel() }}, func(err error) bool { return errors.Is(err, context.Canceled) })
	if err := planned(t, g, OCI).WriteFile(bg, path, WriteOptions{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file that is there: %v, want fs.ErrExist", err)
	}
	if err := planned(t, g, OCI).WriteFile(bg, path, WriteOptions{Replace: true}); err != nil {
		t.Error(err)
	}
}

// TestSkopeoReads has skopeo copy what is written here, by both of its parts.
func TestSkopeoReads(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
			t.Fatal("skopeo is not there")
		}
		t.Skip("skopeo is not there")
	}
	if os.Getuid() != 0 {
		t.Skip("skopeo unpacks OCI archives as root only")
	}
	b := fixtures.NewBlobs()
	layer := fixtures.LayerSpec{Files: []fixtures.File{{Name: "f", Body: "x"}}}
	d := b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{layer}})
	g := b.Graph(t, fixtures.Root("example.com/app:1", d), fixtures.Root("example.com/app:2", small(b, "two")))
	dir := t.TempDir()
	path := filepath.Join(dir, "x.tar")
	if err := planned(t, g, Hybrid).WriteFile(bg, path, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for i, from := range []string{"oci-archive:" + path + ":1", "docker-archive:" + path + ":example.com/app:1"} {
		to := filepath.Join(dir, "dir"+string(rune('0'+i)))
		if out, err := exec.Command(skopeo, "--insecure-policy", "--tmpdir", dir, "copy", "--dest-decompress=false", from, "dir:"+to).CombinedOutput(); err != nil {
			t.Errorf("skopeo copy %s: %v: %s", from, err, out)
			continue
		}
		src, err := open(manifests.Reference{Transport: manifests.Dir, Path: to})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		back, err := readAll(src)
		if err != nil {
			t.Fatal(err)
		}
		if got := back.Roots()[0].Descriptor.Digest; i == 0 && got != d.Digest {
			t.Errorf("skopeo gave %s, want %s", got, d.Digest)
		}
		if got, want := back.Images(back.Roots()[0])[0].ID(), g.Images(g.Roots()[0])[0].ID(); got != want {
			t.Errorf("skopeo gave the image %s, want %s", got, want)
		}
	}
}
