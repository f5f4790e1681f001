package dedupe_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imgpack/imgpack/internal/recompress"
)

// What follows is a second reader of chunk bundles and, in receiptspec_test.go,
// of receipts, made from docs/bundle-format.md alone: it shares nothing with the
// first but the ustar header of spec_test.go, and the codecs, zstd and
// internal/recompress. It holds all in memory and stops at the first thing that
// the document does not allow.

// specBundle is a bundle as the second reader sees it.
type specBundle struct {
	t       testing.TB
	raw     []byte
	delta   bool
	streams bool
	blobs   []specBlob        // in the order of the file
	content map[string][]byte // of blobs, by digest
	catalog specCatalog
	sources [][]byte // 0: the contents; then the tars of needs.layers
}

type specBlob struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

type specCatalog struct {
	Images struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	} `json:"images"`
	Tars    []specBlob `json:"tars"`
	Streams []struct {
		specBlob
		Tar    string `json:"tar"`
		Recipe int64  `json:"recipe"`
	} `json:"streams"`
	Segments []int64 `json:"segments"`
	Bases    []struct {
		Name   string `json:"name"`
		Date   string `json:"date"`
		Digest string `json:"digest"`
	} `json:"bases"`
	Needs *struct {
		Blobs  []specBlob `json:"blobs"`
		Layers []struct {
			DiffID string `json:"diffID"`
			specBlob
		} `json:"layers"`
	} `json:"needs"`
}

// specRead returns every blob that the bundle gives by digest: carried ones,
// open layers, and of a delta those it needs. have are the uncompressed layers
// and other blobs of the other side.
func specRead(t testing.TB, raw []byte, have map[string][]byte) map[string][]byte {
	t.Helper()
	b := &specBundle{t: t, raw: raw, content: map[string][]byte{}}
	index := b.container()
	b.manifest(index)
	all := map[string][]byte{}
	var segments [][]byte
	var recipes, streams []byte
	for _, m := range b.blobs {
		switch m.MediaType {
		case "application/vnd.imgpack.bundle.blob.v1":
			all[m.Digest] = b.content[m.Digest]
		case "application/vnd.imgpack.bundle.segment.v1":
			segments = append(segments, b.content[m.Digest])
		case "application/vnd.imgpack.bundle.recipes.v1":
			b.must(recipes == nil, "recipes twice")
			recipes = b.content[m.Digest]
		case "application/vnd.imgpack.bundle.streams.v1":
			b.must(streams == nil, "recipes of streams twice")
			streams = b.content[m.Digest]
		}
	}
	b.must(recipes != nil, "no recipes")
	b.must(len(segments) == len(b.catalog.Segments), "%d segments, the catalog has %d", len(segments), len(b.catalog.Segments))
	b.needs(have, all)
	b.restore(segments, unzstd(t, recipes, 256<<20), all)
	b.must(b.streams == (streams != nil) && b.streams == (len(b.catalog.Streams) > 0), "feature streams: %v, blob: %v, list of %d", b.streams, streams != nil, len(b.catalog.Streams))
	b.compress(streams, all)
	return all
}

func (b *specBundle) must(ok bool, format string, args ...any) {
	b.t.Helper()
	if !ok {
		b.t.Fatalf(format, args...)
	}
}

// container reads all members and returns index.json.
func (b *specBundle) container() (index []byte) {
	b.must(len(b.raw) > 5632 && len(b.raw)%512 == 0, "%d bytes", len(b.raw))
	names := []string{}
	var table strings.Builder
	at := 0
	for len(b.raw)-at > 1024 {
		name, size := strings.TrimRight(string(b.raw[at:at+100]), "\x00"), b.number(b.raw[at+124:at+135], 8)
		header := ustar(name, int(size), func(h []byte) { copy(h[136:148], b.raw[at+136:at+148]) })
		b.must(len(name) < 100 && bytes.Equal(header, b.raw[at:at+512]), "member %d has another header", len(names))
		at += 512
		body := b.raw[at : at+int(size)]
		at += int(size)
		pad := (512 - at%512) % 512
		b.must(bytes.Equal(b.raw[at:at+pad], make([]byte, pad)), "%s: padding", name)
		at += pad
		names = append(names, name)
		if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			b.must(hex == fmt.Sprintf("%x", sha256.Sum256(body)), "%s is another blob", name)
			b.must(b.content["sha256:"+hex] == nil, "%s twice", name)
			b.content["sha256:"+hex] = body
			fmt.Fprintf(&table, "sha256:%s %d\n", hex, size)
			b.blobs = append(b.blobs, specBlob{Digest: "sha256:" + hex, Size: size})
		} else {
			b.content[name] = body
		}
	}
	b.must(bytes.Equal(b.raw[at:], make([]byte, 1024)), "no end blocks")
	last := len(names) - 1
	b.must(last == 2+len(b.blobs) && names[0] == "README.imgpack.txt" && names[1] == "oci-layout" && names[last] == "index.json", "members %.200q", names)
	b.must(string(b.content["oci-layout"]) == `{"imageLayoutVersion":"1.0.0"}`, "oci-layout")
	index = b.content["index.json"]
	b.must(len(index) == 4096 && index[4095] == '\n' && bytes.Equal(index, b.raw[len(b.raw)-5632+512:len(b.raw)-1024]), "index.json is not 4096 bytes at its place")
	b.annotations(index, table.String())
	return index
}

func (b *specBundle) annotations(index []byte, table string) {
	var x struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Annotations   map[string]string `json:"annotations"`
	}
	b.must(json.Unmarshal(index, &x) == nil && x.SchemaVersion == 2 && x.MediaType == "application/vnd.oci.image.index.v1+json", "index.json: %s", index)
	sum := func(p []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(p)) }
	own := strings.TrimPrefix(x.Annotations["io.imgpack.bundle.index"], "sha256:")
	want := map[string]string{
		"version": "1", "mode": "chunk", "blobs": strconv.Itoa(len(b.blobs)), "head": strconv.Itoa(len(b.raw) - 5632), "members": sum([]byte(table)),
		"readme": sum(b.content["README.imgpack.txt"]), "index": sum(bytes.Replace(index, []byte(own), bytes.Repeat([]byte("0"), 64), 1)), "tail": "",
	}
	for k, v := range want {
		b.must(x.Annotations["io.imgpack.bundle."+k] == v, "%s is %q, want %q", k, x.Annotations["io.imgpack.bundle."+k], v)
	}
	features := x.Annotations["io.imgpack.bundle.features"]
	b.must(slices.Contains([]string{"", "delta", "streams", "delta,streams"}, features), "features %q", features)
	b.delta, b.streams = strings.HasPrefix(features, "delta"), strings.HasSuffix(features, "streams")
}

// manifest checks the one manifest of index.json against the file and reads
// the catalog.
func (b *specBundle) manifest(index []byte) {
	var x struct{ Manifests []specBlob }
	b.must(json.Unmarshal(index, &x) == nil && len(x.Manifests) == 1, "index.json lists %d things", len(x.Manifests))
	var m struct {
		SchemaVersion           int
		MediaType, ArtifactType string
		Config                  specBlob
		Layers                  []specBlob
	}
	last := b.blobs[len(b.blobs)-1]
	b.must(x.Manifests[0] == specBlob{"application/vnd.oci.image.manifest.v1+json", last.Digest, last.Size}, "the manifest is not the last blob")
	b.must(json.Unmarshal(b.content[last.Digest], &m) == nil && m.SchemaVersion == 2 && m.MediaType == x.Manifests[0].MediaType, "manifest")
	b.must(m.ArtifactType == "application/vnd.imgpack.bundle.chunk.v1", "artifactType %q", m.ArtifactType)
	b.must(m.Config.MediaType == "application/vnd.imgpack.bundle.catalog.v1+json", "config is %q", m.Config.MediaType)
	listed := append(slices.Clone(m.Layers), m.Config)
	b.must(len(listed) == len(b.blobs)-1, "the manifest lists %d blobs of %d", len(listed), len(b.blobs))
	place := 0 // carried, segments, recipes, those of streams, catalog
	for i, l := range listed {
		b.must(l.Digest == b.blobs[i].Digest && l.Size == b.blobs[i].Size, "blob %d is not that of the file", i)
		kind := slices.Index([]string{"blob.v1", "segment.v1", "recipes.v1", "streams.v1", "catalog.v1+json"}, strings.TrimPrefix(l.MediaType, "application/vnd.imgpack.bundle."))
		b.must(kind >= place, "blob %d, %s, stands in the wrong place", i, l.MediaType)
		place = kind
		b.blobs[i] = l
	}
	dec := json.NewDecoder(bytes.NewReader(b.content[m.Config.Digest]))
	dec.DisallowUnknownFields()
	b.must(dec.Decode(&b.catalog) == nil && len(b.catalog.Images.Manifests) > 0, "catalog: %.300s", b.content[m.Config.Digest])
}

// needs takes from the other side what a delta says it needs.
func (b *specBundle) needs(have, all map[string][]byte) {
	b.sources = [][]byte{nil}
	b.must(b.delta == (b.catalog.Needs != nil), "delta: %v, needs: %v", b.delta, b.catalog.Needs)
	if !b.delta {
		return
	}
	for _, n := range b.catalog.Needs.Blobs {
		b.must(int64(len(have[n.Digest])) == n.Size, "needed blob %s is not there", n.Digest)
		all[n.Digest] = have[n.Digest]
	}
	for _, n := range b.catalog.Needs.Layers {
		b.must(have[n.DiffID] != nil, "needed layer %s is not there", n.DiffID)
		b.sources = append(b.sources, have[n.DiffID])
	}
}

// restore decodes the segments and puts the tars together.
func (b *specBundle) restore(segments [][]byte, recipes []byte, all map[string][]byte) {
	r := &specNumbers{b.t, recipes}
	var bodies [][]byte
	for range b.catalog.Tars {
		bodies = append(bodies, r.take(r.uvarint()))
	}
	for i, s := range segments {
		var prefix []byte
		for _, e := range r.extents() {
			b.must(e.source != 0, "a prefix from the contents")
			prefix = append(prefix, b.sources[e.source][e.offset:e.offset+e.length]...)
		}
		b.sources[0] = append(b.sources[0], specSegment(b.t, s, prefix, b.catalog.Segments[i])...)
	}
	b.must(len(r.p) == 0, "%d bytes follow the recipes", len(r.p))
	for i, tar := range b.catalog.Tars {
		got := b.tar(&specNumbers{b.t, bodies[i]})
		b.must(int64(len(got)) == tar.Size && fmt.Sprintf("sha256:%x", sha256.Sum256(got)) == tar.Digest, "tar %d comes out wrong", i)
		all[tar.Digest] = got
	}
}

// compress makes the streams. Tars that no image has but through a stream are
// taken out of what the bundle gives.
func (b *specBundle) compress(recipes []byte, all map[string][]byte) {
	r := &specNumbers{b.t, recipes}
	layers := b.layers()
	for _, s := range b.catalog.Streams {
		tar := all[s.Tar]
		b.must(all[s.Digest] == nil && tar != nil && s.Recipe > 0, "stream %+v", s)
		var out bytes.Buffer
		err := recompress.Restore(t0, &out, bytes.NewReader(tar), r.take(uint64(s.Recipe)), s.Size, recompress.Options{Jobs: 1})
		b.must(err == nil && int64(out.Len()) == s.Size && fmt.Sprintf("sha256:%x", sha256.Sum256(out.Bytes())) == s.Digest, "stream %s comes out wrong: %d bytes, %v", s.Digest, out.Len(), err)
		all[s.Digest] = out.Bytes()
	}
	r.end()
	for _, s := range b.catalog.Streams {
		if !layers[s.Tar] {
			delete(all, s.Tar)
		}
	}
}

// layers are those of all manifests.
func (b *specBundle) layers() map[string]bool {
	all := map[string]bool{}
	for _, m := range b.blobs {
		var doc struct{ Layers []specBlob }
		if m.MediaType == "application/vnd.imgpack.bundle.blob.v1" && json.Unmarshal(b.content[m.Digest], &doc) == nil {
			for _, l := range doc.Layers {
				all[l.Digest] = true
			}
		}
	}
	return all
}

func (b *specBundle) tar(r *specNumbers) []byte {
	n := int(r.uvarint())
	heads, lengths := make([]int64, n), make([]int64, n)
	zig := make([]int64, n)
	for i := range zig {
		zig[i] = r.zigzag()
	}
	expect := int64(512)
	for i := range lengths {
		lengths[i] = int64(r.uvarint())
		heads[i] = zig[i] + expect
		b.must(heads[i] >= 0, "head of %d bytes", heads[i])
		expect = 512 + (512-lengths[i]%512)%512
	}
	join := func(list []specExtent) (out []byte) {
		for _, e := range list {
			out = append(out, b.sources[e.source][e.offset:e.offset+e.length]...)
		}
		return out
	}
	head, body := join(r.extents()), join(r.extents())
	b.must(len(r.p) == 0, "%d bytes follow a recipe", len(r.p))
	var tar []byte
	for i := range heads {
		tar = append(append(tar, head[:heads[i]]...), body[:lengths[i]]...)
		head, body = head[heads[i]:], body[lengths[i]:]
	}
	b.must(len(head) == 0 && len(body) == 0, "%d and %d bytes are left of heads and bodies", len(head), len(body))
	return tar
}

func (b *specBundle) number(text []byte, base int) int64 {
	n, err := strconv.ParseInt(string(text), base, 64)
	b.must(err == nil, "number %q", text)
	return n
}

// specSegment gives the content of a segment.
func specSegment(t testing.TB, p, prefix []byte, length int64) []byte {
	if len(p) < 8 || string(p[:4]) != "\x50\x2a\x4d\x18" {
		t.Fatalf("segment starts with %x", p[:min(len(p), 8)])
	}
	n := int(binary.LittleEndian.Uint32(p[4:]))
	r := &specNumbers{t, p[8 : 8+n]}
	p = p[8+n:]
	if string(r.take(8)) != "imgpack1" || r.uvarint() != uint64(length) {
		t.Fatal("segment has another head")
	}
	var literals []byte
	for f := int(r.uvarint()); f > 0; f-- {
		content, size := r.uvarint(), r.uvarint()
		frame := unzstd(t, p[:size], 16<<20)
		if uint64(len(frame)) != content {
			t.Fatalf("frame of %d bytes, want %d", len(frame), content)
		}
		literals, p = append(literals, frame...), p[size:]
	}
	if len(p) > 0 {
		t.Fatalf("%d bytes follow the frames", len(p))
	}
	out := slices.Clone(prefix)
	if c := int(r.uvarint()); c > 0 {
		columns := &specNumbers{t, unzstd(t, r.take(r.uvarint()), 64<<20)}
		before, lengths := columns.uvarints(c), columns.uvarints(c)
		from := int64(0)
		for i := range before {
			from += int64(before[i]) + columns.zigzag()
			out, literals = append(out, literals[:before[i]]...), literals[before[i]:]
			for range lengths[i] {
				out = append(out, out[from])
				from++
			}
		}
		columns.end()
	}
	r.end()
	out = append(out, literals...)[len(prefix):]
	if int64(len(out)) != length {
		t.Fatalf("segment of %d bytes, want %d", len(out), length)
	}
	return out
}

type specExtent struct {
	source         int
	offset, length int64
}

// specNumbers takes numbers and lists from the front of p.
type specNumbers struct {
	t testing.TB
	p []byte
}

func (r *specNumbers) uvarint() uint64 {
	v, n := binary.Uvarint(r.p)
	if n <= 0 || n != len(binary.AppendUvarint(nil, v)) {
		r.t.Fatalf("not a uvarint of the shortest form: %x", r.p[:min(len(r.p), 10)])
	}
	r.p = r.p[n:]
	return v
}

func (r *specNumbers) zigzag() int64 {
	v := r.uvarint()
	if v%2 == 1 {
		return -int64(v/2) - 1
	}
	return int64(v / 2)
}

func (r *specNumbers) uvarints(n int) []uint64 {
	all := make([]uint64, n)
	for i := range all {
		all[i] = r.uvarint()
	}
	return all
}

func (r *specNumbers) take(n uint64) []byte {
	if n > uint64(len(r.p)) {
		r.t.Fatalf("%d bytes wanted, %d there", n, len(r.p))
	}
	p := r.p[:n]
	r.p = r.p[n:]
	return p
}

func (r *specNumbers) end() {
	if len(r.p) > 0 {
		r.t.Fatalf("%d bytes too many", len(r.p))
	}
}

func (r *specNumbers) extents() []specExtent {
	all := make([]specExtent, r.uvarint())
	source, ends := 0, map[int]int64{}
	for i := range all {
		v := r.uvarint()
		if v%2 == 1 {
			next := int(r.uvarint())
			if next == source {
				r.t.Fatal("a source named again")
			}
			source = next
		}
		e := specExtent{source, ends[source] + r.zigzag(), int64(v / 2)}
		if e.length == 0 {
			r.t.Fatal("an empty extent")
		}
		ends[source] = e.offset + e.length
		all[i] = e
	}
	return all
}

// unzstd gives the content of exactly one frame, of at most limit bytes.
func unzstd(t testing.TB, p []byte, limit uint64) []byte {
	t.Helper()
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(limit), zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	out, err := d.DecodeAll(p, nil)
	if err != nil {
		t.Fatalf("zstd: %v", err)
	}
	return out
}
