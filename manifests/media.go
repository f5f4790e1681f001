package manifests

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's schema 2, which registries and engines still serve.
const (
	MediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerConfig       = "application/vnd.docker.container.image.v1+json"
	MediaTypeDockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	MediaTypeDockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	MediaTypeDockerLayerZstd    = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	MediaTypeDockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
)

// What the media types of layers begin with, whatever their compression.
const (
	ociLayers     = "application/vnd.oci.image.layer."
	dockerLayers  = "application/vnd.docker.image.rootfs."
	ociForeign    = ociLayers + "nondistributable."
	dockerForeign = dockerLayers + "foreign."
)

// Compression is how a layer's tar is wrapped in its blob.
type Compression string

// The compressions a layer's media type can name.
const (
	Uncompressed Compression = "none"
	Gzip         Compression = "gzip"
	Zstd         Compression = "zstd"
)

// layerTypes are the media types of layers whose content is carried.
var layerTypes = map[string]Compression{
	ocispec.MediaTypeImageLayer:     Uncompressed,
	ocispec.MediaTypeImageLayerGzip: Gzip,
	ocispec.MediaTypeImageLayerZstd: Zstd,
	MediaTypeDockerLayer:            Uncompressed,
	MediaTypeDockerLayerGzip:        Gzip,
	MediaTypeDockerLayerZstd:        Zstd,
}

// LayerCompression returns the compression that a layer media type names, and
// whether it is that of a layer whose content is carried.
func LayerCompression(mediaType string) (Compression, bool) {
	c, ok := layerTypes[mediaType]
	return c, ok
}

// IsManifest reports whether the media type is that of an image manifest.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == MediaTypeDockerManifest
}

// IsIndex reports whether the media type is that of an index or manifest list.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == MediaTypeDockerManifestList
}

// IsImageConfig reports whether the media type is that of an image config.
func IsImageConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == MediaTypeDockerConfig
}

// isLayer reports the media types of all layers, those that are not carried
// included.
func isLayer(mediaType string) bool {
	return strings.HasPrefix(mediaType, ociLayers) || strings.HasPrefix(mediaType, dockerLayers)
}

// isForeignLayer reports layers that lawfully live elsewhere: their URLs are
// never contacted.
func isForeignLayer(mediaType string) bool {
	return strings.HasPrefix(mediaType, ociForeign) || strings.HasPrefix(mediaType, dockerForeign)
}

// IsImage tells an image from the other artifacts that a manifest can describe;
// d is the descriptor that led to it.
// Its config's media type is not enough: BuildKit's attestations and cosign's
// signatures have an image config, and statements in JSON or text for layers.
// What is neither clearly is an image that has to pass LoadImage.
func IsImage(d ocispec.Descriptor, m ocispec.Manifest) bool {
	if !IsImageConfig(m.Config.MediaType) {
		return false
	}
	statements := len(m.Layers) > 0
	for _, l := range m.Layers {
		if isLayer(l.MediaType) {
			return true
		}
		statements = statements && isStatement(l.MediaType)
	}
	return !statements && !isAttestation(d) && m.ArtifactType == ""
}

func isStatement(mediaType string) bool {
	return !isDocument(mediaType) && (strings.HasSuffix(mediaType, "+json") || strings.HasPrefix(mediaType, "text/"))
}

// isAttestation reports an index entry that BuildKit marks as no image for any
// platform.
func isAttestation(d ocispec.Descriptor) bool {
	return d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// isDocument reports the media types whose blobs refer to others.
func isDocument(mediaType string) bool { return IsIndex(mediaType) || IsManifest(mediaType) }

// isSchema1 reports Docker's oldest manifests, signed and not.
func isSchema1(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.docker.distribution.manifest.v1+")
}
