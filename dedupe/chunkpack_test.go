package dedupe_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
)

func chunkPlan(t testing.TB, g *manifests.Graph, bases ...*dedupe.Base) *dedupe.Plan {
	t.Helper()
	p, err := dedupe.NewPlan(g, dedupe.PlanOptions{Bases: bases})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// packed writes a bundle of chunk mode to a file.
func packed(t testing.TB, p *dedupe.Plan, o dedupe.Options) (string, *dedupe.Summary) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.imgpack")
	s, err := p.WriteFile(t0, path, o)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Size() != s.Size {
		t.Fatalf("%d bytes, the summary says %d (%v)", st.Size(), s.Size, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Fatalf("left %v, %v", left, err)
	}
	return path, s
}

// opened opens a bundle and supplies it with what it leans on.
func opened(t testing.TB, path string, have ...*manifests.Graph) *dedupe.Bundle {
	t.Helper()
	b, err := dedupe.Open(path, dedupe.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	for _, g := range have {
		b.Supply(g)
	}
	if err := b.Complete(); err != nil {
		t.Fatal(err)
	}
	return b
}

// comesBack reads every blob of g from a bundle, through a graph of its own.
func comesBack(t testing.TB, b *dedupe.Bundle, g *manifests.Graph) {
	t.Helper()
	got := bundleGraph(t, b)
	if want := descriptors(g.Docs()); !slices.EqualFunc(descriptors(got.Docs()), want, sameDigest) || !slices.EqualFunc(got.Blobs(), g.Blobs(), sameDigest) {
		t.Fatal("the graph is another")
	}
	for _, d := range append(descriptors(g.Docs()), g.Blobs()...) {
		r, err := b.Fetch(t0, d)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n != d.Size {
			t.Errorf("%s: %d bytes, %v", d.Digest, n, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := b.Audit(t0); err != nil {
		t.Error(err)
	}
}

func sameDigest(a, b ocispec.Descriptor) bool { return a.Digest == b.Digest && a.Size == b.Size }

// adds proves that the sums of a summary fit together.
func adds(t testing.TB, s *dedupe.Summary) {
	t.Helper()
	tot := s.Totals
	added := tot.Stored - (tot.Bytes + tot.GrownByOpening - tot.SavedByLayers - tot.SavedByBase - tot.SavedByChunks - tot.SavedByCompression)
	if added < 0 || added > 1<<20 {
		t.Errorf("%d bytes are added by the bundle itself: %+v", added, tot)
	}
	var fresh int64
	for _, r := range s.Rows {
		fresh += r.NewContent
		if r.Open+r.Carried+r.Needed != r.Layers {
			t.Errorf("row %+v", r)
		}
	}
	carried := 0
	for _, r := range tot.Reasons {
		carried += r.Layers
	}
	if tot.Open+tot.Carried+tot.Needed != tot.DistinctLayers || carried != tot.Carried {
		t.Errorf("totals %+v", tot)
	}
}

func TestChunkRoundTrip(t *testing.T) {
	for seed := range int64(6) {
		b := fixtures.NewBlobs()
		g := b.Graph(t, append(fixtures.Random(b, seed, 5), fixtures.Sample(b)...)...)
		path, s := packed(t, chunkPlan(t, g), dedupe.Options{})
		adds(t, s)
		comesBack(t, opened(t, path), g)
	}
}

func TestChunksOfASeries(t *testing.T) {
	b := fixtures.NewBlobs()
	g := b.Graph(t, fixtures.Series(b, 6, manifests.Uncompressed)...)
	p := chunkPlan(t, g)
	path, s := packed(t, p, dedupe.Options{})
	adds(t, s)
	if s.Totals.Open != s.Totals.DistinctLayers || s.Totals.SavedByChunks < s.Totals.Bytes/3 || s.Rows[5].NewContent > s.Rows[0].NewContent/3 {
		t.Errorf("totals %+v, last row %+v", s.Totals, s.Rows[5])
	}
	if info := opened(t, path).Info(); info.Digest != s.Digest || info.Mode != "chunk" || info.Size != s.Size {
		t.Errorf("info %+v", info)
	}
	comesBack(t, opened(t, path), g)
	e, err := p.Estimate(t0, dedupe.Options{})
	if err != nil {
		t.Fatal(err)
	}
	adds(t, e)
	if e.Exact || e.Digest != "" || e.Totals.SavedByChunks != s.Totals.SavedByChunks || e.Size < s.Size*8/10 || e.Size > s.Size*12/10 {
		t.Errorf("estimated %d bytes, written %d: %+v", e.Size, s.Size, e.Totals)
	}
}

// odd gives blobs slowly, in pieces of any size, and in an order that differs
// from run to run.
type odd struct{ *fixtures.Blobs }

func (o odd) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
	r, err := o.Blobs.Fetch(ctx, d)
	return struct {
		io.Reader
		io.Closer
	}{oddReader{r}, r}, err
}

type oddReader struct{ io.Reader }

func (o oddReader) Read(p []byte) (int, error) {
	return o.Reader.Read(p[:min(len(p), 1+rand.IntN(200_000))])
}

func TestSameChunkBundleHoweverWritten(t *testing.T) {
	b := goBlobs()
	roots := append(fixtures.Series(b, 3, manifests.Uncompressed), fixtures.Random(b, 11, 5)...)
	roots = append(roots, fixtures.Root("example.com/compressed:1", fixtures.Series(b, 3, manifests.Gzip)[2].Descriptor))
	cache := filepath.Join(t.TempDir(), "cache")
	base, err := dedupe.NewBase(t0, b.Graph(t, fixtures.Series(b, 1, manifests.Gzip)...), dedupe.BaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, bases := range [][]*dedupe.Base{nil, {base}} {
		for _, limit := range []int64{0, 1, 600_000} {
			var want []byte
			for i, jobs := range []int{1, 8, 2} {
				g, err := manifests.NewGraph(t0, manifests.Entries(odd{b}, roots), jobs)
				if err != nil {
					t.Fatal(err)
				}
				o := dedupe.Options{Jobs: jobs, SpoolLimit: limit, SpoolDir: t.TempDir()}
				if i > 0 {
					o.RecipeCache = cache
				}
				p := chunkPlan(t, g, bases...)
				var got bytes.Buffer
				if i == 2 {
					path, _ := packed(t, p, o)
					raw, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					got.Write(raw)
				} else if _, err := p.Write(t0, &got, o); err != nil {
					t.Fatal(err)
				}
				if want == nil {
					want = got.Bytes()
				}
				if !bytes.Equal(want, got.Bytes()) {
					t.Errorf("limit %d, %d jobs: %x, before %x", limit, jobs, sha256.Sum256(got.Bytes()), sha256.Sum256(want))
				}
			}
			path := filepath.Join(t.TempDir(), "x")
			if err := os.WriteFile(path, want, 0o600); err != nil {
				t.Fatal(err)
			}
			comesBack(t, opened(t, path, b.Graph(t, fixtures.Series(b, 1, manifests.Gzip)...)), b.Graph(t, roots...))
		}
	}
}

func image(b *fixtures.Blobs, name string, tars ...[]byte) manifests.Root {
	var layers []fixtures.LayerSpec
	for _, tar := range tars {
		layers = append(layers, fixtures.LayerSpec{Compression: manifests.Uncompressed, Tar: tar})
	}
	return fixtures.Root(name, b.Image(fixtures.ImageSpec{Layers: layers}))
}

func TestOddLayersComeBack(t *testing.T) {
	b := fixtures.NewBlobs()
	var many []fixtures.File
	for i := range 20_000 {
		many = append(many, fixtures.File{Name: fmt.Sprintf("d%d/f%d", i%97, i), Body: fixtures.Text(uint64(i%500), i%70)})
	}
	tar := fixtures.Tar(fixtures.File{Name: "a", Body: fixtures.Noise(1, 700_000)}, fixtures.File{Name: "b", Body: fixtures.Noise(1, 700_000)})
	roots := []manifests.Root{
		image(b, "empty:1", make([]byte, 1024), []byte("x")),
		image(b, "same:1", tar, tar),
		image(b, "noise:1", []byte(fixtures.Noise(2, 900_001)), []byte(fixtures.Text(3, 511))),
		image(b, "cut:1", tar[:len(tar)-700_000], tar[:513], tar[1:]),
		image(b, "zeros:1", make([]byte, 3<<20)),
		image(b, "many:1", fixtures.Tar(many...)),
	}
	for i, h := range fixtures.HostileLayers() {
		roots = append(roots, image(b, fmt.Sprintf("hostile:%d", i), h.Tar))
	}
	// A layer without a byte is among them, which Blobs takes for a lost one.
	var entries []manifests.Entry
	for _, r := range roots {
		entries = append(entries, manifests.Entry{Root: r, Source: manifests.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
			if d.Size == 0 {
				return manifests.BytesReader(nil, d), nil
			}
			return b.Fetch(ctx, d)
		})})
	}
	g, err := manifests.NewGraph(t0, entries, 0)
	if err != nil {
		t.Fatal(err)
	}
	path, s := packed(t, chunkPlan(t, g), dedupe.Options{Jobs: 2})
	adds(t, s)
	comesBack(t, opened(t, path), g)
}

func TestNothingToOpen(t *testing.T) {
	b := fixtures.NewBlobs()
	content, stream := fixtures.OddGzip(10_000)
	g := graphOf(t, counted(b, true), []manifests.Root{blobImage(b, "odd:1", ocispec.MediaTypeImageLayerGzip, stream, digest.FromBytes(content))})
	path, s := packed(t, chunkPlan(t, g), dedupe.Options{})
	adds(t, s)
	if s.Totals.Open != 0 || s.Temp != 0 {
		t.Errorf("summary %+v", s)
	}
	if info := opened(t, path).Info(); len(info.Features) != 0 {
		t.Errorf("info %+v", info)
	}
	comesBack(t, opened(t, path), g)
}

func TestPackedDeltas(t *testing.T) {
	for _, compression := range []manifests.Compression{manifests.Uncompressed, manifests.Gzip} {
		b := fixtures.NewBlobs()
		have := b.Graph(t, fixtures.Series(b, 2, compression)...)
		roots := fixtures.Series(b, 4, manifests.Uncompressed)
		g := b.Graph(t, roots...)
		base, err := dedupe.NewBase(t0, have, dedupe.BaseOptions{ID: dedupe.BaseID{Name: "old"}})
		if err != nil {
			t.Fatal(err)
		}
		empty, err := dedupe.NewBase(t0, b.Graph(t, fixtures.Sample(b)[0]), dedupe.BaseOptions{Shallow: true})
		if err != nil {
			t.Fatal(err)
		}
		whole, _ := packed(t, chunkPlan(t, g), dedupe.Options{})
		path, s := packed(t, chunkPlan(t, g, empty, base), dedupe.Options{})
		adds(t, s)
		st, err := os.Stat(whole)
		if err != nil || s.Size > st.Size()*3/4 || s.Totals.SavedByBase < s.Totals.Bytes/4 {
			t.Errorf("delta of %d bytes, whole %d: %+v", s.Size, st.Size(), s.Totals)
		}
		if compression == manifests.Uncompressed && s.Totals.Needed == 0 {
			t.Errorf("no layer is left out: %+v", s.Totals)
		}
		bundle := opened(t, path, have)
		if n := bundle.Needs(); n == nil || len(n.Bases) != 1 || n.Bases[0].Name != "old" {
			t.Errorf("needs %+v", n)
		}
		comesBack(t, bundle, g)

		// The receipt serves as a base in turn, for all that went before.
		next := b.Graph(t, fixtures.Series(b, 5, manifests.Uncompressed)[2:]...)
		path, s = packed(t, chunkPlan(t, next, s.Receipt), dedupe.Options{})
		if s.Totals.Needed == 0 || s.Totals.Open == 0 || s.Size > st.Size()/3 {
			t.Errorf("second delta of %d bytes: %+v", s.Size, s.Totals)
		}
		comesBack(t, opened(t, path, g), next)
	}
}

func TestFailedChunkPack(t *testing.T) {
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
		b := fixtures.NewBlobs()
		g := b.Graph(t, fixtures.Series(b, 2, manifests.Uncompressed)...)
		p := chunkPlan(t, g)
		ctx, kind := spoil(b, g.Blobs()[1].Digest)
		dir := t.TempDir()
		if _, err := p.WriteFile(ctx, filepath.Join(dir, "x"), dedupe.Options{}); !fixtures.Matches(err, kind) {
			t.Errorf("%s: %v, want %q", what, err, kind)
		}
		if _, err := p.Write(ctx, io.Discard, dedupe.Options{SpoolDir: dir}); !fixtures.Matches(err, kind) {
			t.Errorf("%s to a pipe: %v, want %q", what, err, kind)
		}
		if _, err := p.Estimate(ctx, dedupe.Options{}); !fixtures.Matches(err, kind) {
			t.Errorf("%s estimated: %v, want %q", what, err, kind)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left %v", what, left)
		}
	}
}

func TestUnfinishedBundleIsGoneOnWith(t *testing.T) {
	for _, mode := range []dedupe.Mode{dedupe.ModeChunk, dedupe.ModeLayer} {
		b := fixtures.NewBlobs()
		g := b.Graph(t, append(fixtures.Series(b, 1, manifests.Gzip), fixtures.Series(b, 2, manifests.Uncompressed)[1])...)
		p, err := dedupe.NewPlan(g, dedupe.PlanOptions{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		_, whole := packed(t, p, dedupe.Options{})
		blobs := g.Blobs()
		last := blobs[len(blobs)-1].Digest // uncompressed
		b.Remove(last)
		dir := t.TempDir()
		path := filepath.Join(dir, "x")
		var missing *manifests.NotFoundError
		o := dedupe.Options{Jobs: 1, Keep: func(err error) bool { return errors.As(err, &missing) }}
		if _, err := p.WriteFile(t0, path, o); !errors.As(err, &missing) {
			t.Fatalf("%s: %v", mode, err)
		}
		want := map[dedupe.Mode][]string{dedupe.ModeLayer: {atomicfile.TempPath(path)}, dedupe.ModeChunk: {dedupe.BlobsPath(path), atomicfile.TempPath(path)}}
		if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || !slices.Equal(left, want[mode]) {
			t.Fatalf("%s: left %v, %v", mode, left, err)
		}
		b.Heal(last)
		if mode == dedupe.ModeChunk {
			for _, d := range blobs[:3] { // of gzip: not asked for again
				b.Remove(d.Digest)
			}
		}
		got, err := p.WriteFile(t0, path, o)
		if err != nil || got.Digest != whole.Digest || got.Size != whole.Size || got.Resumed == 0 {
			t.Errorf("%s: %+v, %v", mode, got, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("%s: left %v, %v", mode, left, err)
		}
		if _, err := p.WriteFile(t0, path, o); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// TestSegmentsAreNotKept: an unfinished bundle holds what the next run takes
// over, carried blobs, and no more.
func TestSegmentsAreNotKept(t *testing.T) {
	b := fixtures.NewBlobs()
	var layers [][]byte
	for i := range uint64(4) {
		layers = append(layers, fixtures.Tar(fixtures.File{Name: "f", Body: fixtures.Noise(i, 2<<20)}))
	}
	g := b.Graph(t, image(b, "x:1", layers...))
	p := chunkPlan(t, g)
	blobs := g.Blobs()
	b.Remove(blobs[len(blobs)-1].Digest)
	path := filepath.Join(t.TempDir(), "x")
	o := dedupe.Options{Jobs: 1, SpoolLimit: 2 << 20, Keep: func(error) bool { return true }}
	if _, err := p.WriteFile(t0, path, o); err == nil {
		t.Fatal("packed what is not there")
	}
	st, err := os.Stat(atomicfile.TempPath(path))
	if err != nil || st.Size() > 64<<10 {
		t.Errorf("kept %v, %v", st, err)
	}
}
