package manifests

import (
	"context"
	"encoding/json"
	"fmt"

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
// invariant the rest of the program leans on: known media types that agree
// with their descriptors, bounded counts and sizes, usable digests, not both
// layers and manifests in one document, as many layers as diffIDs. What breaks
// one is a *ContentError; an artifact that is no image, a foreign layer or a
// schema 1 manifest is an *UnsupportedError.
func LoadImage(ctx context.Context, f Fetcher, desc ocispec.Descriptor) (*Image, error) {
	raw, err := ReadDocument(ctx, f, desc)
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(raw, desc)
	if err != nil {
		return nil, err
	}
	subject := "manifest " + string(desc.Digest)
	if !IsImageConfig(m.Config.MediaType) {
		return nil, &UnsupportedError{Subject: subject, Reason: "not an image: its config is " + quote.Text(m.Config.MediaType)}
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

func pairLayers(m ocispec.Manifest, c ocispec.Image, subject string) ([]Layer, error) {
	if c.RootFS.Type != "layers" {
		return nil, Bad(KindMalformed, subject, "config has rootfs type %s, want \"layers\"", quote.Text(c.RootFS.Type))
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, Bad(KindMalformed, subject, "%d layers, but the config lists %d diffIDs", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	for _, id := range c.RootFS.DiffIDs {
		if err := CheckDigest(id); err != nil {
			return nil, fmt.Errorf("%s: diffID: %w", subject, err)
		}
	}
	chain := identity.ChainIDs(append([]digest.Digest(nil), c.RootFS.DiffIDs...))
	layers := make([]Layer, len(m.Layers))
	for i, d := range m.Layers {
		compression, ok := LayerCompression(d.MediaType)
		if isForeignLayer(d.MediaType) {
			return nil, &UnsupportedError{Subject: subject, Reason: "layer " + string(d.Digest) + " is kept elsewhere by its publisher (a foreign layer)"}
		}
		if !ok {
			return nil, &UnsupportedError{Subject: subject, Reason: "layer " + string(d.Digest) + " has the unknown media type " + quote.Text(d.MediaType)}
		}
		layers[i] = Layer{Blob: d, DiffID: c.RootFS.DiffIDs[i], ChainID: chain[i], Compression: compression}
	}
	return layers, nil
}

// ParseManifest reads the manifest desc names, whose bytes are already proven,
// and checks its form (OCI image specification, manifest.md; Docker schema 2).
func ParseManifest(raw []byte, desc ocispec.Descriptor) (ocispec.Manifest, error) {
	subject := "manifest " + string(desc.Digest)
	var m ocispec.Manifest
	if err := checkKind(raw, desc, subject, IsManifest, "manifests"); err != nil {
		return m, err
	}
	if err := DecodeJSON(raw, subject, &m); err != nil {
		return m, err
	}
	if m.SchemaVersion != 2 {
		return m, &UnsupportedError{Subject: subject, Reason: fmt.Sprintf("schema version %d; only 2 is read", m.SchemaVersion)}
	}
	if len(m.Layers) > maxLayers {
		return m, Bad(KindLimit, subject, "%d layers are more than %d", len(m.Layers), maxLayers)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := CheckDescriptor(d); err != nil {
			return m, fmt.Errorf("%s: %w", subject, err)
		}
	}
	return m, nil
}

// maxManifests bounds the entries of one index.
const maxManifests = 10_000

// ParseIndex reads the index or manifest list desc names, whose bytes are
// already proven, and checks its form (OCI image specification,
// image-index.md).
func ParseIndex(raw []byte, desc ocispec.Descriptor) (ocispec.Index, error) {
	subject := "index " + string(desc.Digest)
	var x ocispec.Index
	if err := checkKind(raw, desc, subject, IsIndex, "layers", "config", "fsLayers"); err != nil {
		return x, err
	}
	if err := DecodeJSON(raw, subject, &x); err != nil {
		return x, err
	}
	if x.SchemaVersion != 2 {
		return x, Bad(KindMalformed, subject, "schema version %d, want 2", x.SchemaVersion)
	}
	if len(x.Manifests) > maxManifests {
		return x, Bad(KindLimit, subject, "%d manifests are more than %d", len(x.Manifests), maxManifests)
	}
	for _, d := range x.Manifests {
		if err := CheckDescriptor(d); err != nil {
			return x, fmt.Errorf("%s: %w", subject, err)
		}
	}
	return x, nil
}

// checkKind holds a document to the media type its descriptor gives it: the
// same bytes must not read as a manifest here and an index there
// (CVE-2021-41190).
func checkKind(raw []byte, desc ocispec.Descriptor, subject string, is func(string) bool, foreign ...string) error {
	if !is(desc.MediaType) {
		return Bad(KindMalformed, subject, "media type %s is not one of this kind of document", quote.Text(desc.MediaType))
	}
	var keys map[string]json.RawMessage
	if err := DecodeJSON(raw, subject, &keys); err != nil {
		return err
	}
	if string(keys["schemaVersion"]) == "1" || keys["fsLayers"] != nil {
		return &UnsupportedError{Subject: subject, Reason: "a Docker schema 1 manifest, which current registries and engines no longer read"}
	}
	for _, k := range foreign {
		if _, ok := keys[k]; ok {
			return Bad(KindMalformed, subject, "holds %q, which does not belong in it", k)
		}
	}
	if text, ok := keys["mediaType"]; ok {
		var own string
		if json.Unmarshal(text, &own) != nil || own != desc.MediaType {
			return Bad(KindMalformed, subject, "its mediaType %s is not the %q of its descriptor", quote.Text(string(text)), desc.MediaType)
		}
	}
	return nil
}
