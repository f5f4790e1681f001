package manifests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Derivation says what an image has that the one it is made of has not.
type Derivation struct {
	// Layer is put on top; nil for none. Its blob's media type may be left out
	// where it is gzip's.
	Layer     *Layer
	Created   time.Time
	Author    string // "" leaves the base's
	CreatedBy string // of the entry of the history
	Comment   string
	Changes   []ConfigChange // in order
}

// Derived is an image that was made, in documents that are not stored yet.
type Derived struct {
	Descriptor  ocispec.Descriptor // of the manifest
	RawManifest []byte
	Config      ocispec.Descriptor
	RawConfig   []byte
}

// Derive makes an image of another. The documents are of the base's family of
// media types. What the base's config holds is kept, also what this program
// does not know, but for what is derived; of the base's manifest the layers'
// descriptors are kept. The same base and derivation give the same bytes.
//
// What the changes make of the config that no image may have is an *InputError.
func (i *Image) Derive(d Derivation) (*Derived, error) {
	config, err := i.deriveConfig(d)
	if err != nil {
		return nil, err
	}
	manifestType, configType, layerType := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip
	if i.Descriptor.MediaType == MediaTypeDockerManifest {
		manifestType, configType, layerType = MediaTypeDockerManifest, MediaTypeDockerConfig, MediaTypeDockerLayerGzip
	}
	out := &Derived{RawConfig: config, Config: describe(configType, config)}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType,
		Config: out.Config, Layers: slices.Clone(i.Manifest.Layers),
	}
	if d.Layer != nil {
		blob := d.Layer.Blob
		if blob.MediaType == "" {
			blob.MediaType = layerType
		}
		m.Layers = append(m.Layers, blob)
	}
	if m.Layers == nil {
		m.Layers = []ocispec.Descriptor{}
	}
	if out.RawManifest, err = marshal(m); err != nil {
		return nil, err
	}
	out.Descriptor = describe(manifestType, out.RawManifest)
	platform := i.Platform()
	out.Descriptor.Platform = &platform
	return out, nil
}

func describe(mediaType string, raw []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

// marshal is compact JSON; of maps, the keys are sorted.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// rawObject is a JSON object of which only some keys are looked into.
type rawObject map[string]json.RawMessage

func parseObject(raw []byte) (rawObject, error) {
	o := rawObject{}
	if len(raw) == 0 || bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return o, nil
	}
	err := json.Unmarshal(raw, &o)
	return o, err
}

func (o rawObject) set(key string, v any) error {
	raw, err := marshal(v)
	if err == nil {
		o[key] = raw
	}
	return err
}

// deriveConfig extends the base's config.
func (i *Image) deriveConfig(d Derivation) ([]byte, error) {
	config, err := parseObject(i.RawConfig)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err) // LoadImage has read it before
	}
	inner, err := parseObject(config["config"])
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	if err := applyChanges(inner, d.Changes); err != nil {
		return nil, err
	}
	rootfs, err := parseObject(config["rootfs"])
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	ids := slices.Clone(i.Config.RootFS.DiffIDs)
	if d.Layer != nil {
		ids = append(ids, d.Layer.DiffID)
	}
	if ids == nil {
		ids = []digest.Digest{}
	}
	if err := rootfs.set("diff_ids", ids); err != nil {
		return nil, err
	}
	var history []json.RawMessage
	if raw := config["history"]; raw != nil {
		if err := json.Unmarshal(raw, &history); err != nil {
			return nil, fmt.Errorf("read config: %w", err)
		}
	}
	created := d.Created.UTC()
	entry, err := marshal(ocispec.History{Created: &created, CreatedBy: d.CreatedBy, Author: d.Author, Comment: d.Comment, EmptyLayer: d.Layer == nil})
	if err != nil {
		return nil, err
	}
	set := map[string]any{"created": created, "config": inner, "rootfs": rootfs, "history": append(history, entry)}
	if d.Author != "" {
		set["author"] = d.Author
	}
	for key, v := range set { // each its own: no order
		if err := config.set(key, v); err != nil {
			return nil, err
		}
	}
	return marshal(config)
}
