package dedupe_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// member and file are a second writer, made from docs/bundle-format.md alone,
// which can be told to break each of its rules.
type member struct {
	name    string
	content []byte
	header  []byte // instead of the right one
	pad     []byte // instead of zeros
}

type file struct {
	readme   string
	layout   string
	roots    []ocispec.Descriptor
	set      map[string]string // annotations that differ; "" takes one away
	index    []byte            // instead of the right one
	promised []member          // that annotations tell of; nil means blobs
	blobs    []member
	order    []string // of the first three; default the right one
	end      []byte   // instead of two zero blocks
}

func blobMember(content []byte) member {
	return member{name: fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(content)), content: content}
}

func (m member) bytes() []byte {
	h := m.header
	if h == nil {
		h = ustar(m.name, len(m.content), nil)
	}
	pad := m.pad
	if pad == nil {
		pad = make([]byte, (512-len(m.content)%512)%512)
	}
	return bytes.Join([][]byte{h, m.content, pad}, nil)
}

// ustar writes the header of the specification's table; edit may change it
// before the checksum is made.
func ustar(name string, size int, edit func([]byte)) []byte {
	if len(name) > 100 {
		record := " path=" + name + "\n"
		record = fmt.Sprint(len(record)+3) + record // a name of 100 to 900 bytes
		at := strings.LastIndexByte(name, '/')
		body := append([]byte(record), make([]byte, (512-len(record)%512)%512)...)
		pax := ustar((name[:at] + "/PaxHeaders.0" + name[at:])[:100], len(record), func(h []byte) {
			copy(h[100:], "0000000")
			h[156] = 'x'
			copy(h[329:345], make([]byte, 16))
		})
		return bytes.Join([][]byte{pax, body, ustar(name[:100], size, edit)}, nil)
	}
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000444")
	copy(h[108:], "0000000")
	copy(h[116:], "0000000")
	copy(h[124:], fmt.Sprintf("%011o", size))
	copy(h[136:], "00000000000")
	h[156] = '0'
	copy(h[257:], "ustar\x0000")
	copy(h[329:], "0000000")
	copy(h[337:], "0000000")
	if edit != nil {
		edit(h)
	}
	checksum(h)
	return h
}

func checksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h[:512] {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// json writes index.json.
func (f file) json() []byte {
	if f.index != nil {
		return f.index
	}
	promised := f.promised
	if promised == nil {
		promised = f.blobs
	}
	var table strings.Builder
	tail := 1024
	for _, m := range promised {
		fmt.Fprintf(&table, "%s %d\n", strings.ReplaceAll(strings.TrimPrefix(m.name, "blobs/"), "/", ":"), len(m.content))
		tail += len(m.bytes())
	}
	annotations := map[string]string{
		"io.imgpack.bundle.version": "1",
		"io.imgpack.bundle.mode":    "layer",
		"io.imgpack.bundle.blobs":   fmt.Sprint(len(promised)),
		"io.imgpack.bundle.tail":    fmt.Sprint(tail),
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
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": f.roots, "annotations": annotations,
	})
	if err != nil {
		panic(err)
	}
	return []byte(strings.Replace(string(raw), strings.Repeat("0", 64), fmt.Sprintf("%x", sha256.Sum256(raw)), 1))
}

func (f file) bytes() []byte {
	first := map[string][]byte{"README.imgpack.txt": []byte(f.readme), "oci-layout": []byte(f.layout), "index.json": f.json()}
	order := f.order
	if order == nil {
		order = []string{"README.imgpack.txt", "oci-layout", "index.json"}
	}
	var out []byte
	for _, name := range order {
		out = append(out, member{name: name, content: first[name]}.bytes()...)
	}
	for _, m := range f.blobs {
		out = append(out, m.bytes()...)
	}
	if f.end == nil {
		return append(out, make([]byte, 1024)...)
	}
	return append(out, f.end...)
}

// valid is a small bundle: one root, which is any blob as far as the container
// goes, and two more.
func valid() file {
	blobs := []member{blobMember([]byte(`{"manifest":1}`)), blobMember(bytes.Repeat([]byte("x"), 512)), blobMember(bytes.Repeat([]byte("layer "), 200))}
	return file{
		readme: "read me\n", layout: `{"imageLayoutVersion":"1.0.0"}`, blobs: blobs,
		roots: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(blobs[0].content), Size: int64(len(blobs[0].content)),
			Annotations: map[string]string{"io.containerd.image.name": "docker.io/library/a:1"}}},
	}
}
