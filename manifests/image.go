package manifests

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
)

// maxLayers bounds the layers of one image. Engines stop at 127, overlayfs at
// 500.
const maxLayers = 1000

// Image is one image of one platform, made only by LoadImage: its layers, its
// config's diffIDs and its media types agree, and may be used unchecked.
type Image struct {
	Descriptor  ocispec.Descriptor
	Manifest    ocispec.Manifest // view of RawManifest
	RawManifest []byte
	Config      ocispec.Image // view of RawConfig
	RawConfig   []byte
	Layers      []Layer // bottom first
}

// Layer is one layer of an image.
type Layer struct {
	Blob        ocispec.Descriptor
	DiffID      digest.Digest
	ChainID     digest.Digest
	Compression Compression
}

// ID is the image ID engines show: the digest of the config.
func (i *Image) ID() digest.Digest { return i.Manifest.Config.Digest }

// Platform is what the config says the image runs on.
func (i *Image) Platform() ocispec.Platform {
	return normalize(i.Config.Platform)
}

// Size is the sum of the stored sizes of manifest, config and layers.
func (i *Image) Size() int64 {
	n := i.Descriptor.Size + i.Manifest.Config.Size
	for _, l := range i.Layers {
		n += l.Blob.Size
	}
	return n
}

// LoadImage reads an image's manifest and config and establishes every
// invariant the rest of the program leans on: media types that are known and
// agree with their descriptors, bounded counts and sizes, usable digests, not
// both layers and manifests in one document, as many layers as diffIDs. What
// breaks one is a *ContentError; an artifact that is no image, a foreign layer
// or a schema 1 manifest is an *UnsupportedError.
func LoadImage(ctx context.Context, f Fetcher, desc ocispec.Descriptor) (*Image, error) {
	raw, m, err := loadManifest(ctx, f, desc)
	if err != nil {
		return nil, err
	}
	return loadConfig(ctx, f, desc, raw, m)
}

func loadManifest(ctx context.Context, f Fetcher, desc ocispec.Descriptor) ([]byte, ocispec.Manifest, error) {
	raw, err := ReadDocument(ctx, f, desc)
	if err != nil {
		return nil, ocispec.Manifest{}, err
	}
	m, err := ParseManifest(raw, desc)
	return raw, m, err
}

// loadConfig makes an Image of a parsed manifest.
func loadConfig(ctx context.Context, f Fetcher, desc ocispec.Descriptor, raw []byte, m ocispec.Manifest) (*Image, error) {
	subject := "manifest " + string(desc.Digest)
	if err := checkLayerTypes(m, subject); err != nil {
		return nil, err
	}
	rawConfig, err := ReadDocument(ctx, f, m.Config)
	if err != nil {
		return nil, fmt.Errorf("config of %s: %w", desc.Digest, err)
	}
	img := &Image{Descriptor: desc, Manifest: m, RawManifest: raw, RawConfig: rawConfig}
	if err := DecodeJSON(rawConfig, "config "+string(m.Config.Digest), &img.Config); err != nil {
		return nil, err
	}
	if img.Layers, err = pairLayers(m, img.Config, subject); err != nil {
		return nil, err
	}
	return img, nil
}

func checkLayerTypes(m ocispec.Manifest, subject string) error {
	refuse := func(format string, args ...any) error {
		return &UnsupportedError{Subject: subject, Reason: fmt.Sprintf(format, args...)}
	}
	if !IsImageConfig(m.Config.MediaType) {
		return refuse("not an image: its config is %s", quote.Text(m.Config.MediaType))
	}
	for _, d := range m.Layers {
		if isForeignLayer(d.MediaType) {
			return refuse("layer %s is kept elsewhere by its publisher (a foreign layer)", d.Digest)
		}
		if _, ok := LayerCompression(d.MediaType); !ok {
			return refuse("layer %s has the unknown media type %s", d.Digest, quote.Text(d.MediaType))
		}
	}
	return nil
}

func pairLayers(m ocispec.Manifest, c ocispec.Image, subject string) ([]Layer, error) {
	ids := c.RootFS.DiffIDs
	if c.RootFS.Type != "layers" {
		return nil, Bad(KindMalformed, subject, "config has rootfs type %s, want \"layers\"", quote.Text(c.RootFS.Type))
	}
	if len(ids) != len(m.Layers) {
		return nil, Bad(KindMalformed, subject, "%d layers, but the config lists %d diffIDs", len(m.Layers), len(ids))
	}
	for _, id := range ids {
		if err := CheckDigest(id); err != nil {
			return nil, fmt.Errorf("%s: diffID: %w", subject, err)
		}
	}
	chain := identity.ChainIDs(slices.Clone(ids))
	layers := make([]Layer, len(m.Layers))
	for i, d := range m.Layers {
		compression, _ := LayerCompression(d.MediaType)
		layers[i] = Layer{Blob: d, DiffID: ids[i], ChainID: chain[i], Compression: compression}
	}
	return layers, nil
}

// ParseManifest reads the manifest desc names, whose bytes are already proven,
// and checks its form (OCI image specification, manifest.md; Docker schema 2).
func ParseManifest(raw []byte, desc ocispec.Descriptor) (ocispec.Manifest, error) {
	subject := "manifest " + quote.Clean(string(desc.Digest))
	var m struct {
		ocispec.Manifest
		Manifests json.RawMessage `json:"manifests"`
		FSLayers  json.RawMessage `json:"fsLayers"`
	}
	if err := DecodeJSON(raw, subject, &m); err != nil {
		return ocispec.Manifest{}, err
	}
	f := form{desc, subject, m.SchemaVersion, m.MediaType, m.FSLayers != nil}
	if err := f.check(IsManifest(desc.MediaType), m.Manifests); err != nil {
		return ocispec.Manifest{}, err
	}
	if len(m.Layers) > maxLayers {
		return ocispec.Manifest{}, Bad(KindLimit, subject, "%d layers are more than %d", len(m.Layers), maxLayers)
	}
	if err := checkLinks(subject, m.Layers, &m.Config, m.Subject); err != nil {
		return ocispec.Manifest{}, err
	}
	return m.Manifest, nil
}

// maxManifests bounds the entries of one index.
const maxManifests = 10_000

// ParseIndex reads the index or manifest list desc names, whose bytes are
// already proven, and checks its form (OCI image specification,
// image-index.md).
func ParseIndex(raw []byte, desc ocispec.Descriptor) (ocispec.Index, error) {
	subject := "index " + quote.Clean(string(desc.Digest))
	var x struct {
		ocispec.Index
		Config   json.RawMessage `json:"config"`
		Layers   json.RawMessage `json:"layers"`
		FSLayers json.RawMessage `json:"fsLayers"`
	}
	if err := DecodeJSON(raw, subject, &x); err != nil {
		return ocispec.Index{}, err
	}
	f := form{desc, subject, x.SchemaVersion, x.MediaType, x.FSLayers != nil}
	if err := f.check(IsIndex(desc.MediaType), x.Config, x.Layers); err != nil {
		return ocispec.Index{}, err
	}
	if len(x.Manifests) > maxManifests {
		return ocispec.Index{}, Bad(KindLimit, subject, "%d manifests are more than %d", len(x.Manifests), maxManifests)
	}
	if err := checkLinks(subject, x.Manifests, x.Subject); err != nil {
		return ocispec.Index{}, err
	}
	return x.Index, nil
}

// form is what a document says it is, and what its descriptor does.
type form struct {
	desc          ocispec.Descriptor
	subject       string
	schemaVersion int
	mediaType     string
	schema1       bool // has schema 1's list of layers
}

// check holds a document to the media type its descriptor gives it: the same
// bytes must not read as a manifest here and an index there (CVE-2021-41190).
// The foreign parts are those that only the other kind may have.
func (f form) check(kindFits bool, foreign ...json.RawMessage) error {
	switch {
	case f.schemaVersion == 1 || f.schema1 || isSchema1(f.desc.MediaType):
		return &UnsupportedError{Subject: f.subject, Reason: schema1Reason}
	case !kindFits:
		return Bad(KindMalformed, f.subject, "media type %s is not one of this kind of document", quote.Text(f.desc.MediaType))
	case f.schemaVersion != 2:
		return Bad(KindMalformed, f.subject, "schema version %d, want 2", f.schemaVersion)
	case f.mediaType != "" && f.mediaType != f.desc.MediaType:
		return Bad(KindMalformed, f.subject, "its mediaType %s is not the %s of its descriptor", quote.Text(f.mediaType), quote.Text(f.desc.MediaType))
	}
	for _, part := range foreign {
		if part != nil {
			return Bad(KindMalformed, f.subject, "it reads both as a manifest and as an index")
		}
	}
	return nil
}

const schema1Reason = "a Docker schema 1 manifest, which current registries and engines no longer read"

// checkLinks checks all descriptors of a document; those that are optional
// may be nil.
func checkLinks(subject string, list []ocispec.Descriptor, single ...*ocispec.Descriptor) error {
	for i := range list {
		single = append(single, &list[i])
	}
	for _, d := range single {
		if d == nil {
			continue
		}
		if err := CheckDescriptor(*d); err != nil {
			return fmt.Errorf("%s: %w", subject, err)
		}
	}
	return nil
}
