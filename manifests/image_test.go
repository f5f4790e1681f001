package manifests

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestLoadImage(t *testing.T) {
	s := newStore()
	x := s.parts("linux/arm/v7", "one", "two", "three")
	x.manifest.Layers[1].MediaType = ocispec.MediaTypeImageLayerZstd
	x.manifest.Layers[2].MediaType = MediaTypeDockerLayer
	x.manifest.Layers[2].URLs = []string{"http://192.0.2.1/never"}
	x.manifest.Subject = &ocispec.Descriptor{MediaType: "x/y", Digest: digestOf("subject"), Size: 1}
	d := s.write(x)
	img, err := LoadImage(context.Background(), s, d)
	if err != nil {
		t.Fatal(err)
	}
	ids := x.config.RootFS.DiffIDs
	chain := ids[0]
	for i, l := range img.Layers {
		if i > 0 {
			chain = digestOf("%s %s", chain, ids[i])
		}
		if l.DiffID != ids[i] || l.ChainID != chain || l.Blob.Digest != x.manifest.Layers[i].Digest {
			t.Errorf("layer %d: %+v", i, l)
		}
	}
	if c := img.Layers; c[0].Compression != Gzip || c[1].Compression != Zstd || c[2].Compression != Uncompressed {
		t.Error("compressions", c)
	}
	if img.ID() != x.manifest.Config.Digest || FormatPlatform(img.Platform()) != "linux/arm/v7" || img.Descriptor.Digest != d.Digest {
		t.Error(img.ID(), img.Platform(), img.Descriptor)
	}
	if string(img.RawManifest) != string(s.blobs[d.Digest]) || string(img.RawConfig) != string(s.blobs[img.ID()]) {
		t.Error("raw bytes differ")
	}
	if want := d.Size + x.manifest.Config.Size + 3 + 3 + 5; img.Size() != want {
		t.Errorf("size %d, want %d", img.Size(), want)
	}
	empty, err := LoadImage(context.Background(), s, s.image("linux/amd64"))
	if err != nil || len(empty.Layers) != 0 {
		t.Error("an image without layers:", err)
	}
}

func TestLoadImageRefuses(t *testing.T) {
	for _, c := range []struct {
		what string
		edit func(s *store, x *parts)
		want string
	}{
		{"none", func(*store, *parts) {}, "ok"},
		{"no platform", func(_ *store, x *parts) { x.config.Platform = ocispec.Platform{} }, "ok"},
		{"media type left out", func(_ *store, x *parts) { x.manifest.MediaType = "" }, "ok"},
		{"docker's media types", func(_ *store, x *parts) {
			x.manifest.MediaType, x.manifest.Layers[0].MediaType = MediaTypeDockerManifest, MediaTypeDockerLayerGzip
		}, "ok"},
		{"schema version 1", func(_ *store, x *parts) { x.manifest.SchemaVersion = 1 }, "not supported"},
		{"schema version 0", func(_ *store, x *parts) { x.manifest.SchemaVersion = 0 }, "malformed"},
		{"schema version 3", func(_ *store, x *parts) { x.manifest.SchemaVersion = 3 }, "malformed"},
		{"layer: bad digest", func(_ *store, x *parts) { x.manifest.Layers[1].Digest = "sha256:../x" }, "malformed"},
		{"layer: no digest", func(_ *store, x *parts) { x.manifest.Layers[1].Digest = "" }, "malformed"},
		{"layer: negative size", func(_ *store, x *parts) { x.manifest.Layers[1].Size = -1 }, "size"},
		{"layer: data of another size", func(_ *store, x *parts) { x.manifest.Layers[1].Data = []byte("x") }, "size"},
		{"layer: data that is another", func(_ *store, x *parts) { x.manifest.Layers[1].Data = []byte("TWO") }, "digest"},
		{"layer: data that fits", func(_ *store, x *parts) { x.manifest.Layers[1].Data = []byte("two") }, "ok"},
		{"layer: foreign", func(_ *store, x *parts) { x.manifest.Layers[1].MediaType = MediaTypeDockerForeignLayer }, "not supported"},
		{"layer: nondistributable", func(_ *store, x *parts) {
			x.manifest.Layers[1].MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
		}, "not supported"},
		{"layer: unknown", func(_ *store, x *parts) { x.manifest.Layers[1].MediaType = "text/\x1b[2Jplain" }, "not supported"},
		{"subject: bad digest", func(_ *store, x *parts) { x.manifest.Subject = &ocispec.Descriptor{Digest: "x"} }, "malformed"},
		{"config: another artifact's", func(s *store, x *parts) { x.manifest.Config = s.add(ocispec.MediaTypeEmptyJSON, []byte("{}")) }, "not supported"},
		{"config: absent", func(s *store, x *parts) {
			x.manifest.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digestOf("?"), Size: 2}
		}, "not found"},
		{"config: size too small", func(s *store, x *parts) {
			x.manifest.Config = s.addJSON(ocispec.MediaTypeImageConfig, x.config)
			x.manifest.Config.Size--
		}, "size"},
		{"config: size too large", func(s *store, x *parts) {
			x.manifest.Config = s.addJSON(ocispec.MediaTypeImageConfig, x.config)
			x.manifest.Config.Size++
		}, "truncated"},
		{"config: over the limit", func(s *store, x *parts) {
			x.manifest.Config = s.add(ocispec.MediaTypeImageConfig, make([]byte, MaxDocument+1))
		}, "limit"},
		{"config: damaged", func(s *store, x *parts) {
			x.manifest.Config = s.addJSON(ocispec.MediaTypeImageConfig, x.config)
			s.blobs[x.manifest.Config.Digest] = make([]byte, x.manifest.Config.Size)
		}, "digest"},
		{"config: no JSON", func(s *store, x *parts) { x.manifest.Config = s.add(ocispec.MediaTypeImageConfig, []byte("x")) }, "malformed"},
		{"config: a key twice", func(s *store, x *parts) {
			x.manifest.Config = s.add(ocispec.MediaTypeImageConfig, []byte(`{"rootfs":{"type":"layers"},"rootfs":{}}`))
		}, "malformed"},
		{"config: no root file system", func(_ *store, x *parts) { x.config.RootFS = ocispec.RootFS{} }, "malformed"},
		{"config: root file system of another type", func(_ *store, x *parts) { x.config.RootFS.Type = "layers+base" }, "malformed"},
		{"config: a diffID too few", func(_ *store, x *parts) { x.config.RootFS.DiffIDs = x.config.RootFS.DiffIDs[1:] }, "malformed"},
		{"config: a diffID too many", func(_ *store, x *parts) {
			x.config.RootFS.DiffIDs = append(x.config.RootFS.DiffIDs, digestOf("more"))
		}, "malformed"},
		{"config: no diffIDs", func(_ *store, x *parts) { x.config.RootFS.DiffIDs = nil }, "malformed"},
		{"config: a bad diffID", func(_ *store, x *parts) { x.config.RootFS.DiffIDs[1] = "sha256:" }, "malformed"},
	} {
		s := newStore()
		x := s.parts("linux/amd64", "one", "two", "three")
		c.edit(s, x)
		_, err := LoadImage(context.Background(), s, s.write(x))
		check(t, c.what, err, c.want)
	}
}

func TestParseManifestForms(t *testing.T) {
	config := fmt.Sprintf(`"config":{"mediaType":%q,"digest":"%s","size":2}`, ocispec.MediaTypeImageConfig, digestOf("{}"))
	for _, c := range []struct{ what, mediaType, raw, want string }{
		{"least", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + config + `}`, "ok"},
		{"null layers", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + config + `,"layers":null}`, "ok"},
		{"its own media type", MediaTypeDockerManifest, `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerManifest + `",` + config + `}`, "ok"},
		{"another media type", MediaTypeDockerManifest, `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `",` + config + `}`, "malformed"},
		{"an index's media type", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `",` + config + `}`, "malformed"},
		{"media type that is a number", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"mediaType":2,` + config + `}`, "malformed"},
		{"descriptor of an index", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,` + config + `}`, "malformed"},
		{"descriptor of nothing", "", `{"schemaVersion":2,` + config + `}`, "malformed"},
		{"with manifests", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + config + `,"manifests":[]}`, "malformed"},
		{"with null manifests", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + config + `,"manifests":null}`, "malformed"},
		{"with Manifests", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + config + `,"Manifests":[]}`, "malformed"},
		{"no config", ocispec.MediaTypeImageManifest, `{"schemaVersion":2}`, "malformed"},
		{"null config", ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"config":null}`, "malformed"},
		{"schema 1", ocispec.MediaTypeImageManifest, `{"schemaVersion":1,"name":"x","tag":"y","fsLayers":[],"history":[],"signatures":[]}`, "not supported"},
		{"schema 1 by its layers", MediaTypeDockerManifest, `{"schemaVersion":2,` + config + `,"fsLayers":[]}`, "not supported"},
		{"schema 1 by its media type", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":2}`, "not supported"},
		{"an array", ocispec.MediaTypeImageManifest, `[]`, "malformed"},
		{"null", ocispec.MediaTypeImageManifest, `null`, "malformed"},
	} {
		_, err := ParseManifest([]byte(c.raw), ocispec.Descriptor{MediaType: c.mediaType, Digest: "a \x1b name"})
		check(t, c.what, err, c.want)
	}
}

func TestParseIndexForms(t *testing.T) {
	child := fmt.Sprintf(`{"mediaType":"x/y","digest":"%s","size":2}`, digestOf("{}"))
	for _, c := range []struct{ what, mediaType, raw, want string }{
		{"least", ocispec.MediaTypeImageIndex, `{"schemaVersion":2}`, "ok"},
		{"any child", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[` + child + `]}`, "ok"},
		{"docker's", MediaTypeDockerManifestList, `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerManifestList + `","manifests":[` + child + `]}`, "ok"},
		{"another media type", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerManifestList + `"}`, "malformed"},
		{"descriptor of a manifest", ocispec.MediaTypeImageManifest, `{"schemaVersion":2}`, "malformed"},
		{"no version", ocispec.MediaTypeImageIndex, `{"manifests":[]}`, "malformed"},
		{"schema 1", ocispec.MediaTypeImageIndex, `{"schemaVersion":1}`, "not supported"},
		{"with layers", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"layers":[]}`, "malformed"},
		{"with Layers", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"Layers":[]}`, "malformed"},
		{"with long layers", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"layerſ":[]}`, "malformed"},
		{"with a config", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"config":{}}`, "malformed"},
		{"with fsLayers", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"fsLayers":[]}`, "not supported"},
		{"bad child", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[` + child + `,{"digest":"x"}]}`, "malformed"},
		{"bad subject", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"subject":{"digest":"x"}}`, "malformed"},
	} {
		_, err := ParseIndex([]byte(c.raw), ocispec.Descriptor{MediaType: c.mediaType, Digest: digestOf("x")})
		check(t, c.what, err, c.want)
	}
}

func TestLimitsOnCounts(t *testing.T) {
	layer := fmt.Sprintf(`,{"mediaType":%q,"digest":"%s","size":2}`, ocispec.MediaTypeImageLayer, digestOf("{}"))
	list := func(n int) string { return "[" + strings.Repeat(layer, n)[1:] + "]" }
	manifest := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digestOf("m")}
	index := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digestOf("i")}
	for n, want := range map[int]string{maxLayers: "ok", maxLayers + 1: "limit"} {
		_, err := ParseManifest([]byte(`{"schemaVersion":2,"config":`+layer[1:]+`,"layers":`+list(n)+`}`), manifest)
		check(t, fmt.Sprint(n, " layers"), err, want)
	}
	for n, want := range map[int]string{maxManifests: "ok", maxManifests + 1: "limit"} {
		_, err := ParseIndex([]byte(`{"schemaVersion":2,"manifests":`+list(n)+`}`), index)
		check(t, fmt.Sprint(n, " manifests"), err, want)
	}
}

// A manifest of the most layers must not be slow or deep.
func TestManyLayers(t *testing.T) {
	s := newStore()
	x := s.parts("linux/amd64")
	for i := range maxLayers {
		x.manifest.Layers = append(x.manifest.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digestOf("%d", i), Size: maxBlob})
		x.config.RootFS.DiffIDs = append(x.config.RootFS.DiffIDs, digest.SHA512.FromString(fmt.Sprint(i)))
	}
	img, err := LoadImage(context.Background(), s, s.write(x))
	if err != nil || img.Size() < maxLayers*maxBlob {
		t.Error(img.Size(), err)
	}
}
