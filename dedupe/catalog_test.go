package dedupe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/manifests"
)

func sampleCatalog() catalog {
	d := func(s string) digest.Digest { return digest.FromString(s) }
	return catalog{
		Images:   json.RawMessage(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + string(d("m")) + `","size":7}]}`),
		Tars:     []tarEntry{{d("t"), 10240}},
		Streams:  []streamEntry{{d("s"), 4000, d("t"), 30}, {d("z"), 3000, d("t"), 64 << 20}},
		Segments: []int64{1, 256 << 20},
		Bases:    []BaseID{{Name: "old", Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}},
		Needs: &Needs{
			Blobs:  []ocispec.Descriptor{{Digest: d("b"), Size: 5}},
			Layers: []NeededLayer{{DiffID: d("i"), Digest: d("l"), Size: 6, MediaType: ocispec.MediaTypeImageLayerGzip}},
		},
	}
}

func TestCatalogRoundTrip(t *testing.T) {
	c := sampleCatalog()
	raw, err := formatCatalog(c)
	if err != nil {
		t.Fatal(err)
	}
	got, roots, err := parseCatalog(raw, "x")
	if err != nil || len(roots) != 1 {
		t.Fatalf("%+v, %v, %v", got, roots, err)
	}
	c.Needs.Bases = c.Bases
	if !reflect.DeepEqual(got, c) {
		t.Errorf("%+v\nwant %+v", got, c)
	}
	again, err := formatCatalog(got)
	if err != nil || !bytes.Equal(raw, again) {
		t.Errorf("%v\n%s\n%s", err, raw, again)
	}
}

func TestChunkIndexIsOfOneLength(t *testing.T) {
	m := ocispec.Descriptor{Digest: digest.FromString("m"), Size: 5}
	for _, features := range [][]string{nil, {featureDelta}, {featureDelta, featureStreams}} {
		raw, err := chunkIndex(m, []ocispec.Descriptor{m}, 1<<40, features)
		if err != nil || len(raw) != chunkIndexSize || raw[len(raw)-1] != '\n' {
			t.Fatalf("%d bytes, %v", len(raw), err)
		}
		if _, err := parseRootIndex(raw, "x"); err != nil {
			t.Error(err)
		}
	}
}

func TestWritersCheckThemselves(t *testing.T) {
	c := sampleCatalog()
	c.Tars = append(c.Tars, c.Tars[0])
	if _, err := formatCatalog(c); err == nil {
		t.Error("a tar twice: written")
	}
	m := ocispec.Descriptor{MediaType: mediaTypeCatalog, Digest: digest.FromString("m"), Size: 5}
	if _, err := formatManifest(m, []ocispec.Descriptor{m}); err == nil {
		t.Error("a manifest without recipes: written")
	}
	var long []string
	for i := range 120 {
		long = append(long, fmt.Sprintf("a-feature-with-a-long-name-%05d", i))
	}
	if _, err := chunkIndex(m, nil, 0, long); err == nil {
		t.Error("index.json of more than 4096 bytes: written")
	}
}

// sorted fails the test for an error that is of no kind.
func sorted(t *testing.T, err error) {
	var bad *manifests.ContentError
	var unsupported *manifests.UnsupportedError
	if !errors.As(err, &bad) && !errors.As(err, &unsupported) {
		t.Fatalf("%v is of no kind", err)
	}
}

func FuzzParseCatalog(f *testing.F) {
	c := sampleCatalog()
	raw, err := formatCatalog(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	c.Bases, c.Needs, c.Streams = nil, nil, nil
	if raw, err = formatCatalog(c); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, _, err := parseCatalog(raw, "x")
		if err != nil {
			sorted(t, err)
			return
		}
		once, err := formatCatalog(c)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err = parseCatalog(once, "x")
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := formatCatalog(c); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s\n%s\n%v", once, twice, err)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	d := func(mediaType, s string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(s), Size: 5}
	}
	raw, err := formatManifest(d(mediaTypeCatalog, "c"), []ocispec.Descriptor{d(mediaTypeCarried, "b"), d(mediaTypeSegment, "s"), d(mediaTypeRecipes, "r")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	if raw, err = formatManifest(d(mediaTypeCatalog, "c"), []ocispec.Descriptor{d(mediaTypeRecipes, "r"), d(mediaTypeStreams, "t")}); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		config, layers, err := parseManifest(raw, "x")
		if err != nil {
			sorted(t, err)
			return
		}
		last := layers[len(layers)-1].MediaType
		if config.MediaType != mediaTypeCatalog || last != mediaTypeRecipes && last != mediaTypeStreams {
			t.Fatalf("%+v, %+v", config, layers)
		}
	})
}
