package dedupe

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/segment"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/recompress"
	"github.com/imgpack/imgpack/manifests"
)

// draft is what a bundle of chunk mode holds, without the container.
type draft struct {
	contents [][]byte          // of the segments
	prefixes [][]recipe.Extent // of the segments; nil: none at all
	tars     []recipe.Tar
	bases    [][]byte // the tars of base layers
	blobs    []ocispec.Descriptor
	origin   []BaseID
	level    segment.Level
	recipes  []byte // instead of those of tars
	streams  []draftStream

	joined []byte // the contents
}

// draftStream is a compressed layer that is given back from a tar.
type draftStream struct {
	tar    int
	blob   []byte
	recipe []byte
}

// compressed adds a stream of each tar, as Go's encoder makes it.
func (s *draft) compressed(level int) *draft {
	for i := range s.tars {
		blob := fixtures.GoGzip(level)(s.tar(i))
		recipe, _, err := recompress.Find(context.Background(), bytes.NewReader(blob), nil, recompress.Options{Spend: -1})
		if err != nil {
			panic(err)
		}
		s.streams = append(s.streams, draftStream{i, blob, recipe})
	}
	return s
}

// source gives the whole of a source of extents.
func (s *draft) source(i int) []byte {
	if i == 0 {
		if s.joined == nil {
			s.joined = bytes.Join(s.contents, nil)
		}
		return s.joined
	}
	return s.bases[i-1]
}

func (s *draft) join(list []recipe.Extent) []byte {
	var out []byte
	for _, e := range list {
		out = append(out, s.source(e.Source)[e.Offset:e.Offset+e.Length]...)
	}
	return out
}

// tar puts a tar together as the specification says.
func (s *draft) tar(i int) []byte {
	t := s.tars[i]
	heads, bodies := s.join(t.Heads), s.join(t.Bodies)
	var out []byte
	for _, r := range t.Runs {
		out = append(append(out, heads[:r.Head]...), bodies[:r.Body]...)
		heads, bodies = heads[r.Head:], bodies[r.Body:]
	}
	return out
}

// handmade is an open bundle of a draft.
type handmade struct {
	*Bundle
	file *memory
	want [][]byte // its tars
}

// memory is a file that counts how often each offset is read from, and asks
// before it is.
type memory struct {
	data []byte
	mu   sync.Mutex
	from map[int64]int
	ask  func(offset int64) error
}

func (m *memory) ReadAt(p []byte, at int64) (int, error) {
	m.mu.Lock()
	m.from[at]++
	ask := m.ask
	m.mu.Unlock()
	if ask != nil {
		if err := ask(at); err != nil {
			return 0, err
		}
	}
	n := copy(p, m.data[min(at, int64(len(m.data))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) before(ask func(int64) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ask = ask
}

func (m *memory) reads(s storedBlob) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.from[s.section.offset]
}

// open makes the bundle, as its reader would.
func (s *draft) open(t testing.TB, o OpenOptions) *handmade {
	t.Helper()
	h := &handmade{file: &memory{from: map[int64]int{}}}
	b := &Bundle{r: h.file, name: "site.imgpack", catalog: &catalog{Bases: s.origin}, tars: map[digest.Digest]int{}, streams: map[digest.Digest]int{}}
	put := func(blob []byte) storedBlob {
		d := ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))}
		at := int64(len(h.file.data))
		h.file.data = append(h.file.data, blob...)
		return storedBlob{desc: d, section: section{offset: at, size: d.Size}}
	}
	prefixes := s.prefixes
	if prefixes == nil {
		prefixes = make([][]recipe.Extent, len(s.contents))
	}
	encoder := segment.NewEncoder(s.level, 2)
	for i, p := range s.contents {
		blob, err := encoder.Encode(p, s.join(prefixes[i]))
		if err != nil {
			t.Fatal(err)
		}
		b.segments = append(b.segments, put(blob))
		b.catalog.Segments = append(b.catalog.Segments, int64(len(p)))
	}
	for i := range s.tars {
		tar := s.tar(i)
		h.want = append(h.want, tar)
		b.tars[digest.FromBytes(tar)] = i
		b.catalog.Tars = append(b.catalog.Tars, tarEntry{digest.FromBytes(tar), int64(len(tar))})
	}
	raw := s.recipes
	if raw == nil {
		var err error
		if raw, err = recipe.Encode(s.tars, prefixes); err != nil {
			t.Fatal(err)
		}
	}
	b.recipes = put(raw)
	var recipes []byte
	for i, x := range s.streams {
		d := digest.FromBytes(x.blob)
		b.streams[d] = i
		b.catalog.Streams = append(b.catalog.Streams, streamEntry{d, int64(len(x.blob)), b.catalog.Tars[x.tar].Digest, int64(len(x.recipe))})
		recipes = append(recipes, x.recipe...)
	}
	b.streamRecipes = put(recipes)
	b.catalog.Needs = s.needs()
	if o.SpoolDir == "" {
		o.SpoolDir = t.TempDir()
	}
	b.contents = newContents(b, o)
	t.Cleanup(func() {
		if err := b.contents.Close(); err != nil {
			t.Error(err)
		}
	})
	h.Bundle = b
	return h
}

func (s *draft) needs() *Needs {
	if len(s.bases)+len(s.blobs) == 0 {
		return nil
	}
	n := &Needs{Bases: s.origin, Blobs: s.blobs}
	for _, tar := range s.bases {
		d := digest.FromBytes(tar)
		n.Layers = append(n.Layers, NeededLayer{DiffID: d, Digest: d, Size: int64(len(tar)), MediaType: ocispec.MediaTypeImageLayer})
	}
	return n
}

// restored reads a tar to its end.
func (h *handmade) restored(t testing.TB, i int) []byte {
	t.Helper()
	got, err := h.read(context.Background(), i)
	if err != nil {
		t.Fatalf("tar %d: %v", i, err)
	}
	return got
}

func (h *handmade) read(ctx context.Context, i int) ([]byte, error) {
	r, err := h.contents.openTar(ctx, i)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return got, err
}

func (h *handmade) checkAll(t testing.TB) {
	t.Helper()
	for i := range h.want {
		if !bytes.Equal(h.restored(t, i), h.want[i]) {
			t.Errorf("tar %d came back otherwise", i)
		}
	}
}

// words are bytes that compress somewhat and differ from place to place.
func words(rng *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = "etaoin shrdlu\x00\xff"[rng.IntN(15)]
	}
	return p
}

// randomDraft makes a draft in which every byte of the contents is used.
func randomDraft(rng *rand.Rand, segments, tars, bases int) *draft {
	s := &draft{level: segment.Fast}
	for range segments {
		s.contents = append(s.contents, words(rng, 1+rng.IntN(90_000)))
	}
	for range bases {
		s.bases = append(s.bases, words(rng, 1+rng.IntN(300_000)))
	}
	total := len(s.source(0))
	extents := func(n int) (list []recipe.Extent) {
		for range n {
			source := rng.IntN(bases + 1)
			size := len(s.source(source))
			if size == 0 {
				continue
			}
			at := rng.IntN(size)
			length := 1 + rng.IntN(min(size-at, []int{600, 20_000, 1 << 30}[rng.IntN(3)]))
			list = append(list, recipe.Extent{Source: source, Offset: int64(at), Length: int64(length)})
		}
		return list
	}
	for i := range tars {
		t := recipe.Tar{Heads: extents(rng.IntN(8)), Bodies: extents(rng.IntN(12))}
		if i == tars-1 {
			t.Bodies = append(t.Bodies, recipe.Extent{Offset: 0, Length: int64(total)})
		}
		t.Runs = runs(rng, len(s.join(t.Heads)), len(s.join(t.Bodies)))
		s.tars = append(s.tars, t)
	}
	if bases > 0 {
		for range segments {
			var prefix []recipe.Extent
			for _, e := range extents(rng.IntN(4)) {
				if e.Source > 0 {
					prefix = append(prefix, e)
				}
			}
			s.prefixes = append(s.prefixes, prefix)
		}
	}
	return s
}

// runs splits heads and bodies at random.
func runs(rng *rand.Rand, heads, bodies int) (list []recipe.Run) {
	for heads+bodies > 0 {
		r := recipe.Run{Head: int64(min(heads, rng.IntN(2000))), Body: int64(min(bodies, rng.IntN(30_000)))}
		heads, bodies = heads-int(r.Head), bodies-int(r.Body)
		list = append(list, r)
	}
	return list
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 2)) }

// whole is a tar that is a run of the contents.
func whole(from, to int) recipe.Tar {
	n := int64(to - from)
	return recipe.Tar{Runs: []recipe.Run{{Body: n}}, Bodies: []recipe.Extent{{Offset: int64(from), Length: n}}}
}

// eventually waits for what another goroutine does.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for range 10_000 {
		if is() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

// holder is a graph of one image for every layer, in the given compression.
func holder(t testing.TB, b *fixtures.Blobs, c manifests.Compression, tars ...[]byte) *manifests.Graph {
	t.Helper()
	var roots []manifests.Root
	for i, tar := range tars {
		d := b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Tar: tar, Compression: c}}})
		roots = append(roots, fixtures.Root("base:"+string(rune('a'+i)), d))
	}
	return b.Graph(t, roots...)
}
