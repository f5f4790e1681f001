package dedupe_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
)

// object is JSON that tests take apart.
type object = map[string]any

// chunkFile is a second writer of chunk mode, made from docs/bundle-format.md
// alone, which can be told to break each of its rules. What the edits do is
// done before digests are taken, so that nothing but the broken rule shows.
type chunkFile struct {
	readme, layout string
	roots          []ocispec.Descriptor
	carried        []member
	segments       []member
	lengths        []int // of the segments' contents
	recipes        member
	tars           []object
	streams        []object // the catalog's list
	streamRecipes  *member

	catalog  func(object)            // edits the catalog
	list     func(object)            // edits the manifest
	blobs    func([]member) []member // edits the blobs of the file
	promised bool                    // annotations tell of blobs before that edit
	index    func(object)            // edits index.json
	set      map[string]string       // annotations that differ; "" takes one away
	ending   string                  // of index.json instead of a line feed
	length   int                     // of index.json instead of 4096
	last     func([]byte)            // edits the header of index.json
	gap      []byte                  // between the last blob and index.json
	end      []byte                  // instead of two zero blocks
	image    *chunkImage
}

// uv and zz are the numbers of the specification.
func uv(v int) []byte {
	var out []byte
	for ; v >= 128; v /= 128 {
		out = append(out, byte(v%128)+128)
	}
	return append(out, byte(v))
}

func zz(v int) []byte {
	if v < 0 {
		return uv(-2*v - 1)
	}
	return uv(2 * v)
}

// zstdFrame is one frame with a window no larger than its content.
func zstdFrame(content []byte) []byte {
	w, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	defer w.Close()
	return w.EncodeAll(content, nil)
}

// segmentBlob is a segment of one frame, without copies.
func segmentBlob(content []byte) []byte {
	frame := zstdFrame(content)
	table := slices.Concat([]byte("imgpack1"), uv(len(content)), uv(1), uv(len(content)), uv(len(frame)), uv(0))
	head := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, uint32(len(table)))
	return slices.Concat(head, table, frame)
}

// chunkImage is the one image of validChunk.
type chunkImage struct {
	tar, gzip, config, manifest []byte
	stream                      []byte // the tar compressed, if the image has it so
}

func newChunkImage() *chunkImage {
	i := &chunkImage{tar: fixtures.Tar(
		fixtures.File{Name: "etc/motd", Body: strings.Repeat("welcome ", 90)}, // 720 bytes
		fixtures.File{Name: "bin/sh", Body: strings.Repeat("shell", 60)},      // 300 bytes
	)}
	other := fixtures.Tar(fixtures.File{Name: "etc/hosts", Body: "127.0.0.1 localhost\n"})
	i.gzip = fixtures.Compress(other, "gzip")
	i.config = asJSON(object{"architecture": "amd64", "os": "linux", "config": object{},
		"rootfs": object{"type": "layers", "diff_ids": []digest.Digest{digest.FromBytes(i.tar), digest.FromBytes(other)}}})
	i.manifest = asJSON(object{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest,
		"config": described(ocispec.MediaTypeImageConfig, i.config),
		"layers": []object{described(ocispec.MediaTypeImageLayer, i.tar), described(ocispec.MediaTypeImageLayerGzip, i.gzip)}})
	return i
}

func asJSON(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

func described(mediaType string, content []byte) object {
	return object{"mediaType": mediaType, "digest": fmt.Sprintf("sha256:%x", sha256.Sum256(content)), "size": len(content)}
}

// validChunk is a small bundle of one image with an open layer and a carried
// one, and of two segments.
//
// The open tar is: a header, 720 bytes, 304 of padding, a header, 300 bytes,
// 212 of padding and 1024 bytes of end. Its contents are all heads, then the
// second body, then the first.
func validChunk() chunkFile {
	i := newChunkImage()
	t := i.tar
	heads := slices.Concat(t[:512], t[1232:2048], t[2348:])
	if len(t) != 3584 || len(heads) != 2564 {
		panic("the tar is not as it is thought to be")
	}
	contents := slices.Concat(heads, t[2048:2348], t[512:1232])
	recipe := slices.Concat(
		uv(3),                                    // runs
		zz(0), zz(0), zz(2564-512-816-(512+212)), // heads of 512, 304+512, and 212+1024 where 212+512 is expected
		uv(720), uv(300), uv(0), // bodies
		uv(1), uv(2564*2), zz(0), // heads: one extent
		uv(2), uv(720*2), zz(2864), uv(300*2), zz(2564-3584), // bodies: the second lies before the first
	)
	const cut = 1500
	return chunkFile{
		readme: "read me\n", layout: `{"imageLayoutVersion":"1.0.0"}`, image: i,
		roots: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(i.manifest), Size: int64(len(i.manifest)),
			Annotations: map[string]string{"io.containerd.image.name": "docker.io/library/a:1"}}},
		carried:  []member{blobMember(i.manifest), blobMember(i.config), blobMember(i.gzip)},
		segments: []member{blobMember(segmentBlob(contents[:cut])), blobMember(segmentBlob(contents[cut:]))},
		lengths:  []int{cut, len(contents) - cut},
		recipes:  blobMember(zstdFrame(slices.Concat(uv(len(recipe)), recipe, uv(0), uv(0)))),
		tars:     []object{{"digest": digest.FromBytes(t), "size": len(t)}},
	}
}

// parts are the blobs of the file in its order.
func (f chunkFile) parts() []member {
	catalog := object{"images": object{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": f.roots}, "tars": f.tars, "segments": f.lengths}
	if f.streams != nil {
		catalog["streams"] = f.streams
	}
	apply(f.catalog, catalog)
	all := slices.Concat(f.carried, f.segments, []member{f.recipes})
	if f.streamRecipes != nil {
		all = append(all, *f.streamRecipes)
	}
	var layers []object
	for i, m := range all {
		kind := "blob"
		switch {
		case i > len(f.carried)+len(f.segments):
			kind = "streams"
		case i == len(f.carried)+len(f.segments):
			kind = "recipes"
		case i >= len(f.carried):
			kind = "segment"
		}
		layers = append(layers, described("application/vnd.imgpack.bundle."+kind+".v1", m.content))
	}
	last := blobMember(asJSON(catalog))
	manifest := object{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "artifactType": "application/vnd.imgpack.bundle.chunk.v1",
		"config": described("application/vnd.imgpack.bundle.catalog.v1+json", last.content), "layers": layers}
	apply(f.list, manifest)
	return append(all, last, blobMember(asJSON(manifest)))
}

func apply(edit func(object), v object) {
	if edit != nil {
		edit(v)
	}
}

// front is the file up to index.json, and what annotations say of it.
func (f chunkFile) front() (out []byte, blobs []member, head int) {
	out = slices.Concat(member{name: "README.imgpack.txt", content: []byte(f.readme)}.bytes(), member{name: "oci-layout", content: []byte(f.layout)}.bytes())
	blobs = f.parts()
	stored := blobs
	if f.blobs != nil {
		if stored = f.blobs(slices.Clone(blobs)); !f.promised {
			blobs = stored
		}
	}
	head = len(out)
	for _, m := range blobs {
		head += len(m.bytes())
	}
	for _, m := range stored {
		out = append(out, m.bytes()...)
	}
	return out, blobs, head
}

func (f chunkFile) json(blobs []member, head int) []byte {
	var table strings.Builder
	for _, m := range blobs {
		fmt.Fprintf(&table, "%s %d\n", strings.ReplaceAll(strings.TrimPrefix(m.name, "blobs/"), "/", ":"), len(m.content))
	}
	manifest := described(ocispec.MediaTypeImageManifest, blobs[len(blobs)-1].content)
	manifest["artifactType"] = "application/vnd.imgpack.bundle.chunk.v1"
	annotations := object{
		"io.imgpack.bundle.version": "1",
		"io.imgpack.bundle.mode":    "chunk",
		"io.imgpack.bundle.blobs":   fmt.Sprint(len(blobs)),
		"io.imgpack.bundle.head":    fmt.Sprint(head),
		"io.imgpack.bundle.members": string(digest.FromString(table.String())),
		"io.imgpack.bundle.readme":  string(digest.FromString(f.readme)),
		"io.imgpack.bundle.index":   "sha256:" + strings.Repeat("0", 64),
	}
	for k, v := range f.set {
		annotations["io.imgpack.bundle."+k] = v
		if v == "" {
			delete(annotations, "io.imgpack.bundle."+k)
		}
	}
	index := object{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []object{manifest}, "annotations": annotations}
	apply(f.index, index)
	raw, ending, length := asJSON(index), f.ending, f.length
	if ending == "" {
		ending = "\n"
	}
	if length == 0 {
		length = 4096
	}
	raw = slices.Concat(raw, bytes.Repeat([]byte(" "), length-len(raw)-len(ending)), []byte(ending))
	return []byte(strings.Replace(string(raw), strings.Repeat("0", 64), fmt.Sprintf("%x", sha256.Sum256(raw)), 1))
}

func (f chunkFile) bytes() []byte {
	out, blobs, head := f.front()
	index := member{name: "index.json", content: f.json(blobs, head)}
	index.header = ustar(index.name, len(index.content), f.last)
	out = slices.Concat(out, f.gap, index.bytes())
	if f.end == nil {
		return append(out, make([]byte, 1024)...)
	}
	return append(out, f.end...)
}

// images gives the blobs of the image as the bundle must give them.
func (i *chunkImage) blobs() [][]byte {
	first := i.tar
	if i.stream != nil {
		first = i.stream
	}
	return [][]byte{i.manifest, i.config, first, i.gzip}
}

// openChunk opens a bundle whose contents are unpacked in a directory of the
// test.
func openChunk(t testing.TB, raw []byte) (*dedupe.Bundle, error) {
	b, err := dedupe.OpenReaderAt(bytes.NewReader(raw), int64(len(raw)), "x.imgpack", dedupe.OpenOptions{SpoolDir: t.TempDir(), Jobs: 1})
	if err == nil {
		t.Cleanup(func() {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return b, err
}
