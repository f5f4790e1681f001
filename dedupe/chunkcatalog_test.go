package dedupe_test

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

func TestCatalogRules(t *testing.T) {
	catalog := func(edit func(object)) func(*chunkFile) { return func(f *chunkFile) { f.catalog = edit } }
	with := func(key string, value any) func(*chunkFile) { return catalog(func(c object) { c[key] = value }) }
	without := func(key string) func(*chunkFile) { return catalog(func(c object) { delete(c, key) }) }
	images := func(key string, value any) func(*chunkFile) {
		return catalog(func(c object) { c["images"].(object)[key] = value })
	}
	tars := func(t ...object) func(*chunkFile) { return func(f *chunkFile) { f.tars = t } }
	some := digest.FromString("x")
	checkRules(t, map[string]rule{
		"unknown field":           {malformed, with("later", 1)},
		"known field, other case": {malformed, with("Tars", []object{})},
		"unknown field of a tar":  {malformed, tars(object{"digest": some, "size": 1, "name": "x"})},
		"no images":               {malformed, without("images")},
		"no tars":                 {malformed, without("tars")},
		"no segments":             {malformed, without("segments")},
		"images are not an index": {malformed, with("images", "x")},
		"images without a type":   {malformed, images("mediaType", "")},
		"no image":                {malformed, images("manifests", []object{})},
		"images annotated":        {malformed, images("annotations", object{"io.imgpack.bundle.version": "1"})},
		"a name twice":            {malformed, func(f *chunkFile) { f.roots = append(f.roots, f.roots[0]) }},
		"reserved root":           {fixtures.Unsupported, func(f *chunkFile) { f.roots[0].ArtifactType = "application/vnd.imgpack.bundle.chunk.v1" }},
		"reserved media type":     {fixtures.Unsupported, func(f *chunkFile) { f.roots[0].MediaType = "application/vnd.imgpack.x" }},
		"root is not there":       {manifests.KindMissing, func(f *chunkFile) { f.roots[0].Digest = some }},
		"root is a tar": {manifests.KindMissing, func(f *chunkFile) {
			f.roots[0].Digest, f.roots[0].Size = digest.FromBytes(f.image.tar), int64(len(f.image.tar))
		}},
		"tar by a bad digest":    {malformed, tars(object{"digest": "sha256:../../x", "size": 1})},
		"tar of a negative size": {manifests.KindSize, tars(object{"digest": some, "size": -1})},
		"tar of 2^40+1 bytes":    {limit, tars(object{"digest": some, "size": 1<<40 + 1})},
		"tar twice":              {malformed, tars(object{"digest": some, "size": 1}, object{"digest": some, "size": 1})},
		"tar is carried": {malformed, func(f *chunkFile) {
			f.tars = append(f.tars, object{"digest": digest.FromBytes(f.image.gzip), "size": len(f.image.gzip)})
		}},
		"empty segment":           {malformed, with("segments", []int{0, 3584})},
		"largest segment":         {"", with("segments", []int{1 << 28, 1 << 28})},
		"too large segment":       {limit, with("segments", []int{1<<28 + 1, 1})},
		"fractional segment":      {malformed, with("segments", []float64{1.5, 1})},
		"one segment fewer":       {malformed, with("segments", []int{1500})},
		"one segment more":        {malformed, with("segments", []int{1500, 2083, 1})},
		"bases and no needs":      {malformed, with("bases", []object{{"name": "old", "date": "2026-01-02T03:04:05Z"}})},
		"needs without a feature": {malformed, with("needs", object{"blobs": []object{{"digest": some, "size": 1}}})},
		"larger than 16 MiB":      {limit, with("bases", strings.Repeat("x", 16<<20))},
		"deeper than 64 levels":   {limit, func(f *chunkFile) { f.catalog = func(c object) { c["images"] = nested(70) } }},
		"not UTF-8":               {malformed, replaced("catalog", []byte("docker.io"), []byte("docker\xff\xfe\xfd"))},
		"data behind it":          {malformed, replaced("catalog", nil, []byte("{}"))},
		"key twice":               {malformed, replaced("catalog", []byte(`"tars":`), []byte(`"tars":[],"tars":`))},
		"damaged":                 {manifests.KindDigest, damaged(6)},
	})
}

func nested(depth int) any {
	if depth == 0 {
		return 1
	}
	return object{"x": nested(depth - 1)}
}

// replaced changes the bytes of the catalog, and everything that names it.
func replaced(_ string, old, with []byte) func(*chunkFile) {
	return func(f *chunkFile) {
		plain := *f
		raw := plain.parts()[6].content
		if old == nil {
			raw = append(slices.Clone(raw), with...)
		} else {
			raw = bytes.Replace(raw, old, with, 1)
		}
		f.list = func(m object) { m["config"] = described("application/vnd.imgpack.bundle.catalog.v1+json", raw) }
		f.blobs = func(b []member) []member { b[6] = blobMember(raw); return b }
	}
}

// damaged changes a byte of a blob and nothing that names it.
func damaged(blob int) func(*chunkFile) {
	return func(f *chunkFile) {
		f.blobs = func(b []member) []member {
			b[blob].content = slices.Clone(b[blob].content)
			b[blob].content[len(b[blob].content)/2] ^= 0x20
			return b
		}
		f.promised = true
	}
}

// delta makes the bundle one that needs its carried layer from elsewhere.
func (f *chunkFile) delta() object {
	f.carried = f.carried[:2]
	f.set = map[string]string{"features": "delta"}
	needs := object{
		"blobs":  []object{{"digest": digest.FromBytes(f.image.gzip), "size": len(f.image.gzip)}},
		"layers": []object{{"diffID": digest.FromString("tar"), "digest": digest.FromString("blob"), "size": 5, "mediaType": ocispec.MediaTypeImageLayerGzip}},
	}
	f.catalog = func(c object) {
		c["needs"] = needs
		c["bases"] = []object{{"name": "old.imgpack", "date": "2026-01-02T03:04:05Z", "digest": digest.FromString("old")}, {"name": "older", "date": "2025-01-02T03:04:05Z"}}
	}
	return needs
}

func TestNeedsRules(t *testing.T) {
	some := digest.FromString("some")
	needs := func(edit func(object)) func(*chunkFile) { return func(f *chunkFile) { edit(f.delta()) } }
	layer := func(key string, value any) func(*chunkFile) {
		return needs(func(n object) { n["layers"].([]object)[0][key] = value })
	}
	base := func(key string, value any) func(*chunkFile) {
		return func(f *chunkFile) {
			f.delta()
			before := f.catalog
			f.catalog = func(c object) { before(c); c["bases"].([]object)[0][key] = value }
		}
	}
	checkRules(t, map[string]rule{
		"nothing wrong":       {"", needs(func(object) {})},
		"blobs alone":         {"", needs(func(n object) { delete(n, "layers") })},
		"layers alone":        {"", needs(func(n object) { delete(n, "blobs") })},
		"no base named":       {"", func(f *chunkFile) { f.delta(); c := f.catalog; f.catalog = func(x object) { c(x); delete(x, "bases") } }},
		"nothing":             {malformed, needs(func(n object) { delete(n, "layers"); delete(n, "blobs") })},
		"no feature":          {malformed, func(f *chunkFile) { f.delta(); f.set = nil }},
		"unknown field":       {malformed, needs(func(n object) { n["later"] = 1 })},
		"blob is carried":     {malformed, needs(func(n object) { n["blobs"].([]object)[0]["digest"] = validChunk().roots[0].Digest })},
		"blob is open":        {malformed, needs(func(n object) { n["blobs"].([]object)[0]["digest"] = digest.FromBytes(newChunkImage().tar) })},
		"blob twice":          {malformed, needs(func(n object) { b := n["blobs"].([]object); n["blobs"] = append(b, b[0]) })},
		"blob's digest":       {malformed, needs(func(n object) { n["blobs"].([]object)[0]["digest"] = "x" })},
		"blob's size":         {manifests.KindSize, needs(func(n object) { n["blobs"].([]object)[0]["size"] = -1 })},
		"layer twice":         {malformed, needs(func(n object) { l := n["layers"].([]object); n["layers"] = append(l, l[0]) })},
		"layer's diffID":      {malformed, layer("diffID", "sha256:x")},
		"layer's digest":      {malformed, layer("digest", "")},
		"layer's size":        {limit, layer("size", 1<<40+1)},
		"layer's type":        {malformed, layer("mediaType", "text/plain")},
		"base without a name": {"", base("name", "")},
		"base's date":         {malformed, base("date", "yesterday")},
		"base's zone":         {malformed, base("date", "2026-01-02T03:04:05+01:00")},
		"base's digest":       {malformed, base("digest", "x")},
		"base's field":        {malformed, base("later", some)},
	})
}

func TestDeltaIsDescribed(t *testing.T) {
	f := validChunk()
	f.delta()
	b, err := openChunk(t, f.bytes())
	if err != nil {
		t.Fatal(err)
	}
	info, needs := b.Info(), b.Needs()
	if !slices.Equal(info.Features, []string{"delta"}) || len(info.Bases) != 2 || info.Bases[0].Name != "old.imgpack" || info.Bases[0].Date.Year() != 2026 || info.Bases[1].Digest != "" {
		t.Errorf("%+v", info)
	}
	if needs == nil || len(needs.Bases) != 2 || len(needs.Blobs) != 1 || len(needs.Layers) != 1 || needs.Layers[0].Size != 5 {
		t.Errorf("%+v", needs)
	}
	if slices.Contains(b.Blobs(), digest.FromBytes(f.image.gzip)) {
		t.Error("says it can give what it needs")
	}
	r, err := b.Fetch(t0, ocispec.Descriptor{Digest: digest.FromBytes(f.image.tar), Size: int64(len(f.image.tar))})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, f.image.tar) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// A config may not hide among the open layers, nor on the other side.
func TestDocumentsAreCarried(t *testing.T) {
	for what, edit := range map[string]func(f *chunkFile, config object){
		"open": func(f *chunkFile, config object) { f.tars = append(f.tars, config) },
		"needed": func(f *chunkFile, config object) {
			needs := f.delta()
			needs["blobs"] = append(needs["blobs"].([]object), config)
		},
	} {
		f := validChunk()
		edit(&f, object{"digest": digest.FromBytes(f.image.config), "size": len(f.image.config)})
		f.carried = slices.Delete(f.carried, 1, 2)
		b, err := openChunk(t, f.bytes())
		if err != nil {
			t.Fatal(err)
		}
		roots, err := b.Roots(t0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = manifests.NewGraph(t0, []manifests.Entry{{Source: b, Root: roots[0]}}, 0)
		if !fixtures.Matches(err, manifests.KindMissing) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
