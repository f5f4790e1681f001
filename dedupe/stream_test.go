package dedupe_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// streamsOf are compressed forms of a tar that a bundle must give back.
func streamsOf(tar []byte) map[string][]byte {
	all := map[string][]byte{
		"of blocks side by side": fixtures.Compress(tar, manifests.Gzip),
		"of two members":         append(goGzip(tar[:1000], 6), goGzip(tar[1000:], 1)...),
		"padded":                 append(goGzip(tar, 6), make([]byte, 100)...),
	}
	for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
		all[fmt.Sprintf("of level %d", level)] = goGzip(tar, level)
	}
	return all
}

func TestStreamsComeBack(t *testing.T) {
	for what, stream := range streamsOf(newChunkImage().tar) {
		f := validChunk()
		f.withStream(stream, findRecipe(t, stream))
		raw := f.bytes()
		b, err := openChunk(t, raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, blob := range f.image.blobs() {
			d := ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))}
			if got := fetch(t, b, d); !bytes.Equal(got, blob) {
				t.Errorf("%s: %s is not what it was", what, d.Digest)
			}
			d.Size++
			if _, err := b.Fetch(t0, d); !fixtures.Matches(err, manifests.KindSize) {
				t.Errorf("%s: %s of another size: %v", what, d.Digest, err)
			}
		}
		if err := b.Audit(t0); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		layersOf(t, b, f.image)
		second := specRead(t, raw, nil)
		for _, blob := range f.image.blobs() {
			if !bytes.Equal(second[string(digest.FromBytes(blob))], blob) {
				t.Errorf("%s: the second reader has another %s", what, digest.FromBytes(blob))
			}
		}
	}
}

// Whatever byte of the file changes, nothing wrong is given, and where it is in
// the recipes of streams, these are named.
func TestEveryByteOfStreamBundleCounts(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a bundle as often as it has bytes")
	}
	f := validStreams(t)
	raw := f.bytes()
	where := places(raw)
	dir := t.TempDir()
	streams := f.streamRecipes.name
	for at := range raw {
		name, content := where(at)
		bad := bytes.Clone(raw)
		bad[at] ^= 1 << (at % 8)
		b, err := dedupe.OpenReaderAt(bytes.NewReader(bad), int64(len(bad)), "x.imgpack", dedupe.OpenOptions{SpoolDir: dir, Jobs: 1})
		if err == nil {
			err = readChunk(b, f.image)
			if cerr := b.Close(); cerr != nil {
				t.Fatal(cerr)
			}
		}
		var finding *manifests.ContentError
		if name == "index.json" && fixtures.Matches(err, fixtures.Unsupported) {
			continue // a version, mode or feature of its own comes before damage
		}
		if !errors.As(err, &finding) {
			t.Errorf("byte %d, in %q, changed: %v", at, name, err)
			continue
		}
		if content && name == streams && !strings.Contains(err.Error(), streams) {
			t.Errorf("byte %d of %s changed: %v", at, name, err)
		}
	}
}

// Recipes of streams that are what their digest says, and make no such stream:
// who reads the stream learns it, who wants the tar does not mind.
func TestForgedStreams(t *testing.T) {
	valid := validStreams(t)
	recipe, stream := valid.streamRecipes.content, valid.image.stream
	other := goGzip(bytes.Repeat([]byte("other"), 700), 6)
	cases := map[string][]byte{
		"no recipe":          []byte("recipe"),
		"one byte":           {recipe[0]},
		"NULs":               make([]byte, 50),
		"bytes behind it":    append(bytes.Clone(recipe), 0),
		"cut":                recipe[:len(recipe)-1],
		"of another stream":  findRecipe(t, other),
		"of another encoder": findRecipe(t, goGzip(valid.image.tar, 1)),
	}
	for i := range recipe {
		bad := bytes.Clone(recipe)
		bad[i] ^= 1 << (i % 8)
		cases[fmt.Sprintf("byte %d changed", i)] = bad
	}
	for what, recipe := range cases {
		f := validChunk()
		f.withStream(stream, recipe)
		b, err := openChunk(t, f.bytes())
		if err != nil {
			t.Fatal(err)
		}
		err = readChunk(b, f.image)
		var bad *manifests.ContentError
		var unsupported *manifests.UnsupportedError
		if err == nil && strings.HasPrefix(what, "byte") {
			continue // some bits of a recipe say nothing; the stream was proven
		}
		if !errors.As(err, &unsupported) && (!errors.As(err, &bad) || !strings.Contains(err.Error(), string(digest.FromBytes(stream)))) {
			t.Errorf("%s: %v", what, err)
		}
		if fixtures.Matches(err, malformed) && !strings.Contains(err.Error(), f.streamRecipes.name) {
			t.Errorf("%s: %v, want the member named", what, err)
		}
		layersOf(t, b, f.image)
	}
}

// Without the recipes of streams, and without contents, what needs neither is
// there.
func TestDamagedStreamBundle(t *testing.T) {
	for blob, what := range map[int]string{3: "segment 1", 4: "segment 2", 5: "recipes", 6: "recipes of streams"} {
		f := validStreams(t)
		name := digest.FromBytes(f.parts()[blob].content).Encoded()
		damaged(blob)(&f)
		b, err := openChunk(t, f.bytes())
		if err != nil {
			t.Errorf("%s: %v when it is opened", what, err)
			continue
		}
		d := ocispec.Descriptor{Digest: digest.FromBytes(f.image.stream), Size: int64(len(f.image.stream))}
		for range 2 {
			r, err := b.Fetch(t0, d)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				err = errors.Join(err, r.Close())
			}
			if !fixtures.Matches(err, manifests.KindDigest) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v, want %s named", what, err, name)
			}
		}
		if err := b.Audit(t0); !fixtures.Matches(err, manifests.KindDigest) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the audit says %v", what, err)
		}
		if blob == 6 {
			layersOf(t, b, f.image)
		}
	}
}
