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
	plan, err := PlanTar(b.Graph(t, roots...), TarOptions{Omit: func(digest.Digest) bool { return true }})
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

// TestOmit leaves every leaf out in turn, then all that Omit is asked about:
// documents are in, the rest is listed, and what was left out nowhere is there.
func TestOmit(t *testing.T) {
	b := fixtures.NewBlobs()
	g := b.Graph(t, fixtures.Sample(b)...)
	for _, kind := range []TarKind{Hybrid, OCI} {
		whole := tarBytes(t, planned(t, g, kind))
		names, _ := members(t, whole)
		for _, one := range append(g.Blobs(), ocispec.Descriptor{}) {
			plan, err := PlanTar(g, TarOptions{Kind: kind, Omit: func(d digest.Digest) bool { return one.Digest == "" || d == one.Digest }})
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, d := range plan.Omitted() {
				out = append(out, blobPath(d.Digest))
			}
			got, _ := members(t, tarBytes(t, plan))
			want := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(out, n) })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s without %s: members (-want +got):\n%s", kind, one.Digest, diff)
			}
			if n := len(out); one.Digest != "" && n != 1 || one.Digest == "" && n != len(g.Blobs()) {
				t.Errorf("%s without %s: %d blobs left out", kind, one.Digest, n)
			}
		}
		plan, err := PlanTar(g, TarOptions{Kind: kind, Omit: func(digest.Digest) bool { return false }})
		if err != nil || len(plan.Omitted()) != 0 || !bytes.Equal(tarBytes(t, plan), whole) {
			t.Errorf("%s: nothing left out is another tar: %v", kind, err)
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
	plan, err := PlanTar(b.Graph(t, root), TarOptions{Omit: func(d digest.Digest) bool {
		return store.present(ocispec.Descriptor{Digest: d, Size: int64(len(b.Bytes(d)))})
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
