package archive

import (
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// plainImages are two images of plain tars over one base.
func plainImages(b *fixtures.Blobs) []manifests.Root {
	layer := func(text string) fixtures.LayerSpec {
		return fixtures.LayerSpec{Files: []fixtures.File{{Name: text, Body: strings.Repeat(text, 3000)}}, Compression: manifests.Uncompressed}
	}
	image := func(text string, docker bool) ocispec.Descriptor {
		return b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{layer("base"), layer(text)}, Docker: docker})
	}
	return []manifests.Root{fixtures.Root("app:1", image("one", false)), fixtures.Root("app:2", image("two", true))}
}

func checkPlain(t *testing.T, src Source, want int) {
	t.Helper()
	g, err := readAll(src)
	if err != nil {
		t.Fatal(err)
	}
	checkPlainGraph(t, g, want)
}

func checkPlainGraph(t *testing.T, g *manifests.Graph, want int) {
	t.Helper()
	for _, r := range g.Roots() {
		for _, img := range g.Images(r) {
			if len(img.Layers) != 2 {
				t.Errorf("%s: %d layers", r.Display(), len(img.Layers))
			}
			for _, l := range img.Layers {
				if l.Compression != manifests.Uncompressed || l.Blob.Digest != l.DiffID {
					t.Errorf("%s: a plain tar is said to be %s, digest %s of diffID %s", r.Display(), l.Compression, l.Blob.Digest, l.DiffID)
				}
			}
		}
	}
	if got := len(g.Blobs()); got != want {
		t.Errorf("%d distinct layers, want %d", got, want)
	}
}

// TestPlainLayers: plain tars come as such from every kind of source, a layer
// that images share once.
func TestPlainLayers(t *testing.T) {
	eachForm(t, func(t *testing.T, f form) {
		b := fixtures.NewBlobs()
		src, err := f.open(t, b, plainImages(b))
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		want := 3
		if f.single {
			want = 2
		}
		checkPlain(t, src, want)
	})
}

// TestArchivesShareLayers opens an archive of each image, one as docker wrote
// them before version 25 and one as it writes them since: the base is one blob.
func TestArchivesShareLayers(t *testing.T) {
	b := fixtures.NewBlobs()
	put := plainImages(b)
	older := b.DockerArchive(put[0])
	newer := tarBytes(t, planned(t, b.Graph(t, put[1]), Hybrid))
	var entries []manifests.Entry
	for _, archive := range [][]byte{older, newer} {
		src, err := openBytes(t, archive, manifests.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		roots, err := src.Roots(bg)
		if err != nil || len(roots) != 1 {
			t.Fatalf("%v, %v", roots, err)
		}
		entries = append(entries, manifests.Entry{Source: src, Root: roots[0]})
	}
	g, err := manifests.NewGraph(bg, entries, 0)
	if err != nil {
		t.Fatal(err)
	}
	checkPlainGraph(t, g, 3)
}
