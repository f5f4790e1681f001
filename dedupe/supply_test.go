package dedupe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

func TestBasesInAnyCompression(t *testing.T) {
	for seed := range uint64(12) {
		rng := newRand(seed)
		d := randomDraft(rng, 1+rng.IntN(4), 1+rng.IntN(4), 1+rng.IntN(3))
		h := d.open(t, OpenOptions{Jobs: 2})
		compression := []manifests.Compression{manifests.Gzip, manifests.Zstd, manifests.Uncompressed}[seed%3]
		h.Supply(holder(t, fixtures.NewBlobs(), compression, d.bases...))
		if err := h.Complete(); err != nil {
			t.Errorf("%s: %v", compression, err)
		}
		h.checkAll(t)
	}
}

// lender counts what is asked of it, and opens layers where it is told to.
type lender struct {
	*fixtures.Blobs
	fetched atomic.Int64
	opened  atomic.Int64
	open    func(ctx context.Context, l manifests.Layer) (io.ReadCloser, error)
}

func (s *lender) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	s.fetched.Add(1)
	return s.Blobs.Fetch(ctx, d)
}

func (s *lender) OpenLayer(ctx context.Context, l manifests.Layer) (io.ReadCloser, error) {
	s.opened.Add(1)
	return s.open(ctx, l)
}

func (s *lender) graph(t testing.TB, roots ...manifests.Root) *manifests.Graph {
	t.Helper()
	g, err := manifests.NewGraph(context.Background(), manifests.Entries(s, roots), 0)
	if err != nil {
		t.Fatal(err)
	}
	s.fetched.Store(0)
	return g
}

func TestEachBaseLayerIsReadOnce(t *testing.T) {
	d := randomDraft(newRand(2), 5, 6, 2)
	for _, compressed := range []bool{true, false} {
		h := d.open(t, OpenOptions{})
		s := &lender{Blobs: fixtures.NewBlobs()}
		s.open = func(_ context.Context, l manifests.Layer) (io.ReadCloser, error) {
			if compressed {
				return nil, manifests.ErrCompressed
			}
			raw := fixtures.Decompress(s.Bytes(l.Blob.Digest), l.Compression)
			return manifests.BytesReader(raw, ocispec.Descriptor{Digest: l.DiffID, Size: int64(len(raw))}), nil
		}
		h.Supply(s.graph(t, holder(t, s.Blobs, manifests.Gzip, d.bases...).Roots()...))
		if s.opened.Load()+s.fetched.Load() != 0 {
			t.Error("Supply read something")
		}
		h.checkAll(t)
		want := [2]int64{2, 0}
		if compressed {
			want[1] = 2
		}
		if got := [2]int64{s.opened.Load(), s.fetched.Load()}; got != want {
			t.Errorf("compressed %v: layers opened and fetched %v, want %v", compressed, got, want)
		}
	}
}

func TestMissingBase(t *testing.T) {
	d := randomDraft(newRand(3), 3, 3, 2)
	whole := whole(0, 100)
	d.tars = append(d.tars, whole, recipe.Tar{Runs: []recipe.Run{{Body: 9}}, Bodies: []recipe.Extent{{Source: 1, Length: 9}}})
	d.prefixes = nil
	blob := fixtures.NewBlobs()
	left := blob.Add(ocispec.MediaTypeImageLayerGzip, []byte("left out"))
	d.blobs = []ocispec.Descriptor{{Digest: left.Digest, Size: left.Size}}
	id := digest.FromString("identity")
	d.origin = []BaseID{{Name: "site\x1b.imgpack", Date: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), Digest: id}}
	h := d.open(t, OpenOptions{})
	check := func(what string, err error, text string) {
		t.Helper()
		var base *MissingBaseError
		var none *manifests.NotFoundError
		if !errors.As(err, &base) || !errors.As(err, &none) || err.Error() != text {
			t.Errorf("%s: %v\nwant %s", what, err, text)
		}
	}
	text := `site.imgpack is a delta; it leans on site\x1b.imgpack of 2026-11-22 (` + string(id) + "), of which 1 blob and 2 layers are missing here"
	check("nothing supplied", h.Complete(), text)
	_, err := h.read(context.Background(), len(d.tars)-1)
	check("a tar of it", err, text)
	_, _, err = h.contents.fetchNeeded(context.Background(), d.blobs[0])
	check("a blob of it", err, text)
	_, _, err = h.contents.openNeeded(context.Background(), manifests.Layer{Blob: left})
	check("a layer of it", err, text)
	if got := h.restored(t, len(d.tars)-2); !bytes.Equal(got, h.want[len(d.tars)-2]) {
		t.Error("a tar that leans on nothing does not come")
	}
	if n := h.Needs(); len(n.Layers) != 2 || len(n.Blobs) != 1 || !slices.Equal(n.Bases, d.origin) {
		t.Errorf("it says it needs %v", n)
	}

	h.Supply(holder(t, blob, manifests.Zstd, d.bases[1]))
	text = strings.Replace(text, "2 layers", "1 layer", 1)
	check("one supplied", h.Complete(), text)
	h.Supply(holder(t, fixtures.NewBlobs(), manifests.Gzip, d.bases[0]))
	text = strings.Replace(text, "1 blob and 1 layer are", "1 blob is", 1)
	check("two supplied", h.Complete(), text)
	if len(h.contents.suppliedBlobs()) != 0 {
		t.Error("a blob is there that was not supplied")
	}
	h.checkAll(t)
}

func TestMissingBaseText(t *testing.T) {
	for want, e := range map[string]*MissingBaseError{
		"x is a delta; it leans on images it does not name, of which 2 blobs are missing here":          {Blobs: 2},
		"x is a delta; it leans on images, of which 1 layer is missing here":                            {Layers: 1, Bases: []BaseID{{}}},
		"x is a delta; it leans on a, b, c, d, e and 2 more, of which 3 layers are missing here":        {Layers: 3, Bases: named("a", "b", "c", "d", "e", "f", "g")},
		"x is a delta; it leans on a of 2026-01-02 and b, of which 1 blob and 1 layer are missing here": {Layers: 1, Blobs: 1, Bases: append([]BaseID{{Name: "a", Date: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)}}, named("b")...)},
	} {
		if e.Bundle = "x"; e.Error() != want {
			t.Errorf("%s\nwant %s", e, want)
		}
	}
}

func named(names ...string) (all []BaseID) {
	for _, n := range names {
		all = append(all, BaseID{Name: n})
	}
	return all
}

func TestNeededBlobs(t *testing.T) {
	d := randomDraft(newRand(4), 2, 1, 0)
	s := &lender{Blobs: fixtures.NewBlobs()}
	tar := fixtures.Tar(fixtures.File{Name: "f"})
	g := s.graph(t, holder(t, s.Blobs, manifests.Gzip, tar).Roots()...)
	blob := g.Blobs()[0]
	d.blobs = []ocispec.Descriptor{{Digest: blob.Digest, Size: blob.Size}}
	h := d.open(t, OpenOptions{})
	h.Supply(g)
	if err := h.Complete(); err != nil {
		t.Error(err)
	}
	if got := h.contents.suppliedBlobs(); !slices.Equal(got, []digest.Digest{blob.Digest}) {
		t.Errorf("supplied: %v", got)
	}
	r, ok, err := h.contents.fetchNeeded(context.Background(), blob)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if got, err := io.ReadAll(r); err != nil || digest.FromBytes(got) != blob.Digest {
		t.Errorf("the blob comes as %q, %v", got, err)
	}
	layer := g.Images(g.Roots()[0])[0].Layers[0]
	s.open = func(context.Context, manifests.Layer) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(tar)), nil
	}
	r, ok, err = h.contents.openNeeded(context.Background(), layer)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, tar) {
		t.Errorf("the layer comes as %q, %v", got, err)
	}
	if _, ok, err := h.contents.fetchNeeded(context.Background(), ocispec.Descriptor{Digest: digest.FromString("another")}); ok || err != nil {
		t.Errorf("another blob: %v %v", ok, err)
	}
	blob.Size++
	var bad *manifests.ContentError
	if _, ok, err := h.contents.fetchNeeded(context.Background(), blob); !ok || !errors.As(err, &bad) || bad.Kind != manifests.KindSize {
		t.Errorf("another size: %v %v", ok, err)
	}
	if _, _, err := h.contents.openNeeded(context.Background(), manifests.Layer{Blob: layer.Blob}); err != nil {
		t.Error(err)
	}

	plain := d.open(t, OpenOptions{}) // from a source that cannot open
	plain.Supply(s.Blobs.Graph(t, g.Roots()...))
	if _, ok, err := plain.contents.openNeeded(context.Background(), layer); !ok || !errors.Is(err, manifests.ErrCompressed) {
		t.Errorf("%v %v", ok, err)
	}
}

// forged is an image whose config gives its one layer another diffID.
func forged(b *fixtures.Blobs, tar []byte, diffID digest.Digest) ocispec.Descriptor {
	layer, _ := b.Layer(fixtures.LayerSpec{Tar: tar}, false)
	config := ocispec.Image{RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}}
	config.OS, config.Architecture = "linux", "amd64"
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: b.AddJSON(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{layer},
	}
	return b.AddJSON(m.MediaType, m)
}

func TestBaseThatLies(t *testing.T) {
	d := randomDraft(newRand(5), 2, 2, 1)
	d.tars = []recipe.Tar{{Runs: []recipe.Run{{Body: 9}}, Bodies: []recipe.Extent{{Source: 1, Length: 9}}}}
	for _, c := range []struct {
		what string
		kind manifests.Kind
		g    func(b *fixtures.Blobs) *manifests.Graph
	}{
		{"another tar under its diffID", manifests.KindDiffID, func(b *fixtures.Blobs) *manifests.Graph {
			return b.Graph(t, fixtures.Root("base:a", forged(b, append([]byte("x"), d.bases[0]...), digest.FromBytes(d.bases[0]))))
		}},
		{"a blob that was damaged", manifests.KindDigest, func(b *fixtures.Blobs) *manifests.Graph {
			g := holder(t, b, manifests.Uncompressed, d.bases...)
			b.Corrupt(g.Blobs()[0].Digest, func(p []byte) []byte { p = bytes.Clone(p); p[len(p)-1] ^= 1; return p })
			return g
		}},
	} {
		h := d.open(t, OpenOptions{})
		h.Supply(c.g(fixtures.NewBlobs()))
		for range 2 {
			got, err := h.read(context.Background(), 0)
			var bad *manifests.ContentError
			if len(got) > 0 || !errors.As(err, &bad) || bad.Kind != c.kind || !strings.HasPrefix(err.Error(), "base layer of base:a: ") || !strings.Contains(err.Error(), "sha256:") {
				t.Errorf("%s: %d bytes, %v", c.what, len(got), err)
			}
		}
	}
}

func TestRecipesThatWantMoreThanThereIs(t *testing.T) {
	d := randomDraft(newRand(6), 1, 1, 1)
	n := int64(len(d.bases[0]))
	tar := recipe.Tar{Runs: []recipe.Run{{Body: 100}}, Bodies: []recipe.Extent{{Source: 1, Offset: n - 10, Length: 100}}}
	d.tars, d.prefixes = []recipe.Tar{whole(0, 100)}, nil
	d.contents, d.joined = [][]byte{words(newRand(1), 100)}, nil
	d.recipes, _ = recipe.Encode([]recipe.Tar{tar}, make([][]recipe.Extent, 1))
	h := d.open(t, OpenOptions{})
	h.Supply(holder(t, fixtures.NewBlobs(), manifests.Gzip, d.bases...))
	wantBad(t, h, 0, "site.imgpack: its recipes want byte")
}

func TestBaseLayerThatNobodyWaitsForAnyMore(t *testing.T) {
	d := randomDraft(newRand(7), 2, 2, 1)
	h := d.open(t, OpenOptions{})
	s := &lender{Blobs: fixtures.NewBlobs()}
	begun := make(chan struct{})
	s.open = func(ctx context.Context, l manifests.Layer) (io.ReadCloser, error) {
		if s.opened.Load() > 1 {
			return nil, manifests.ErrCompressed
		}
		close(begun)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	h.Supply(s.graph(t, holder(t, s.Blobs, manifests.Gzip, d.bases...).Roots()...))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { _, err := h.read(ctx, 1); done <- err }()
	select {
	case <-begun:
		cancel()
	case err := <-done:
		t.Fatalf("it did not need its base: %v", err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	eventually(t, "the work to end", func() bool {
		h.contents.tasks.mu.Lock()
		defer h.contents.tasks.mu.Unlock()
		return len(h.contents.tasks.running) == 0
	})
	h.checkAll(t)
}

// chained is a source of images whose layers a bundle puts together.
type chained struct {
	docs *fixtures.Blobs
	from *Bundle
}

func (s *chained) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if _, ok := s.from.tars[d.Digest]; ok {
		return s.from.Fetch(ctx, d)
	}
	return s.docs.Fetch(ctx, d)
}

func (s *chained) OpenLayer(ctx context.Context, l manifests.Layer) (io.ReadCloser, error) {
	return s.from.OpenLayer(ctx, l)
}

func (h *handmade) graph(t *testing.T) *manifests.Graph {
	t.Helper()
	s := &lender{Blobs: fixtures.NewBlobs()}
	roots := holder(t, s.Blobs, manifests.Uncompressed, h.want...).Roots()
	g, err := manifests.NewGraph(context.Background(), manifests.Entries(&chained{s.Blobs, h.Bundle}, roots), 0)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestDeltasOnDeltas(t *testing.T) {
	rng := newRand(8)
	first := randomDraft(rng, 3, 2, 0)
	one := first.open(t, OpenOptions{})
	second := randomDraft(rng, 2, 2, 0)
	second.bases = one.want
	second.prefixes = [][]recipe.Extent{{{Source: 2, Length: int64(len(one.want[1]))}}, nil}
	second.tars[0].Runs = append(second.tars[0].Runs, recipe.Run{Body: int64(len(one.want[1]))})
	second.tars[0].Bodies = append(second.tars[0].Bodies, recipe.Extent{Source: 2, Length: int64(len(one.want[1]))})
	two := second.open(t, OpenOptions{})
	third := randomDraft(rng, 2, 1, 0)
	third.bases = two.want
	third.prefixes = [][]recipe.Extent{{{Source: 1, Offset: 1, Length: int64(len(two.want[0]) - 1)}}, {{Source: 2, Length: 1}}}
	three := third.open(t, OpenOptions{})

	three.Supply(two.graph(t))
	if err := three.Complete(); err != nil {
		t.Error(err)
	}
	var base *MissingBaseError
	if _, err := three.read(context.Background(), 0); !errors.As(err, &base) || base.Layers != 2 {
		t.Errorf("without the first: %v", err)
	}
	two.Supply(one.graph(t))
	three.checkAll(t)
	two.checkAll(t)
}

// Two bundles that lean on one another end in an error, not in each other.
func TestBasesInACircle(t *testing.T) {
	d := randomDraft(newRand(9), 1, 1, 0)
	tar := d.tar(0)
	d.bases = [][]byte{tar}
	n := int64(len(tar))
	d.tars = []recipe.Tar{{Runs: []recipe.Run{{Body: n}}, Bodies: []recipe.Extent{{Source: 1, Length: n}}}}
	one, two := d.open(t, OpenOptions{}), d.open(t, OpenOptions{})
	one.Supply(two.graph(t))
	two.Supply(one.graph(t))
	var none *manifests.NotFoundError
	if _, err := one.read(context.Background(), 0); !errors.As(err, &none) {
		t.Errorf("%v", err)
	}

	blobs := fixtures.NewBlobs()
	g := holder(t, blobs, manifests.Gzip, tar)
	blob := g.Blobs()[0]
	d.blobs = []ocispec.Descriptor{{Digest: blob.Digest, Size: blob.Size}}
	one, two = d.open(t, OpenOptions{}), d.open(t, OpenOptions{})
	for _, pair := range [][2]*handmade{{one, two}, {two, one}} {
		s := manifests.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
			if d.Digest == blob.Digest {
				return pair[1].Fetch(ctx, d)
			}
			return blobs.Fetch(ctx, d)
		})
		g, err := manifests.NewGraph(context.Background(), []manifests.Entry{{Source: s, Root: g.Roots()[0]}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		pair[0].Supply(g)
	}
	if _, err := one.Fetch(context.Background(), blob); !errors.As(err, &none) {
		t.Errorf("%v", err)
	}
}

func TestRanges(t *testing.T) {
	for seed := range uint64(50) {
		rng := newRand(seed)
		limit := 4 + rng.IntN(60)
		r := ranges{gap: int64(rng.IntN(5))}
		var wanted []wantedRange
		for range 400 {
			from := int64(rng.IntN(100_000))
			x := wantedRange{from: from, to: from + 1 + int64(rng.IntN(50))}
			wanted = append(wanted, x)
			r.add(x.from, x.to, limit)
			if len(r.list) > limit {
				t.Fatalf("%d ranges are more than %d", len(r.list), limit)
			}
		}
		r.merge()
		for i, x := range r.list {
			if i > 0 && x.from-r.list[i-1].to <= r.gap || x.from >= x.to {
				t.Errorf("range %d, %v, after %v", i, x, r.list[i-1])
			}
		}
		for _, w := range wanted {
			if !slices.ContainsFunc(r.list, func(x wantedRange) bool { return x.from <= w.from && w.to <= x.to }) {
				t.Fatalf("%v is in none of %v", w, r.list)
			}
		}
	}
}
