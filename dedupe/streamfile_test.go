package dedupe_test

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/recompress"
	"github.com/imgpack/imgpack/manifests"
)

func goGzip(content []byte, level int) []byte { return fixtures.GoGzip(level)(content) }

// findRecipe is the recipe of a stream, however long it is.
func findRecipe(t testing.TB, stream []byte) []byte {
	t.Helper()
	recipe, _, err := recompress.Find(t0, bytes.NewReader(stream), nil, recompress.Options{Spend: -1})
	if err != nil {
		t.Fatal(err)
	}
	return recipe
}

// withStream makes the image one that has the open layer compressed.
func (f *chunkFile) withStream(stream, recipe []byte) {
	i := f.image
	i.stream = stream
	i.manifest = asJSON(object{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest,
		"config": described(ocispec.MediaTypeImageConfig, i.config),
		"layers": []object{described(ocispec.MediaTypeImageLayerGzip, stream), described(ocispec.MediaTypeImageLayerGzip, i.gzip)}})
	f.carried[0] = blobMember(i.manifest)
	f.roots[0].Digest, f.roots[0].Size = digest.FromBytes(i.manifest), int64(len(i.manifest))
	f.streams = []object{{"digest": digest.FromBytes(stream), "size": len(stream), "tar": digest.FromBytes(i.tar), "recipe": len(recipe)}}
	m := blobMember(recipe)
	f.streamRecipes = &m
	f.set = map[string]string{"features": "streams"}
}

// validStreams is validChunk with a compressed layer that is given back from
// the open one.
func validStreams(t testing.TB) chunkFile {
	f := validChunk()
	stream := goGzip(f.image.tar, 6)
	f.withStream(stream, findRecipe(t, stream))
	return f
}

// unmakeable is one whose recipe says nothing: what is wrong with its container
// shows, and what is wrong with the stream does not.
func unmakeable() chunkFile {
	f := validChunk()
	f.withStream(goGzip(f.image.tar, 6), []byte("recipe"))
	return f
}

func TestStreamRules(t *testing.T) {
	entry := func(key string, value any) func(*chunkFile) {
		return func(f *chunkFile) { f.streams[0][key] = value }
	}
	features := func(list string) func(*chunkFile) {
		return func(f *chunkFile) { f.set = map[string]string{"features": list} }
	}
	blob := func(content []byte) func(*chunkFile) {
		return func(f *chunkFile) { m := blobMember(content); f.streamRecipes = &m }
	}
	more := func(edit func(f *chunkFile, x object)) func(*chunkFile) {
		return func(f *chunkFile) {
			x := object{"digest": digest.FromString("more"), "size": 5, "tar": f.streams[0]["tar"], "recipe": 3}
			blob([]byte("recipe and"))(f)
			x["recipe"] = 4
			edit(f, x)
			f.streams = append(f.streams, x)
		}
	}
	layers := func(edit func([]object) []object) func(*chunkFile) {
		return func(f *chunkFile) {
			f.list = func(m object) { m["layers"] = edit(m["layers"].([]object)) }
		}
	}
	const streamsType = "application/vnd.imgpack.bundle.streams.v1"
	some := digest.FromString("x")
	for what, r := range map[string]rule{
		"nothing wrong":         {"", func(*chunkFile) {}},
		"two of a tar":          {"", more(func(*chunkFile, object) {})},
		"no feature":            {malformed, func(f *chunkFile) { f.set = nil }},
		"another feature":       {malformed, features("delta")},
		"a feature too many":    {malformed, features("delta,streams")},
		"features out of order": {malformed, features("streams,delta")},
		"feature twice":         {malformed, features("streams,streams")},
		"no list":               {malformed, func(f *chunkFile) { f.streams = nil }},
		"no list and no blob":   {malformed, func(f *chunkFile) { f.streams, f.streamRecipes = nil, nil }},
		"empty list":            {malformed, func(f *chunkFile) { f.streams = []object{} }},
		"list is null":          {malformed, func(f *chunkFile) { f.streams = nil; f.catalog = func(c object) { c["streams"] = nil } }},
		"no blob":               {malformed, func(f *chunkFile) { f.streamRecipes = nil }},
		"blob is carried":       {malformed, layers(func(l []object) []object { l[6]["mediaType"] = "application/vnd.imgpack.bundle.blob.v1"; return l })},
		"blob before the recipes": {malformed, layers(func(l []object) []object {
			l[5]["mediaType"], l[6]["mediaType"] = l[6]["mediaType"], l[5]["mediaType"]
			return l
		})},
		"blob twice":                {malformed, layers(func(l []object) []object { l[5]["mediaType"] = streamsType; return l })},
		"blob instead of a segment": {malformed, layers(func(l []object) []object { l[4]["mediaType"] = streamsType; return l })},
		"blob of a later kind":      {malformed, layers(func(l []object) []object { l[6]["mediaType"] = "application/vnd.imgpack.bundle.streams.v2"; return l })},
		"shorter blob":              {manifests.KindSize, blob([]byte("recip"))},
		"longer blob":               {manifests.KindSize, blob([]byte("recipes"))},
		"empty blob":                {manifests.KindSize, blob(nil)},
		"unknown field":             {malformed, entry("model", 6)},
		"known field, other case":   {malformed, entry("Tar", some)},
		"bad digest":                {malformed, entry("digest", "sha256:../../x")},
		"no digest":                 {malformed, func(f *chunkFile) { delete(f.streams[0], "digest") }},
		"no tar":                    {malformed, func(f *chunkFile) { delete(f.streams[0], "tar") }},
		"no recipe":                 {malformed, func(f *chunkFile) { delete(f.streams[0], "recipe") }},
		"tar that is not there":     {malformed, entry("tar", some)},
		"tar that is carried":       {malformed, func(f *chunkFile) { f.streams[0]["tar"] = digest.FromBytes(f.image.gzip) }},
		"tar that is the stream":    {malformed, func(f *chunkFile) { f.streams[0]["tar"] = f.streams[0]["digest"] }},
		"of a negative size":        {manifests.KindSize, entry("size", -1)},
		"of 2^40+1 bytes":           {limit, entry("size", 1<<40+1)},
		"recipe of nothing":         {malformed, more(func(f *chunkFile, x object) { x["recipe"] = 0 })},
		"recipe of less":            {malformed, more(func(f *chunkFile, x object) { x["recipe"] = -2 })},
		"too long a recipe":         {limit, entry("recipe", 64<<20+1)},
		"enormous recipe":           {limit, entry("recipe", int64(math.MaxInt64))},
		"recipes that overflow":     {limit, more(func(f *chunkFile, x object) { x["recipe"] = int64(math.MaxInt64) })},
		"stream twice":              {malformed, more(func(f *chunkFile, x object) { x["digest"] = f.streams[0]["digest"] })},
		"stream is a tar":           {malformed, more(func(f *chunkFile, x object) { x["digest"] = x["tar"] })},
		"stream is carried":         {malformed, more(func(f *chunkFile, x object) { x["digest"] = digest.FromBytes(f.image.gzip) })},
		"stream is a document":      {malformed, more(func(f *chunkFile, x object) { x["digest"] = digest.FromBytes(f.image.config) })},
		"more than 1 GiB": {limit, func(f *chunkFile) {
			f.streams[0]["recipe"] = 64 << 20
			for i := range 16 {
				f.streams = append(f.streams, object{"digest": digest.FromBytes([]byte{byte(i)}), "size": 5, "tar": f.streams[0]["tar"], "recipe": 64 << 20})
			}
		}},
		"in layer mode": {fixtures.Unsupported, func(f *chunkFile) {
			f.set = map[string]string{"features": "streams", "mode": "layer", "head": "", "tail": "1024"}
		}},
		"in a delta": {"", func(f *chunkFile) { f.delta(); features("delta,streams")(f) }},
		"is needed": {malformed, func(f *chunkFile) {
			n := f.delta()
			n["blobs"].([]object)[0]["digest"] = f.streams[0]["digest"]
			features("delta,streams")(f)
		}},
	} {
		f := unmakeable()
		r.edit(&f)
		wantKind(t, what, f.bytes(), r.kind)
	}
}

func TestStreamsAreDescribed(t *testing.T) {
	f := unmakeable()
	b, err := openChunk(t, f.bytes())
	if err != nil {
		t.Fatal(err)
	}
	if info := b.Info(); info.Streams != 1 || info.Open != 1 || info.Blobs != 9 || !slices.Equal(info.Features, []string{"streams"}) {
		t.Errorf("%+v", info)
	}
	s, err := b.Streams(t0)
	if err != nil || len(s) != 1 || s[0].Digest != digest.FromBytes(f.image.stream) || s[0].Size != int64(len(f.image.stream)) || s[0].Tar != digest.FromBytes(f.image.tar) || s[0].Recipe != 6 {
		t.Errorf("%+v", s)
	}
	var want []digest.Digest
	for _, blob := range f.image.blobs() {
		want = append(want, digest.FromBytes(blob))
	}
	slices.Sort(want)
	if got := b.Blobs(); !slices.Equal(got, want) {
		t.Errorf("blobs %v, want %v", got, want)
	}
}
