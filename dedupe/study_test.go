package dedupe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// goBlobs makes layers as docker does.
func goBlobs() *fixtures.Blobs {
	b := fixtures.NewBlobs()
	b.Gzip = fixtures.GoGzip(6)
	return b
}

// counting is a source that counts how often each blob is fetched. It is local
// if that is set.
type counting struct {
	*fixtures.Blobs
	local bool
	mu    sync.Mutex
	times map[digest.Digest]int
}

func counted(b *fixtures.Blobs, local bool) *counting {
	return &counting{Blobs: b, local: local, times: map[digest.Digest]int{}}
}

func (c *counting) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	c.mu.Lock()
	c.times[d.Digest]++
	c.mu.Unlock()
	return c.Blobs.Fetch(ctx, d)
}

func (c *counting) Local(digest.Digest) bool { return c.local }

func graphOf(t testing.TB, source manifests.Fetcher, roots []manifests.Root) *manifests.Graph {
	t.Helper()
	g, err := manifests.NewGraph(t0, manifests.Entries(source, roots), 0)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// blobImage is an image of one layer, made of a blob and what it unpacks to.
func blobImage(b *fixtures.Blobs, name, mediaType string, blob []byte, diffID digest.Digest) manifests.Root {
	config := b.AddJSON(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}})
	return fixtures.Root(name, b.AddJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{b.Add(mediaType, blob)}}))
}

func models(s *dedupe.Summary) (layers int, recipes int64) {
	for _, m := range s.Totals.Models {
		layers += m.Layers
		recipes += m.Recipes
	}
	return layers, recipes
}

func TestCompressedLayersAreHeldOpen(t *testing.T) {
	b := goBlobs()
	roots := fixtures.Series(b, 4, manifests.Gzip)
	plain := fixtures.NewBlobs()
	_, want := packed(t, chunkPlan(t, plain.Graph(t, fixtures.Series(plain, 4, manifests.Uncompressed)...)), dedupe.Options{})
	for _, local := range []bool{false, true} {
		source := counted(b, local)
		g := graphOf(t, source, roots)
		path, s := packed(t, chunkPlan(t, g), dedupe.Options{})
		adds(t, s)
		layers, recipes := models(s)
		if tot := s.Totals; tot.Open != tot.DistinctLayers || tot.Carried != 0 || layers != tot.Open || recipes > 100*int64(layers) || len(tot.Models) != 1 || len(tot.Reasons) != 0 {
			t.Errorf("totals %+v", tot)
		}
		if s.Size > want.Size+16<<10 || s.Totals.SavedByChunks != want.Totals.SavedByChunks || s.Totals.GrownByOpening <= recipes {
			t.Errorf("%d bytes, of plain layers %d: %+v", s.Size, want.Size, s.Totals)
		}
		bundle := opened(t, path)
		list, err := bundle.Streams(t0)
		if info := bundle.Info(); err != nil || !slices.Equal(info.Features, []string{"streams"}) || len(list) != layers {
			t.Errorf("info %+v, streams %+v, %v", info, list, err)
		}
		comesBack(t, bundle, g)
		for _, d := range g.Blobs() {
			if n := source.times[d.Digest]; !local && n != 1 {
				t.Errorf("%s was fetched %d times", d.Digest, n)
			}
		}
	}
}

func TestSameTarIsOpenOnce(t *testing.T) {
	b := goBlobs()
	tar := fixtures.Tar(fixtures.File{Name: "f", Body: fixtures.Noise(1, 300_000) + fixtures.Text(2, 100_000)})
	layer := func(name string, blob []byte) manifests.Root {
		return blobImage(b, name, ocispec.MediaTypeImageLayerGzip, blob, digest.FromBytes(tar))
	}
	fast, usual := layer("fast:1", fixtures.GoGzip(1)(tar)), layer("usual:1", fixtures.GoGzip(6)(tar))
	for _, roots := range [][]manifests.Root{{fast, usual}, {usual, image(b, "plain:1", tar), fast}, {image(b, "plain:1", tar), usual}} {
		g := b.Graph(t, roots...)
		path, s := packed(t, chunkPlan(t, g), dedupe.Options{})
		adds(t, s)
		bundle := opened(t, path)
		if s.Totals.Carried != 0 || bundle.Info().Open != 1 || s.Rows[0].NewContent == 0 || s.Rows[1].NewContent != 0 {
			t.Errorf("%d open: %+v", bundle.Info().Open, s)
		}
		comesBack(t, bundle, g)
	}

	// A base has the tar: the stream comes from that.
	base, err := dedupe.NewBase(t0, b.Graph(t, image(b, "plain:1", tar)), dedupe.BaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g := b.Graph(t, usual, image(b, "plain:1", tar))
	path, s := packed(t, chunkPlan(t, g, base), dedupe.Options{})
	if adds(t, s); s.Size > 20_000 {
		t.Errorf("%+v", s)
	}
	comesBack(t, opened(t, path, b.Graph(t, image(b, "plain:1", tar))), g)
}

// TestLayersThatAreCarried: what cannot be held open, is damaged inside or is
// not what its config says is stored as it is.
func TestLayersThatAreCarried(t *testing.T) {
	b := goBlobs()
	odd, stream := fixtures.OddGzip(10_000)
	tar := fixtures.Tar(fixtures.File{Name: "f", Body: fixtures.Text(1, 50_000)})
	gz := fixtures.GoGzip(6)(tar)
	twice := fixtures.GoGzip(6)(gz)
	damaged := bytes.Clone(gz)
	damaged[len(damaged)/2] ^= 0x55
	const gzip = ocispec.MediaTypeImageLayerGzip
	for _, c := range []struct {
		want  dedupe.Reason
		roots []manifests.Root
	}{
		{dedupe.ReasonEncoder, []manifests.Root{blobImage(b, "odd:1", gzip, stream, digest.FromBytes(odd))}},
		{dedupe.ReasonDiffID, []manifests.Root{blobImage(b, "other:1", gzip, gz, digest.FromBytes(odd))}},
		{dedupe.ReasonDiffID, []manifests.Root{blobImage(b, "plain:1", ocispec.MediaTypeImageLayer, gz, digest.FromBytes(tar))}},
		{dedupe.ReasonFormat, []manifests.Root{blobImage(b, "damaged:1", gzip, damaged, digest.FromBytes(tar))}},
		{dedupe.ReasonFormat, []manifests.Root{blobImage(b, "no:1", gzip, tar, digest.FromBytes(tar)[:7]+digest.FromBytes(odd)[7:])}},
		{dedupe.ReasonFormat, []manifests.Root{blobImage(b, "zstd:1", ocispec.MediaTypeImageLayerZstd, gz, digest.FromBytes(tar))}},
		{dedupe.ReasonLimit, []manifests.Root{blobImage(b, "twice:1", gzip, twice, digest.FromBytes(gz)), blobImage(b, "once:1", gzip, gz, digest.FromBytes(tar))}},
	} {
		for _, local := range []bool{false, true} {
			g := graphOf(t, counted(b, local), c.roots)
			path, s := packed(t, chunkPlan(t, g), dedupe.Options{})
			adds(t, s)
			var got []dedupe.Reason
			for _, r := range s.Totals.Reasons {
				got = append(got, r.Reason)
			}
			if diff := cmp.Diff([]dedupe.Reason{c.want}, got); diff != "" || s.Totals.Carried != 1 {
				t.Errorf("%s: %s%+v", c.roots[0].Display(), diff, s.Totals)
			}
			comesBack(t, opened(t, path), g)
		}
	}
}

// TestTarOfTwoLengths: a plain layer whose descriptor lies of its size, beside a
// compressed one of the same tar.
func TestTarOfTwoLengths(t *testing.T) {
	b := goBlobs()
	tar := fixtures.Tar(fixtures.File{Name: "f", Body: fixtures.Text(1, 50_000)})
	gz := fixtures.GoGzip(6)(tar)
	honest := blobImage(b, "honest:1", ocispec.MediaTypeImageLayerGzip, gz, digest.FromBytes(tar))
	plain := b.Add(ocispec.MediaTypeImageLayer, tar)
	plain.Size += 512
	var m ocispec.Manifest
	if err := json.Unmarshal(b.Bytes(honest.Descriptor.Digest), &m); err != nil {
		t.Fatal(err)
	}
	m.Layers = []ocispec.Descriptor{plain}
	g := b.Graph(t, honest, fixtures.Root("liar:1", b.AddJSON(ocispec.MediaTypeImageManifest, m)))
	_, err := chunkPlan(t, g).WriteFile(t0, filepath.Join(t.TempDir(), "x"), dedupe.Options{})
	if !fixtures.Matches(err, manifests.KindSize) || !strings.Contains(err.Error(), string(plain.Digest)) || !strings.Contains(err.Error(), string(digest.FromBytes(gz))) {
		t.Errorf("%v, want an error that names both layers", err)
	}
}

func TestFailedStudy(t *testing.T) {
	for what, spoil := range map[string]func(*fixtures.Blobs, digest.Digest) (context.Context, manifests.Kind){
		"damaged": func(b *fixtures.Blobs, d digest.Digest) (context.Context, manifests.Kind) {
			b.Corrupt(d, func(p []byte) []byte { p[len(p)/2] ^= 1; return p })
			return t0, manifests.KindDigest
		},
		"cut": func(b *fixtures.Blobs, d digest.Digest) (context.Context, manifests.Kind) {
			b.Corrupt(d, func(p []byte) []byte { return p[:len(p)-1] })
			return t0, manifests.KindTruncated
		},
		"longer": func(b *fixtures.Blobs, d digest.Digest) (context.Context, manifests.Kind) {
			b.Corrupt(d, func(p []byte) []byte { return append(p, 0) })
			return t0, manifests.KindSize
		},
		"missing": func(b *fixtures.Blobs, d digest.Digest) (context.Context, manifests.Kind) {
			b.Remove(d)
			return t0, manifests.KindMissing
		},
		"cancelled": func(*fixtures.Blobs, digest.Digest) (context.Context, manifests.Kind) {
			ctx, cancel := context.WithCancel(t0)
			cancel()
			return ctx, fixtures.Refused
		},
	} {
		b := goBlobs()
		g := b.Graph(t, fixtures.Series(b, 2, manifests.Gzip)...)
		p := chunkPlan(t, g)
		ctx, kind := spoil(b, g.Blobs()[1].Digest)
		dir := t.TempDir()
		if _, err := p.WriteFile(ctx, filepath.Join(dir, "x"), dedupe.Options{}); !fixtures.Matches(err, kind) {
			t.Errorf("%s: %v, want %q", what, err, kind)
		}
		if _, err := p.Write(ctx, io.Discard, dedupe.Options{SpoolDir: dir}); !fixtures.Matches(err, kind) {
			t.Errorf("%s to a pipe: %v, want %q", what, err, kind)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left %v", what, left)
		}
	}
}

// TestStudyIsCancelled: at any time, and nothing is left.
func TestStudyIsCancelled(t *testing.T) {
	b := goBlobs()
	p := chunkPlan(t, b.Graph(t, fixtures.Series(b, 2, manifests.Gzip)...))
	for _, at := range []int64{1, 160_000, 560_000, 1_080_000} {
		ctx, cancel := context.WithCancel(t0)
		var mu sync.Mutex
		var told int64
		dir := t.TempDir()
		_, err := p.WriteFile(ctx, filepath.Join(dir, "x"), dedupe.Options{Progress: func(_ ocispec.Descriptor, n int64) {
			mu.Lock()
			defer mu.Unlock()
			if told += n; told >= at {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("at %d: %v", at, err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("at %d: left %v", at, left)
		}
	}
}

func TestPhasesTellWhatTheyPromise(t *testing.T) {
	b := goBlobs()
	roots := append(fixtures.Series(b, 2, manifests.Gzip), fixtures.Sample(b)...)
	roots = append(roots, fixtures.Root("plain:1", fixtures.Series(b, 1, manifests.Uncompressed)[0].Descriptor))
	for _, limit := range []int64{0, 1} { // all layers at a time, or one
		var mu sync.Mutex
		var promised, told, phases []any
		var left int64
		o := dedupe.Options{RecipeCache: filepath.Join(t.TempDir(), "cache"), SpoolLimit: limit}
		o.Phase = func(p dedupe.Phase, n int64) {
			phases = append(phases, p)
			promised = append(promised, n)
			told = append(told, int64(0))
			left = n
		}
		o.Progress = func(_ ocispec.Descriptor, n int64) {
			mu.Lock()
			defer mu.Unlock()
			told[len(told)-1] = told[len(told)-1].(int64) + n
			left -= n
		}
		_, _ = packed(t, chunkPlan(t, b.Graph(t, roots...)), o)
		windows := (len(phases) - 1) / 2
		want := append([]any{dedupe.PhaseStudy}, slices.Repeat([]any{dedupe.PhaseWrite, dedupe.PhaseCompress}, windows)...)
		if diff := cmp.Diff(promised, told); diff != "" || (windows == 1) != (limit == 0) || left != 0 || !slices.Equal(phases, want) {
			t.Errorf("%v: %s", phases, diff)
		}
	}
}

func TestFullDiskShowsBeforeTheStudy(t *testing.T) {
	dir := smallDisk(t, "size=256k")
	b := goBlobs()
	g := b.Graph(t, fixtures.Series(b, 2, manifests.Gzip)...)
	p := chunkPlan(t, g)
	for _, d := range g.Blobs() {
		b.Remove(d.Digest) // whoever asks for one gets another error
	}
	if _, err := p.WriteFile(t0, filepath.Join(dir, "x"), dedupe.Options{}); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "temporary data, of 57") {
		t.Errorf("%v, want no space", err)
	}
	if _, err := p.Write(t0, io.Discard, dedupe.Options{SpoolDir: dir}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("to a pipe: %v, want no space", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestUnfinishedStudyIsGoneOnWith: what came from far away is not fetched again.
func TestUnfinishedStudyIsGoneOnWith(t *testing.T) {
	b := goBlobs()
	roots := fixtures.Series(b, 2, manifests.Gzip)
	_, want := packed(t, chunkPlan(t, b.Graph(t, roots...)), dedupe.Options{})
	source := counted(b, false)
	g := graphOf(t, source, roots)
	p := chunkPlan(t, g)
	blobs := g.Blobs()
	smallest := slices.MinFunc(blobs, func(x, y ocispec.Descriptor) int { return int(x.Size - y.Size) })
	path := filepath.Join(t.TempDir(), "x")
	o := dedupe.Options{Jobs: 1, Keep: func(error) bool { return true }}
	for round := range 2 { // what is kept, and not needed, stays for the round after
		b.Remove(smallest.Digest) // the last to be studied
		if _, err := p.WriteFile(t0, path, o); err == nil {
			t.Fatal("packed what is not there")
		}
		if round == 0 {
			continue
		}
		f, err := os.OpenFile(dedupe.BlobsPath(path), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("damage"), 1000); err != nil { // of the first blob
			t.Fatal(err)
		}
		f.Close()
		b.Heal(smallest.Digest)
		s, err := p.WriteFile(t0, path, o)
		if err != nil || s.Digest != want.Digest || s.Resumed != blobs[1].Size+blobs[2].Size+blobs[3].Size-smallest.Size {
			t.Errorf("%+v, %v", s, err)
		}
	}
	for i, d := range blobs {
		times := map[bool]int{false: 1, true: 2}[i == 0]
		if d.Digest == smallest.Digest {
			times = 3
		}
		if source.times[d.Digest] != times {
			t.Errorf("blob %d was fetched %d times, want %d", i, source.times[d.Digest], times)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestLeftBlobsGo: a run that does not go on with what another left, or has
// nothing to keep there, removes it.
func TestLeftBlobsGo(t *testing.T) {
	b := goBlobs()
	far := chunkPlan(t, b.Graph(t, fixtures.Series(b, 1, manifests.Gzip)...))
	near := chunkPlan(t, graphOf(t, counted(b, true), fixtures.Series(b, 1, manifests.Gzip)))
	for _, p := range []*dedupe.Plan{far, near} {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(dedupe.BlobsPath(path), []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.WriteFile(t0, path, dedupe.Options{}); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
			t.Errorf("left %v, %v", left, err)
		}
	}
}

func TestDeltasOfCompressedLayers(t *testing.T) {
	b := goBlobs()
	roots := fixtures.Series(b, 4, manifests.Gzip)
	have, next := b.Graph(t, roots[:2]...), b.Graph(t, roots[3])
	old, first := packed(t, chunkPlan(t, have), dedupe.Options{})
	whole, _ := packed(t, chunkPlan(t, next), dedupe.Options{})
	st, err := os.Stat(whole)
	if err != nil {
		t.Fatal(err)
	}
	base, err := dedupe.NewBase(t0, have, dedupe.BaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for what, x := range map[string]struct {
		base *dedupe.Base
		most int64
	}{"graph": {base, 30_000}, "receipt": {first.Receipt, 120_000}} {
		path, s := packed(t, chunkPlan(t, next, x.base), dedupe.Options{})
		adds(t, s)
		if s.Totals.Needed != 1 || s.Totals.Open != 2 || s.Size > x.most || s.Size > st.Size()/3 {
			t.Errorf("%s: delta of %d bytes, whole %d: %+v", what, s.Size, st.Size(), s.Totals)
		}
		if info := opened(t, path, have).Info(); !slices.Equal(info.Features, []string{"delta", "streams"}) {
			t.Errorf("%s: features %v", what, info.Features)
		}
		comesBack(t, opened(t, path, have), next)
		// The base may itself be a bundle, which holds the layers open.
		comesBack(t, opened(t, path, bundleGraph(t, opened(t, old))), next)
	}
}

// TestMergedBundles: recipes are taken over from bundles, and layers are not
// compressed again.
func TestMergedBundles(t *testing.T) {
	b := goBlobs()
	roots := fixtures.Series(b, 2, manifests.Gzip)
	one, _ := packed(t, chunkPlan(t, b.Graph(t, roots[0])), dedupe.Options{})
	two, _ := packed(t, chunkPlan(t, b.Graph(t, roots[1])), dedupe.Options{})
	_, want := packed(t, chunkPlan(t, b.Graph(t, roots...)), dedupe.Options{})
	var all []manifests.Entry
	for _, path := range []string{one, two} {
		bundle := opened(t, path)
		list, err := bundle.Roots(t0)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, manifests.Entries(bundle, list)...)
		if !bundle.Local(bundleGraph(t, bundle).Blobs()[0].Digest) || bundle.Local(digest.FromString("another")) {
			t.Error("the bundle does not know what it has")
		}
	}
	g, err := manifests.NewGraph(t0, all, 0)
	if err != nil {
		t.Fatal(err)
	}
	path, s := packed(t, chunkPlan(t, g), dedupe.Options{})
	if s.Digest != want.Digest || s.Totals.Models[0] != want.Totals.Models[0] || s.Temp >= want.Temp {
		t.Errorf("merged: %+v, want %+v", s, want)
	}
	comesBack(t, opened(t, path), g)
}

func TestEstimateOfCompressedLayers(t *testing.T) {
	b := goBlobs()
	roots := fixtures.Series(b, 4, manifests.Gzip)
	near := chunkPlan(t, graphOf(t, counted(b, true), roots))
	_, s := packed(t, near, dedupe.Options{})
	dir := t.TempDir()
	e, err := near.Estimate(t0, dedupe.Options{SpoolDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	adds(t, e)
	if e.Exact || e.Unread != 0 || e.Totals.Open != s.Totals.Open || e.Totals.SavedByChunks != s.Totals.SavedByChunks || e.Size < s.Size*8/10 || e.Size > s.Size*12/10 {
		t.Errorf("estimated %d bytes, written %d: %+v", e.Size, s.Size, e.Totals)
	}
	source := counted(b, false)
	far := chunkPlan(t, graphOf(t, source, roots))
	if e, err = far.Estimate(t0, dedupe.Options{SpoolDir: dir}); err != nil {
		t.Fatal(err)
	}
	adds(t, e)
	var blobs int64
	for _, d := range b.Graph(t, roots...).Blobs() {
		blobs += d.Size
		if n := source.times[d.Digest]; n != 1 {
			t.Errorf("%s was looked at %d times", d.Digest, n)
		}
	}
	if layers, _ := models(e); layers != s.Totals.Open {
		t.Errorf("estimated %+v", e.Totals.Models)
	}
	if e.Exact || e.Unread != blobs || e.Totals.Open != s.Totals.Open || e.Size < blobs {
		t.Errorf("estimated %+v", e)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
