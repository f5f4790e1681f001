package dedupe

import (
	"bytes"
	"fmt"
	"hash"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/manifests"
)

// The members of a bundle that are not blobs, in their order.
const (
	readmeName = "README.imgpack.txt"
	layoutName = "oci-layout"
	indexName  = "index.json"
)

// readme is what a writer puts first. A reader takes any text: index.json has
// its digest.
const readme = `This file is an imgpack bundle: container images for a place without a network,
each layer stored once.

It is a plain tar and a valid OCI image layout. Look into it with

    tar tf FILE
    tar xOf FILE index.json

and use it with imgpack (https://github.com/imgpack/imgpack):

    imgpack images FILE           what is in it
    imgpack verify FILE           prove that it is whole and unchanged
    imgpack load FILE             into the local store
    imgpack push FILE REGISTRY    to a registry

or, without imgpack, one image at a time:

    skopeo copy oci-archive:FILE:TAG docker://REGISTRY/NAME:TAG

Every blob is named by its digest: sha256sum must give the file name back.
`

// readmeChunk is the same for chunk mode.
const readmeChunk = `This file is an imgpack bundle: container images for a place without a network,
what they have in common stored once, and compressed.

It is a plain tar and a valid OCI image layout. Look into it with

    tar tf FILE
    tar xOf FILE index.json

and use it with imgpack (https://github.com/imgpack/imgpack):

    imgpack images FILE              what is in it
    imgpack verify FILE              prove that it is whole and unchanged
    imgpack load FILE                into the local store
    imgpack push FILE REGISTRY       to a registry
    imgpack save FILE -o IMAGES.tar  an archive that docker and podman load

The layers of the images are cut up in it, so other programs, skopeo among
them, carry the file as it is but do not see the images in it. How it is made
is written down at the address above, in docs/bundle-format.md.

Every blob is named by its digest: sha256sum must give the file name back.
`

// The annotations of index.json.
const (
	annotationPrefix   = "io.imgpack.bundle."
	annotationVersion  = annotationPrefix + "version"
	annotationMode     = annotationPrefix + "mode"
	annotationBlobs    = annotationPrefix + "blobs"
	annotationTail     = annotationPrefix + "tail" // layer mode
	annotationHead     = annotationPrefix + "head" // chunk mode
	annotationMembers  = annotationPrefix + "members"
	annotationReadme   = annotationPrefix + "readme"
	annotationIndex    = annotationPrefix + "index"
	annotationFeatures = annotationPrefix + "features"
)

// Mode is how a bundle holds layers.
type Mode string

// The modes.
const (
	ModeChunk Mode = "chunk" // cut up, shared and compressed anew
	ModeLayer Mode = "layer" // as they are
)

const (
	formatVersion = 1

	// reservedTypes start the media and artifact types that mean something
	// to imgpack alone.
	reservedTypes = "application/vnd.imgpack."
)

// The features, which are known in chunk mode alone.
const (
	featureDelta   = "delta"   // leans on blobs of the other side
	featureStreams = "streams" // gives back compressed layers from open ones
)

// Media types of chunk mode.
const (
	chunkArtifact    = reservedTypes + "bundle.chunk.v1"
	mediaTypeCatalog = reservedTypes + "bundle.catalog.v1+json"
	mediaTypeCarried = reservedTypes + "bundle.blob.v1"
	mediaTypeSegment = reservedTypes + "bundle.segment.v1"
	mediaTypeRecipes = reservedTypes + "bundle.recipes.v1"
	mediaTypeStreams = reservedTypes + "bundle.streams.v1"
)

// Bounds of the format. Memory for an open bundle is about 200 bytes a blob:
// 50 MB at the limit.
const (
	maxReadme      = 64 << 10
	maxBlobs       = 250_000
	maxChunkBlobs  = 20_000 // in the file, in chunk mode
	maxCatalog     = 16 << 20
	maxStreams     = 1 << 30 // the recipes of all streams
	maxBlobSize    = 1 << 40
	maxFeatures    = 32
	maxFeatureName = 32
)

const (
	blockSize = 512
	endSize   = 2 * blockSize
)

// memberName is where a blob lies. The digest must have been checked.
func memberName(d digest.Digest) string {
	return "blobs/" + string(d.Algorithm()) + "/" + d.Encoded()
}

// parseMemberName is the mirror of memberName.
func parseMemberName(name string) (digest.Digest, bool) {
	rest, ok := strings.CutPrefix(name, "blobs/")
	if !ok {
		return "", false
	}
	algorithm, hex, _ := strings.Cut(rest, "/")
	d := digest.Digest(algorithm + ":" + hex)
	return d, manifests.CheckDigest(d) == nil && memberName(d) == name
}

// memberTable hashes the digests and sizes of the blobs in their order.
type memberTable struct{ hash hash.Hash }

func newMemberTable() *memberTable {
	return &memberTable{hash: digest.SHA256.Hash()}
}

func (t *memberTable) add(d digest.Digest, size int64) {
	fmt.Fprintf(t.hash, "%s %d\n", d, size)
}

func (t *memberTable) digest() digest.Digest {
	return digest.NewDigest(digest.SHA256, t.hash)
}

// blankDigest stands where a digest of index.json goes into index.json.
const blankDigest digest.Digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// seal puts the digest of index.json into it, where blankDigest stands.
func seal(index []byte) []byte {
	return bytes.Replace(index, []byte(blankDigest), []byte(digest.FromBytes(index)), 1)
}

// sealed reports whether own is what seal put in.
func sealed(index []byte, own digest.Digest) bool {
	return bytes.Count(index, []byte(own)) == 1 &&
		digest.FromBytes(bytes.Replace(index, []byte(own), []byte(blankDigest), 1)) == own
}

func padding(n int64) int64 { return -n & (blockSize - 1) }
