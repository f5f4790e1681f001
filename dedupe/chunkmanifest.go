package dedupe

import (
	"encoding/json"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// formatManifest writes the manifest of a bundle of chunk mode. config is the
// catalog; layers are all other blobs in the order of the file, of the media
// types above: carried ones, segments, the recipes, those of streams.
func formatManifest(config ocispec.Descriptor, layers []ocispec.Descriptor) ([]byte, error) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: chunkArtifact, Config: config, Layers: layers}
	m.SchemaVersion = 2
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	_, _, err = parseManifest(raw, "bundle")
	return raw, err
}

// parseManifest is the mirror of formatManifest. It is not manifests.ParseManifest,
// which holds manifests to the bounds of images.
func parseManifest(raw []byte, name string) (config ocispec.Descriptor, layers []ocispec.Descriptor, err error) {
	name += ": manifest"
	var m struct {
		ocispec.Manifest
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := manifests.DecodeJSON(raw, name, &m); err != nil {
		return config, nil, err
	}
	switch {
	case m.SchemaVersion != 2 || m.MediaType != ocispec.MediaTypeImageManifest || m.Manifests != nil:
		return config, nil, manifests.Bad(manifests.KindMalformed, name, "it is not an OCI image manifest")
	case m.ArtifactType != chunkArtifact:
		return config, nil, manifests.Bad(manifests.KindMalformed, name, "its artifact type is %s", quote.Text(m.ArtifactType))
	case m.Config.MediaType != mediaTypeCatalog:
		return config, nil, manifests.Bad(manifests.KindMalformed, name, "its config has the media type %s", quote.Text(m.Config.MediaType))
	case len(m.Layers)+2 > maxChunkBlobs:
		return config, nil, manifests.Bad(manifests.KindLimit, name, "%d blobs are more than %d", len(m.Layers)+2, maxChunkBlobs)
	}
	return m.Config, m.Layers, checkOrder(m.Layers, name)
}

// checkOrder holds the manifest's layers to their order by kind: any number of
// carried blobs, any number of segments, one blob of recipes, and at most one
// of those of streams.
func checkOrder(layers []ocispec.Descriptor, name string) error {
	const recipes, streams = 2, 3
	place := map[string]int{mediaTypeCarried: 0, mediaTypeSegment: 1, mediaTypeRecipes: recipes, mediaTypeStreams: streams}
	at := 0
	for i, l := range layers {
		p, ok := place[l.MediaType]
		if !ok || p < at || p == at && p >= recipes || p == streams && at != recipes {
			return manifests.Bad(manifests.KindMalformed, name, "layer %d has the media type %s, which does not belong there", i, quote.Text(l.MediaType))
		}
		at = p
	}
	if at < recipes {
		return manifests.Bad(manifests.KindMalformed, name, "it lists no recipes")
	}
	return nil
}
