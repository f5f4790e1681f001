package dedupe_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/manifests"
)

// golden are the files of fixtures/testdata/golden, which must stay readable
// for ever. Never change a line here, and never write the files anew.
var golden = map[string]string{
	"delta.blobs":   "732a5a6d2aa455cd1295fcde74762641b9f0b4588c016e418bc494dd78c10ffc",
	"delta.imgpack": "cee007dbf586b629e8403c58679e262e86e12297c38f635658eba62703d47007",
	"full.blobs":    "863a0a85834fab67327299ec3cebbf56ec34c2eebce1d105c751dcbc21bf19ab",
	"full.imgpack":  "884ebaccc08d96092fc1e17ac937479052d60cf1bd4b580e9e6999ba320ade9d",
	"full.receipt":  "04817194e438385ea8ed6a982c41e1dfea94d4ce86cbdb701a05f2257afb7e04",

	"streams-delta.blobs":   "5ef7918611d5d4c68c34077cd3806cb9e07ec682f5e46c2344f7126a713a9491",
	"streams-delta.imgpack": "24f619407e4dd66a78e0daa00a665c4b7d5bdd04e828927059b81f1f4436d86b",
	"streams.blobs":         "5c867e4065e4cfc459d71df72ee37b3c4cd126aa33e3a0152d1524125f9d9861",
	"streams.imgpack":       "72d10cf0625d41c04b204b2215c69e7e5465a20075fb5dba83da1237558fa915",
}

func goldenFile(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "fixtures", "testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(raw)); got != golden[name] {
		t.Fatalf("%s has been changed: golden files are never written anew. Restore it, and make today's reader read it", name)
	}
	return raw
}

// goldenBlobs are the digests and sizes that must come out of a golden bundle.
func goldenBlobs(t testing.TB, name string) map[string]int64 {
	all := map[string]int64{}
	for line := range strings.Lines(string(goldenFile(t, name))) {
		var d string
		var size int64
		if _, err := fmt.Sscan(line, &d, &size); err != nil {
			t.Fatal(err)
		}
		all[d] = size
	}
	return all
}

func openGolden(t testing.TB, name string) *dedupe.Bundle {
	raw := goldenFile(t, name)
	b, err := dedupe.OpenReaderAt(bytes.NewReader(raw), int64(len(raw)), name, dedupe.OpenOptions{SpoolDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// bundleGraph is all that a bundle holds.
func bundleGraph(t testing.TB, b *dedupe.Bundle) *manifests.Graph {
	t.Helper()
	roots, err := b.Roots(t0)
	if err != nil {
		t.Fatal(err)
	}
	g, err := manifests.NewGraph(t0, manifests.Entries(b, roots), 0)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGoldenBundles(t *testing.T) {
	bundles := map[string]*dedupe.Bundle{}
	for delta, of := range map[string]string{"delta": "full", "streams-delta": "streams"} {
		bundles[of], bundles[delta] = openGolden(t, of+".imgpack"), openGolden(t, delta+".imgpack")
		bundles[delta].Supply(bundleGraph(t, bundles[of]))
		if err := bundles[delta].Complete(); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range bundles {
		want := goldenBlobs(t, name+".blobs")
		if err := b.Audit(t0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for _, d := range b.Blobs() {
			got = append(got, string(d))
		}
		streams, err := b.Streams(t0)
		if err != nil {
			t.Fatal(err)
		}
		listed := maps.Clone(want)
		for _, s := range streams { // whose tar may be a layer too
			delete(listed, string(s.Tar))
		}
		if !slices.Equal(got, slices.Sorted(maps.Keys(listed))) {
			t.Errorf("%s: blobs %v", name, got)
		}
		for d, size := range want {
			raw := fetch(t, b, ocispec.Descriptor{Digest: digest.Digest(d), Size: size})
			if digest.FromBytes(raw) != digest.Digest(d) {
				t.Errorf("%s: %s comes out wrong", name, d)
			}
		}
	}
}

func TestGoldenBundlesSecondReader(t *testing.T) {
	bundles := map[string]map[string][]byte{}
	for delta, of := range map[string]string{"delta": "full", "streams-delta": "streams"} {
		bundles[of] = specRead(t, goldenFile(t, of+".imgpack"), nil)
		have := maps.Clone(bundles[of])
		for _, blob := range bundles[of] { // layers, also without their compression
			tar := fixtures.Decompress(blob, manifests.Compression(codec.Sniff(blob)))
			have[string(digest.FromBytes(tar))] = tar
		}
		bundles[delta] = specRead(t, goldenFile(t, delta+".imgpack"), have)
	}
	for name, got := range bundles {
		want := goldenBlobs(t, name+".blobs")
		for d, size := range want {
			if int64(len(got[d])) != size || digest.FromBytes(got[d]) != digest.Digest(d) {
				t.Errorf("%s: %s comes out wrong", name, d)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d blobs, want %d", name, len(got), len(want))
		}
	}
}

func TestGoldenReceipt(t *testing.T) {
	raw := goldenFile(t, "full.receipt")
	base, err := dedupe.ReadReceipt(bytes.NewReader(raw), "full.receipt")
	if err != nil {
		t.Fatal(err)
	}
	full := openGolden(t, "full.imgpack")
	if id := base.ID(); id.Name != "full.imgpack" || id.Digest != full.Info().Digest || !dedupe.IsReceipt(raw) {
		t.Errorf("the receipt is of %+v", id)
	}
	leaves := 0
	for _, d := range bundleGraph(t, full).Blobs() {
		if leaves++; !base.Has(d.Digest) {
			t.Errorf("the receipt lacks %s", d.Digest)
		}
	}
	if base.Blobs() != leaves || base.Layers() == 0 || base.Chunks() == 0 {
		t.Errorf("%d blobs, want %d; %d layers; %d chunks", base.Blobs(), leaves, base.Layers(), base.Chunks())
	}
}
