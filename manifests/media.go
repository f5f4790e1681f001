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
// whether it is a layer media type at all.
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

// isForeignLayer reports layers that lawfully live elsewhere: their URLs are
// never contacted.
func isForeignLayer(mediaType string) bool {
	return mediaType == MediaTypeDockerForeignLayer || strings.Contains(mediaType, ".nondistributable.")
}
