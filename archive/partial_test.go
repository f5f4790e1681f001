package archive

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

func tarBytes(t testing.TB, plan *Tar) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := plan.Write(bg, &buf, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if int64(buf.Len()) != plan.Size() {
		t.Errorf("%d bytes, %d planned", buf.Len(), plan.Size())
	}
	return buf.Bytes()
}

// partialTar is a tar without any layers.
func partialTar(t testing.TB, b *fixtures.Blobs, roots ...manifests.Root) []byte {
	t.Helper()
	plan, err := PlanTar(b.Graph(t, roots...), TarOptions{Omit: func(manifests.Layer) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	return tarBytes(t, plan)
}

func platformImages(b *fixtures.Blobs) (amd, arm ocispec.Descriptor) {
	image := func(arch string) ocispec.Descriptor {
		return b.Image(fixtures.ImageSpec{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, Layers: []fixtures.LayerSpec{{Files: []fixtures.File{{Name: "f", Body: arch}}}}})
	}
	return image("amd64"), image("arm64")
}

// TestOmit leaves every layer out in turn, then all: what was left out is
// listed and nowhere there, all else is in.
func TestOmit(t *testing.T) {
	b := fixtures.NewBlobs()
	g := b.Graph(t, fixtures.Sample(b)...)
	for _, kind := range []TarKind{Hybrid, OCI} {
		whole := tarBytes(t, planned(t, g, kind))
		names, _ := members(t, whole)
		count := 0
		for _, one := range append(g.Blobs(), ocispec.Descriptor{}) {
			plan, err := PlanTar(g, TarOptions{Kind: kind, Omit: func(l manifests.Layer) bool { return one.Digest == "" || l.Blob.Digest == one.Digest }})
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, d := range plan.Omitted() {
				out = append(out, blobPath(d.Digest))
				if one.Digest != "" && d.Digest != one.Digest {
					t.Errorf("%s was left out", d.Digest)
				}
			}
			got, _ := members(t, tarBytes(t, plan))
			want := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(out, n) })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s without %s: members (-want +got):\n%s", kind, one.Digest, diff)
			}
			count = len(out)
		}
		if count != len(g.Blobs()) {
			t.Errorf("%s: %d of %d layers can be left out", kind, count, len(g.Blobs()))
		}
		plan, err := PlanTar(g, TarOptions{Kind: kind, Omit: func(manifests.Layer) bool { return false }})
		if err != nil || len(plan.Omitted()) != 0 || !bytes.Equal(tarBytes(t, plan), whole) {
			t.Errorf("%s: nothing left out is another tar: %v", kind, err)
		}
	}
}

// TestOmitOnlyOnTopOfWhatIsThere: docker finds a layer by all that is below
// it, so one that lies on another base must be in the tar, even if the base is
// another in one image only.
func TestOmitOnlyOnTopOfWhatIsThere(t *testing.T) {
	b := fixtures.NewBlobs()
	image := func(texts ...string) manifests.Root {
		var layers []fixtures.LayerSpec
		for _, text := range texts {
			layers = append(layers, fixtures.LayerSpec{Files: []fixtures.File{{Name: text, Body: text}}})
		}
		return fixtures.Root("app:"+strings.Join(texts, "-"), b.Image(fixtures.ImageSpec{Layers: layers}))
	}
	blobs, chains := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	there := b.Graph(t, image("base", "lib", "app"), image("other"))
	for _, r := range there.Roots() {
		for _, l := range there.Images(r)[0].Layers {
			blobs[l.Blob.Digest], chains[l.ChainID] = true, true
		}
	}
	for _, c := range []struct {
		roots            []manifests.Root
		byBlob, andChain int // layers left out
	}{
		{[]manifests.Root{image("base", "lib", "new")}, 2, 2},
		{[]manifests.Root{image("base", "lib", "app")}, 3, 3},
		{[]manifests.Root{image("rebuilt", "lib", "app")}, 0, 0},
		{[]manifests.Root{image("base", "app")}, 2, 1},
		{[]manifests.Root{image("base", "lib", "new"), image("rebuilt", "lib", "new")}, 1, 1},
		{[]manifests.Root{image("other", "base")}, 2, 1},
		{[]manifests.Root{image("base", "new", "lib")}, 1, 1},
	} {
		g := b.Graph(t, c.roots...)
		plan, err := PlanTar(g, TarOptions{Omit: func(l manifests.Layer) bool { return blobs[l.Blob.Digest] }})
		if err != nil || len(plan.Omitted()) != c.byBlob {
			t.Errorf("%s: %d left out, want %d; %v", c.roots[0].Name, len(plan.Omitted()), c.byBlob, err)
		}
		plan, err = PlanTar(g, TarOptions{Omit: func(l manifests.Layer) bool { return blobs[l.Blob.Digest] && chains[l.ChainID] }})
		if err != nil || len(plan.Omitted()) != c.andChain {
			t.Errorf("%s: %d left out by chain, want %d; %v", c.roots[0].Name, len(plan.Omitted()), c.andChain, err)
		}
	}
}

// TestPartialTar reads a tar that leaves out what a store has: into that store
// it goes, elsewhere it says what is missing. That only one platform's layers
// are in it does not make it a tar of that platform.
func TestPartialTar(t *testing.T) {
	b := fixtures.NewBlobs()
	amd, arm := platformImages(b)
	store := newStore(t)
	add(t, store, b, AddOptions{}, fixtures.Root("base:1", amd))
	root := fixtures.Root("example.com/multi:1", b.Index(amd, arm))
	plan, err := PlanTar(b.Graph(t, root), TarOptions{Omit: func(l manifests.Layer) bool {
		return store.present(l.Blob)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Omitted()) != 1 {
		t.Fatalf("left out: %v", plan.Omitted())
	}
	src, err := openBytes(t, tarBytes(t, plan), manifests.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	roots, err := src.Roots(bg)
	if err != nil || len(roots) != 1 || roots[0].Descriptor.Digest != root.Descriptor.Digest || roots[0].State() != manifests.Exact {
		t.Fatalf("%v, %v", roots, err)
	}
	g, err := manifests.NewGraph(bg, []manifests.Entry{{Source: src, Root: roots[0]}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	var absent *manifests.NotFoundError
	if _, err := newStore(t).Add(bg, g, AddOptions{}); !errors.As(err, &absent) || !strings.Contains(err.Error(), "leaves out") {
		t.Errorf("without the base: %v", err)
	}
	if _, err := store.Add(bg, g, AddOptions{}); err != nil {
		t.Errorf("with the base: %v", err)
	}
	if _, err := readAll(store); err != nil {
		t.Errorf("the store: %v", err)
	}
}
