package dedupe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe/internal/split"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

var testID = BaseID{Name: "site.imgpack", Date: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Digest: digest.FromString("identity")}

func graphOf(t testing.TB, f manifests.Fetcher, roots []manifests.Root) *manifests.Graph {
	t.Helper()
	g, err := manifests.NewGraph(context.Background(), manifests.Entries(f, roots), 0)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func baseOf(t testing.TB, g *manifests.Graph, o BaseOptions) *Base {
	t.Helper()
	o.ID = testID
	b, err := NewBase(context.Background(), g, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func receiptOf(t testing.TB, b *Base) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := b.WriteReceipt(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// opening is a store that gives the tars of layers that are not compressed, or
// of all.
type opening struct {
	*fixtures.Blobs
	all  bool
	mu   sync.Mutex
	seen []digest.Digest
}

func (o *opening) OpenLayer(_ context.Context, l manifests.Layer) (io.ReadCloser, error) {
	if l.Compression != manifests.Uncompressed && !o.all {
		return nil, manifests.ErrCompressed
	}
	o.mu.Lock()
	o.seen = append(o.seen, l.DiffID)
	o.mu.Unlock()
	return io.NopCloser(bytes.NewReader(fixtures.Decompress(o.Bytes(l.Blob.Digest), l.Compression))), nil
}

// find returns the first of places.
func (b *Base) find(sum split.Sum, length int) (layer int, offset int64, ok bool) {
	list := b.places(sum, length)
	if len(list) == 0 {
		return 0, 0, false
	}
	c := b.chunks[list[0]]
	return int(c.layer), c.offset, true
}

// checkBase proves that every chunk of every layer is found where it is.
func checkBase(t *testing.T, f *fixtures.Blobs, g *manifests.Graph, b *Base) {
	t.Helper()
	layers := layersOf(g)
	if b.Layers() != len(layers) || b.Blobs() != len(g.Blobs()) || b.Images() != len(g.Roots()) {
		t.Fatalf("%d layers, %d blobs, %d images", b.Layers(), b.Blobs(), b.Images())
	}
	var tars [][]byte
	for i, l := range layers {
		want := NeededLayer{l.DiffID, l.Blob.Digest, l.Blob.Size, l.Blob.MediaType}
		if j, ok := b.hasLayer(l.DiffID); !ok || j != i || b.entries[i] != want || !b.Has(l.Blob.Digest) {
			t.Errorf("layer %d is %+v at %d, want %+v", i, b.entries[i], j, want)
		}
		tars = append(tars, fixtures.Decompress(f.Bytes(l.Blob.Digest), l.Compression))
	}
	chunks := 0
	for i, tar := range tars {
		var c collector
		if err := split.Tar(bytes.NewReader(tar), &c); err != nil || c.at != int64(len(tar)) {
			t.Fatal(err, c.at)
		}
		chunks += len(c.chunks)
		if len(b.of(i)) != len(c.chunks) {
			t.Errorf("layer %d has %d chunks, want %d", i, len(b.of(i)), len(c.chunks))
		}
		for _, want := range c.chunks {
			layer, offset, ok := b.find(want.sum, int(want.length))
			if !ok || layer > i || layer == i && offset > want.offset ||
				!bytes.Equal(tars[layer][offset:][:want.length], tar[want.offset:][:want.length]) {
				t.Fatalf("chunk at %d of layer %d: found at %d of %d, %v", want.offset, i, offset, layer, ok)
			}
			if _, _, ok := b.find(want.sum, int(want.length)+1); ok {
				t.Error("found with another length")
			}
		}
	}
	if b.Chunks() != chunks {
		t.Errorf("%d chunks, want %d", b.Chunks(), chunks)
	}
	if _, _, ok := b.find(split.SumOf([]byte("nowhere")), 7); ok {
		t.Error("found what is nowhere")
	}
}

func TestNewBaseFindsEveryChunk(t *testing.T) {
	for seed := range int64(2) {
		blobs := fixtures.NewBlobs()
		roots := append(fixtures.Random(blobs, seed, 6), fixtures.Sample(blobs)...)
		for _, c := range []manifests.Compression{manifests.Uncompressed, manifests.Gzip} {
			roots = append(roots, fixtures.Series(blobs, 2, c)...)
		}
		source := &opening{Blobs: blobs}
		g := graphOf(t, source, roots)
		b := baseOf(t, g, BaseOptions{})
		checkBase(t, blobs, g, b)
		for _, id := range source.seen {
			if n := len(slices.DeleteFunc(slices.Clone(source.seen), func(d digest.Digest) bool { return d != id })); n > 1 {
				t.Errorf("layer %s is read %d times", id, n)
			}
		}
		want := receiptOf(t, b)
		for _, jobs := range []int{1, 7} {
			for _, f := range []manifests.Fetcher{blobs, &opening{Blobs: blobs, all: true}} {
				if !bytes.Equal(receiptOf(t, baseOf(t, graphOf(t, f, roots), BaseOptions{Jobs: jobs})), want) {
					t.Errorf("%d jobs and %T make another base", jobs, f)
				}
			}
		}
	}
}

// TestHasLayer: a base made of images knows what lies on what, a receipt does
// not.
func TestHasLayer(t *testing.T) {
	blobs := fixtures.NewBlobs()
	image := func(texts ...string) manifests.Root {
		var layers []fixtures.LayerSpec
		for _, text := range texts {
			layers = append(layers, fixtures.LayerSpec{Files: []fixtures.File{{Name: text, Body: text}}})
		}
		return fixtures.Root("app:"+strings.Join(texts, "-"), blobs.Image(fixtures.ImageSpec{Layers: layers}))
	}
	b := baseOf(t, graphOf(t, blobs, []manifests.Root{image("base", "lib"), image("rebuilt")}), BaseOptions{Shallow: true})
	known, err := ReadReceipt(bytes.NewReader(receiptOf(t, b)), "receipt")
	if err != nil {
		t.Fatal(err)
	}
	root := image("rebuilt", "lib", "new")
	layers := graphOf(t, blobs, []manifests.Root{root}).Images(root)[0].Layers
	for i, want := range []bool{true, false, false} {
		if got := b.HasLayer(layers[i]); got != want {
			t.Errorf("layer %d: %v, want %v", i, got, want)
		}
		if got := known.HasLayer(layers[i]); got != (i < 2) {
			t.Errorf("layer %d by the receipt: %v", i, got)
		}
	}
}

func TestNewBaseShallow(t *testing.T) {
	blobs := fixtures.NewBlobs()
	g := graphOf(t, blobs, fixtures.Sample(blobs))
	for _, d := range g.Blobs() {
		blobs.Remove(d.Digest)
	}
	b := baseOf(t, g, BaseOptions{Shallow: true})
	if b.Blobs() != len(g.Blobs()) || b.Layers() != 0 || b.Chunks() != 0 || !b.Has(g.Blobs()[0].Digest) || b.Has(testID.Digest) {
		t.Errorf("%d blobs, %d layers, %d chunks", b.Blobs(), b.Layers(), b.Chunks())
	}
	if id := b.ID(); id.Name != testID.Name || !id.Date.Equal(testID.Date.Truncate(time.Second)) || id.Digest != testID.Digest {
		t.Errorf("%+v", id)
	}
}

func TestNewBaseProgressAddsUp(t *testing.T) {
	blobs := fixtures.NewBlobs()
	roots := fixtures.Random(blobs, 5, 8)
	for _, f := range []manifests.Fetcher{blobs, &opening{Blobs: blobs}, &opening{Blobs: blobs, all: true}} {
		var mu sync.Mutex
		told := map[digest.Digest]int64{}
		g := graphOf(t, f, roots)
		baseOf(t, g, BaseOptions{Progress: func(d ocispec.Descriptor, n int64) {
			mu.Lock()
			defer mu.Unlock()
			told[d.Digest] += n
		}})
		for _, l := range layersOf(g) {
			if told[l.Blob.Digest] != l.Blob.Size {
				t.Errorf("%T: %d bytes of %d", f, told[l.Blob.Digest], l.Blob.Size)
			}
		}
	}
}

// wrongDiffID is an image whose config gives its layer another diffID.
func wrongDiffID(b *fixtures.Blobs, c manifests.Compression) manifests.Root {
	desc := b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Compression: c, Files: []fixtures.File{{Name: "a", Body: "b"}}}}})
	_, diffID := b.Layer(fixtures.LayerSpec{Files: []fixtures.File{{Name: "a", Body: "b"}}}, false)
	img, err := manifests.LoadImage(context.Background(), b, desc)
	if err != nil {
		panic(err)
	}
	raw := bytes.Replace(img.RawConfig, []byte(diffID), []byte(digest.FromString("other")), 1)
	config := b.Add(ocispec.MediaTypeImageConfig, raw)
	m := img.Manifest
	m.Config = config
	return fixtures.Root("example.com/wrong:1", b.AddJSON(ocispec.MediaTypeImageManifest, m))
}

func TestNewBaseRefuses(t *testing.T) {
	for _, c := range []manifests.Compression{manifests.Uncompressed, manifests.Gzip, manifests.Zstd} {
		for _, bad := range []struct {
			what string
			edit func(b *fixtures.Blobs, d digest.Digest)
			want manifests.Kind
		}{
			{"a flipped bit", func(b *fixtures.Blobs, d digest.Digest) {
				b.Corrupt(d, func(raw []byte) []byte { raw[len(raw)/2] ^= 1; return raw })
			}, ""},
			{"a cut", func(b *fixtures.Blobs, d digest.Digest) {
				b.Corrupt(d, func(raw []byte) []byte { return raw[:len(raw)/2] })
			}, manifests.KindTruncated},
			{"something behind", func(b *fixtures.Blobs, d digest.Digest) {
				b.Corrupt(d, func(raw []byte) []byte { return append(raw, 0) })
			}, ""},
		} {
			blobs := fixtures.NewBlobs()
			g := graphOf(t, blobs, fixtures.Series(blobs, 2, c))
			layers := layersOf(g)
			bad.edit(blobs, layers[len(layers)-1].Blob.Digest)
			_, err := NewBase(context.Background(), g, BaseOptions{})
			var content *manifests.ContentError
			if !errors.As(err, &content) || bad.want != "" && content.Kind != bad.want || !strings.Contains(err.Error(), "sha256:") {
				t.Errorf("%s layer, %s: %v", c, bad.what, err)
			}
		}
		blobs := fixtures.NewBlobs()
		g := graphOf(t, blobs, []manifests.Root{wrongDiffID(blobs, c)})
		_, err := NewBase(context.Background(), g, BaseOptions{})
		if !fixtures.Matches(err, manifests.KindDiffID) {
			t.Errorf("%s layer, another diffID: %v", c, err)
		}
		blobs.Remove(g.Blobs()[0].Digest)
		var absent *manifests.NotFoundError
		if _, err := NewBase(context.Background(), g, BaseOptions{}); !errors.As(err, &absent) {
			t.Errorf("%s layer, absent: %v", c, err)
		}
	}
}

func TestNewBaseStops(t *testing.T) {
	blobs := fixtures.NewBlobs()
	g := graphOf(t, blobs, fixtures.Series(blobs, 6, manifests.Gzip))
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := NewBase(ctx, g, BaseOptions{Jobs: 1, Progress: func(ocispec.Descriptor, int64) { cancel() }}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := NewBase(ctx, g, BaseOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestBoundedReader(t *testing.T) {
	over := errors.New("over")
	for n := range 20 {
		for bound := range int64(20) {
			got, err := io.ReadAll(&boundedReader{in: bytes.NewReader(make([]byte, n)), left: bound, over: func() error { return over }})
			if want := error(nil); int64(n) > bound {
				want = over
				if err != want || int64(len(got)) != bound {
					t.Errorf("%d bytes of at most %d: %d, %v", n, bound, len(got), err)
				}
			} else if err != nil || len(got) != n {
				t.Errorf("%d bytes of at most %d: %d, %v", n, bound, len(got), err)
			}
		}
	}
}

func TestBaseBuilder(t *testing.T) {
	blobs := fixtures.NewBlobs()
	g := graphOf(t, blobs, fixtures.Series(blobs, 3, manifests.Uncompressed))
	whole := baseOf(t, g, BaseOptions{})
	bb := newBaseBuilder(testID, g)
	for i, l := range layersOf(g) {
		if i%2 == 0 {
			bb.addLayer(l, whole.of(i))
		} else if !bb.carryOver(whole, l) {
			t.Error("the base does not know its own layer")
		}
		bb.addLayer(l, nil) // there already
	}
	if bb.carryOver(whole, manifests.Layer{DiffID: testID.Digest}) {
		t.Error("a layer nobody has is carried over")
	}
	if !bytes.Equal(receiptOf(t, bb.base()), receiptOf(t, whole)) {
		t.Error("put together it is another base")
	}
	named := whole.WithID(BaseID{Name: strings.Repeat("\xff", 2*maxBaseText)})
	if _, err := ReadReceipt(bytes.NewReader(receiptOf(t, named)), ""); err != nil || whole.ID().Name != testID.Name {
		t.Error(err)
	}
}
