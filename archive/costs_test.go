package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// Any number of images may have one config, and names.
func TestDockerConfigsAreReadOnce(t *testing.T) {
	config := `{"architecture":"amd64","os":"linux","author":"` + strings.Repeat("x", 1<<20) + `","rootfs":{"type":"layers","diff_ids":[]}}`
	var images []dockerImage
	for i := range 2000 { // two GiB, if each were read
		images = append(images, dockerImage{Config: "c.json", RepoTags: []string{fmt.Sprint("example.org/app:", i), "example.org/same:1"}})
	}
	list, err := json.Marshal(images)
	if err != nil {
		t.Fatal(err)
	}
	raw := fixtures.Tar(fixtures.File{Name: "c.json", Body: config}, fixtures.File{Name: "manifest.json", Body: string(list)})
	src, err := openBytes(t, raw, manifests.DockerArchive)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	roots, err := src.Roots(context.Background())
	if err != nil || len(roots) != 2001 {
		t.Errorf("%d roots, %v", len(roots), err)
	}
	d := src.(*dockerTar)
	known := map[int64]*configFile{}
	one, err := d.config("c.json", known)
	two, again := d.config("./c.json", known)
	if err != nil || again != nil || one != two || one.raw != nil || one.digest != digest.FromString(config) {
		t.Errorf("%v %v %v %v", one, two, err, again)
	}
}

// Indexes that list one another many times over are read once.
func TestHybridOfIndexesInIndexes(t *testing.T) {
	var files []fixtures.File
	put := func(mediaType string, raw []byte) ocispec.Descriptor {
		d := digest.FromBytes(raw)
		files = append(files, fixtures.File{Name: "blobs/sha256/" + d.Encoded(), Body: string(raw)})
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}
	}
	doc := func(mediaType string, v any) ocispec.Descriptor {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return put(mediaType, raw)
	}
	config := put(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`))
	two := specs.Versioned{SchemaVersion: 2}
	d := doc(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: two, Config: config, Layers: []ocispec.Descriptor{}})
	for range 4 {
		x := ocispec.Index{Versioned: two}
		for range 500 {
			x.Manifests = append(x.Manifests, d)
		}
		d = doc(ocispec.MediaTypeImageIndex, x)
	}
	files = append(files, fixtures.File{Name: "oci-layout", Body: manifests.LayoutMarker}, fixtures.File{Name: "index.json", Body: files[len(files)-1].Body},
		fixtures.File{Name: "manifest.json", Body: `[{"Config":"blobs/sha256/` + config.Digest.Encoded() + `"}]`})
	src, err := openBytes(t, fixtures.Tar(files...), manifests.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if l, ok := src.(*layoutTar); !ok || l.roots[0].Index != "" {
		t.Errorf("%T", src)
	}
}
