package dedupe

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestCatalogRoundTrip(t *testing.T) {
	d := func(s string) digest.Digest { return digest.FromString(s) }
	c := catalog{
		Images:   json.RawMessage(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + string(d("m")) + `","size":7}]}`),
		Tars:     []tarEntry{{d("t"), 10240}},
		Segments: []int64{1, 256 << 20},
		Bases:    []BaseID{{Name: "old", Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}},
		Needs: &Needs{
			Blobs:  []ocispec.Descriptor{{Digest: d("b"), Size: 5}},
			Layers: []NeededLayer{{DiffID: d("i"), Digest: d("l"), Size: 6, MediaType: ocispec.MediaTypeImageLayerGzip}},
		},
	}
	raw, err := formatCatalog(c)
	if err != nil {
		t.Fatal(err)
	}
	got, roots, err := parseCatalog(raw, "x")
	if err != nil || len(roots) != 1 || len(got.Needs.Bases) != 1 {
		t.Fatalf("%+v, %v, %v", got, roots, err)
	}
	again, err := formatCatalog(got)
	if err != nil || !bytes.Equal(raw, again) {
		t.Errorf("%v\n%s\n%s", err, raw, again)
	}
}

func TestChunkIndexIsOfOneLength(t *testing.T) {
	m := ocispec.Descriptor{Digest: digest.FromString("m"), Size: 5}
	for _, features := range [][]string{nil, {featureDelta}} {
		raw, err := chunkIndex(m, []ocispec.Descriptor{m}, 1<<40, features)
		if err != nil || len(raw) != chunkIndexSize || raw[len(raw)-1] != '\n' {
			t.Fatalf("%d bytes, %v", len(raw), err)
		}
		if _, err := parseRootIndex(raw, "x"); err != nil {
			t.Error(err)
		}
	}
}
