package dedupe_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

func TestChunkBundleOfAnotherWriter(t *testing.T) {
	f := validChunk()
	raw := f.bytes()
	b, err := openChunk(t, raw)
	if err != nil {
		t.Fatal(err)
	}
	info := b.Info()
	if info.Mode != dedupe.ModeChunk || info.Version != 1 || info.Size != int64(len(raw)) || info.Blobs != 8 || info.Open != 1 || info.Segments != 2 || info.Contents != 3584 || info.Bases != nil {
		t.Errorf("%+v", info)
	}
	if index := raw[len(raw)-1024-4096 : len(raw)-1024]; info.Digest != digest.FromBytes(index) {
		t.Errorf("identity %s", info.Digest)
	}
	var want []digest.Digest
	for _, blob := range f.image.blobs() {
		d := ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))}
		want = append(want, d.Digest)
		if got := fetch(t, b, d); !bytes.Equal(got, blob) {
			t.Errorf("%s is not what it was", d.Digest)
		}
		d.Size++
		if _, err := b.Fetch(t0, d); !fixtures.Matches(err, manifests.KindSize) {
			t.Errorf("%s of another size: %v", d.Digest, err)
		}
	}
	slices.Sort(want)
	if got := b.Blobs(); !slices.Equal(got, want) {
		t.Errorf("blobs %v, want %v", got, want)
	}
	if err := b.Audit(t0); err != nil {
		t.Error(err)
	}
	layersOf(t, b, f.image)
}

// layersOf opens both layers of the image.
func layersOf(t *testing.T, b *dedupe.Bundle, image *chunkImage) {
	roots, err := b.Roots(t0)
	if err != nil || len(roots) != 1 || roots[0].Name.Familiar() != "a:1" {
		t.Fatalf("%v, %v", roots, err)
	}
	g, err := manifests.NewGraph(t0, []manifests.Entry{{Source: b, Root: roots[0]}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	layers := g.Images(roots[0])[0].Layers
	r, err := b.OpenLayer(t0, layers[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, image.tar) {
		t.Errorf("open layer: %d bytes, %v", len(got), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.OpenLayer(t0, layers[1]); !errors.Is(err, manifests.ErrCompressed) {
		t.Errorf("carried layer: %v", err)
	}
}

const (
	malformed = manifests.KindMalformed
	truncated = manifests.KindTruncated
	limit     = manifests.KindLimit
)

// rule is an edit that breaks a rule, and what is said of it; "" for one that
// is allowed.
type rule struct {
	kind manifests.Kind
	edit func(*chunkFile)
}

func checkRules(t *testing.T, rules map[string]rule) {
	for what, r := range rules {
		f := validChunk()
		r.edit(&f)
		wantKind(t, what, f.bytes(), r.kind)
	}
}

func TestChunkContainerRules(t *testing.T) {
	set := func(key, value string) func(*chunkFile) {
		return func(f *chunkFile) { f.set = map[string]string{key: value} }
	}
	last := func(edit func([]byte)) func(*chunkFile) { return func(f *chunkFile) { f.last = edit } }
	blobs := func(edit func([]member) []member) func(*chunkFile) {
		return func(f *chunkFile) { f.blobs, f.promised = edit, true }
	}
	index := func(edit func(object)) func(*chunkFile) { return func(f *chunkFile) { f.index = edit } }
	listed := func(key string, value any) func(*chunkFile) {
		return index(func(x object) { x["manifests"].([]object)[0][key] = value })
	}
	head := func(f *chunkFile) int { _, _, n := f.front(); return n }
	checkRules(t, map[string]rule{
		"nothing wrong":        {"", func(*chunkFile) {}},
		"other times":          {"", last(func(h []byte) { copy(h[136:], "14740000000") })},
		"unknown annotation":   {"", set("later", "x")},
		"another readme":       {manifests.KindDigest, set("readme", string(digest.FromString("x")))},
		"another index":        {manifests.KindDigest, set("index", string(digest.FromString("x")))},
		"a tail":               {malformed, set("tail", "1024")},
		"no head":              {malformed, set("head", "")},
		"head with a zero":     {malformed, func(f *chunkFile) { f.set = map[string]string{"head": fmt.Sprintf("0%d", head(f))} }},
		"enormous head":        {limit, set("head", "9223372036854775807")},
		"larger head":          {truncated, func(f *chunkFile) { f.set = map[string]string{"head": fmt.Sprint(head(f) + 512)} }},
		"smaller head":         {manifests.KindSize, func(f *chunkFile) { f.set = map[string]string{"head": fmt.Sprint(head(f) - 512)} }},
		"fewer blobs promised": {malformed, set("blobs", "7")},
		"more blobs promised":  {malformed, set("blobs", "9")},
		"too many blobs":       {limit, set("blobs", "20001")},
		"another table":        {malformed, set("members", string(digest.FromString("x")))},
		"no version":           {malformed, set("version", "")},
		"mode of another place": {malformed, func(f *chunkFile) {
			f.set = map[string]string{"mode": "layer", "head": "", "tail": "1024"}
		}},
		"features out of order":    {malformed, set("features", "delta,a")},
		"delta that needs nothing": {malformed, set("features", "delta")},
		"layout":                   {malformed, func(f *chunkFile) { f.layout = `{"imageLayoutVersion":"1.0.1"}` }},
		"no line feed":             {malformed, func(f *chunkFile) { f.ending = " " }},
		"line feed twice":          {malformed, func(f *chunkFile) { f.ending = "\n\n" }},
		"tab":                      {malformed, func(f *chunkFile) { f.ending = "\t\n" }},
		"shorter index.json":       {malformed, func(f *chunkFile) { f.length = 3584 }},
		"longer index.json":        {malformed, func(f *chunkFile) { f.length = 4608 }},
		"mode of index.json":       {malformed, last(func(h []byte) { copy(h[100:], "0000644") })},
		"name of index.json":       {malformed, last(func(h []byte) { copy(h, "Index.json") })},
		"symlink":                  {malformed, last(func(h []byte) { h[156] = '2' })},
		"gap":                      {manifests.KindSize, func(f *chunkFile) { f.gap = make([]byte, 512) }},
		"padding": {malformed, blobs(func(b []member) []member {
			b[7].pad = bytes.Repeat([]byte{1}, len(b[7].bytes())%512+512-len(b[7].content)%512)
			return b
		})},
		"end not zero":       {malformed, func(f *chunkFile) { f.end = append(make([]byte, 1023), 1) }},
		"more end blocks":    {manifests.KindSize, func(f *chunkFile) { f.end = make([]byte, 10240) }},
		"one end block":      {truncated, func(f *chunkFile) { f.end = make([]byte, 512) }},
		"data after the end": {manifests.KindSize, func(f *chunkFile) { f.end = append(make([]byte, 1024), "more"...) }},
		"member put in":      {manifests.KindSize, blobs(func(b []member) []member { return slices.Insert(b, 3, blobMember([]byte("other"))) })},
		"member taken out":   {truncated, blobs(func(b []member) []member { return slices.Delete(b, 3, 4) })},
		"members swapped":    {malformed, blobs(func(b []member) []member { b[1], b[2] = b[2], b[1]; return b })},
		"member twice":       {malformed, func(f *chunkFile) { f.blobs = func(b []member) []member { return slices.Insert(b, 1, b[0]) } }},
		"unknown member": {malformed, func(f *chunkFile) {
			f.blobs = func(b []member) []member { return slices.Insert(b, 1, member{name: "x"}) }
		}},
		"index.json in the middle": {malformed, func(f *chunkFile) {
			f.blobs = func(b []member) []member {
				return slices.Insert(b, 1, member{name: "index.json", content: make([]byte, 4096)})
			}
		}},
		"not JSON":                 {malformed, index(func(x object) { x["\xff"] = 1; delete(x, "schemaVersion") })},
		"lists nothing":            {malformed, index(func(x object) { x["manifests"] = []object{} })},
		"lists two":                {malformed, index(func(x object) { m := x["manifests"].([]object); x["manifests"] = append(m, m[0]) })},
		"lists an image":           {malformed, index(func(x object) { delete(x["manifests"].([]object)[0], "artifactType") })},
		"lists an index":           {malformed, listed("mediaType", ocispec.MediaTypeImageIndex)},
		"manifest of another size": {malformed, listed("size", 17)},
		"manifest is another blob": {malformed, listed("digest", digest.FromString("x"))},
		"manifest is not last":     {malformed, func(f *chunkFile) { f.blobs = func(b []member) []member { b[6], b[7] = b[7], b[6]; return b } }},

		"unknown version":       {fixtures.Unsupported, set("version", "2")},
		"unknown mode":          {fixtures.Unsupported, set("mode", "volume")},
		"unknown feature":       {fixtures.Unsupported, set("features", "another,delta")},
		"unknown artifact type": {fixtures.Unsupported, listed("artifactType", "application/vnd.imgpack.bundle.chunk.v2")},
		"unknown media type": {fixtures.Unsupported, index(func(x object) {
			m := x["manifests"].([]object)[0]
			m["mediaType"] = "application/vnd.imgpack.x"
			m["artifactType"] = "x"
		})},
		"version, other promises": {fixtures.Unsupported, func(f *chunkFile) {
			f.set = map[string]string{"version": "2", "head": "", "members": "", "blobs": "many", "readme": ""}
		}},
	})
}

func TestChunkManifestRules(t *testing.T) {
	list := func(edit func(object)) func(*chunkFile) { return func(f *chunkFile) { f.list = edit } }
	layers := func(edit func([]object) []object) func(*chunkFile) {
		return list(func(m object) { m["layers"] = edit(m["layers"].([]object)) })
	}
	typed := func(i int, kind string) func(*chunkFile) {
		return layers(func(l []object) []object { l[i]["mediaType"] = "application/vnd.imgpack.bundle." + kind; return l })
	}
	checkRules(t, map[string]rule{
		"annotation":             {"", list(func(m object) { m["annotations"] = object{"a": "b"} })},
		"schema version":         {malformed, list(func(m object) { m["schemaVersion"] = 1 })},
		"media type":             {malformed, list(func(m object) { delete(m, "mediaType") })},
		"artifact type":          {malformed, list(func(m object) { m["artifactType"] = "application/vnd.imgpack.bundle.chunk.v2" })},
		"reads as an index":      {malformed, list(func(m object) { m["manifests"] = []object{} })},
		"keys differ by case":    {malformed, list(func(m object) { m["Layers"] = []object{} })},
		"config's type":          {malformed, list(func(m object) { m["config"].(object)["mediaType"] = ocispec.MediaTypeImageConfig })},
		"config is another":      {malformed, list(func(m object) { m["config"].(object)["digest"] = digest.FromString("x") })},
		"config of another size": {malformed, list(func(m object) { m["config"].(object)["size"] = 1 })},
		"blob left out":          {malformed, layers(func(l []object) []object { return slices.Delete(l, 1, 2) })},
		"blob twice":             {malformed, layers(func(l []object) []object { return slices.Insert(l, 1, l[1]) })},
		"other order":            {malformed, layers(func(l []object) []object { l[0], l[1] = l[1], l[0]; return l })},
		"other size":             {malformed, layers(func(l []object) []object { l[0]["size"] = 1; return l })},
		"itself":                 {malformed, layers(func(l []object) []object { return slices.Insert(l, 5, l[0]) })},
		"no layers":              {malformed, list(func(m object) { delete(m, "layers") })},
		"unknown kind":           {malformed, typed(0, "blob.v2")},
		"no recipes":             {malformed, typed(5, "segment.v1")},
		"recipes twice":          {malformed, typed(4, "recipes.v1")},
		"carried after segments": {malformed, typed(4, "blob.v1")},
		"segment first":          {malformed, typed(0, "segment.v1")},
		"one segment fewer":      {malformed, typed(3, "blob.v1")},
		"too large":              {limit, list(func(m object) { m["annotations"] = object{"a": strings.Repeat("x", 4<<20)} })},
		"too many blobs":         {limit, layers(func(l []object) []object { return slices.Repeat([]object{{"mediaType": "x"}}, 20000) })},
		"damaged": {manifests.KindDigest, func(f *chunkFile) {
			f.blobs = func(b []member) []member {
				b[7].content = append(b[7].content[:len(b[7].content)-1:len(b[7].content)-1], ' ')
				return b
			}
			f.promised = true
		}},
	})
}
