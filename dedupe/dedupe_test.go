package dedupe_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
)

var t0 = context.Background()

func plan(t testing.TB, g *manifests.Graph) *dedupe.Plan {
	t.Helper()
	p, err := dedupe.NewPlan(g, dedupe.PlanOptions{Mode: dedupe.ModeLayer})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func summary(t testing.TB, p *dedupe.Plan) *dedupe.Summary {
	t.Helper()
	s, err := p.Estimate(t0, dedupe.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func written(t testing.TB, p *dedupe.Plan) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := p.Write(t0, &out, dedupe.Options{}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRoundTrip(t *testing.T) {
	for _, seed := range []int64{0, 1, 2, 3} {
		b := fixtures.NewBlobs()
		roots := fixtures.Sample(b)
		if seed > 0 {
			roots = fixtures.Random(b, seed, 5)
		}
		g := b.Graph(t, roots...)
		p := plan(t, g)
		path := filepath.Join(t.TempDir(), "x.imgpack")
		if _, err := p.WriteFile(t0, path, dedupe.Options{}); err != nil {
			t.Fatal(err)
		}
		sameImages(t, path, p, g)
	}
}

func sameImages(t *testing.T, path string, p *dedupe.Plan, g *manifests.Graph) {
	t.Helper()
	b, err := dedupe.Open(path, dedupe.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	st, err := os.Stat(path)
	if err != nil || st.Size() != summary(t, p).Size || b.Info().Size != summary(t, p).Size {
		t.Errorf("%d bytes (%v), planned %d, info %d", st.Size(), err, summary(t, p).Size, b.Info().Size)
	}
	if b.Info().Digest != summary(t, p).Digest || b.Info().Version != 1 || b.Info().Mode != "layer" || len(b.Info().Features) != 0 {
		t.Errorf("info %+v, planned %s", b.Info(), summary(t, p).Digest)
	}
	roots, err := b.Roots(t0)
	if err != nil || len(roots) != len(g.Roots()) {
		t.Fatalf("%d roots, %v", len(roots), err)
	}
	var entries []manifests.Entry
	for i, r := range roots {
		if want := g.Roots()[i]; r.Name != want.Name || r.Descriptor.Digest != want.Descriptor.Digest || r.State() != want.State() {
			t.Errorf("root %v, want %v", r, want)
		}
		entries = append(entries, manifests.Entry{Source: b, Root: r})
	}
	got, err := manifests.NewGraph(t0, entries, 0)
	if err != nil {
		t.Fatal(err)
	}
	var digests []digest.Digest
	for _, d := range append(descriptors(got.Docs()), got.Blobs()...) {
		digests = append(digests, d.Digest)
		if a, b := fetch(t, g, d), fetch(t, b, d); !bytes.Equal(a, b) {
			t.Errorf("%s differs", d.Digest)
		}
	}
	slices.Sort(digests)
	if !slices.Equal(digests, b.Blobs()) {
		t.Errorf("file has %d blobs, the graph %d", len(b.Blobs()), len(digests))
	}
}

func descriptors(docs []manifests.Node) (out []ocispec.Descriptor) {
	for _, n := range docs {
		out = append(out, n.Descriptor)
	}
	return out
}

func fetch(t *testing.T, f manifests.Fetcher, d ocispec.Descriptor) []byte {
	t.Helper()
	r, err := f.Fetch(t0, d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// late gives blobs after times that differ from run to run.
type late struct{ *fixtures.Blobs }

func (l late) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
	return l.Blobs.Fetch(ctx, d)
}

func TestSameBytesHoweverWritten(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := append(fixtures.Sample(b), fixtures.Random(b, 7, 4)...)
	want := written(t, plan(t, b.Graph(t, roots...)))
	for _, jobs := range []int{1, 8, 0, 8} {
		g, err := manifests.NewGraph(t0, manifests.Entries(late{b}, roots), jobs)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "x")
		if _, err := plan(t, g).WriteFile(t0, path, dedupe.Options{Jobs: jobs}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d jobs: %d bytes differ from the %d of a pipe (%v)", jobs, len(got), len(want), err)
		}
	}
}

// The writer and the second writer, made from the specification, agree; and
// the identity below does not move with a library or a version of Go.
func TestWriterFollowsTheSpecification(t *testing.T) {
	b := fixtures.NewBlobs()
	layer := b.Add(ocispec.MediaTypeImageLayer, []byte("not really a tar"))
	config := b.Add(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["`+string(layer.Digest)+`"]}}`))
	manifest := b.AddJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}})
	got := written(t, plan(t, b.Graph(t, fixtures.Root("a:1", manifest))))

	// The README and the spelling of index.json are the writer's choice.
	bundle, err := open(got)
	if err != nil {
		t.Fatal(err)
	}
	f := file{layout: `{"imageLayoutVersion":"1.0.0"}`, readme: content(got, 0)}
	f.index = []byte(content(got, 1024+(len(f.readme)+511)/512*512+512))
	for _, d := range []ocispec.Descriptor{manifest, config, layer} {
		f.blobs = append(f.blobs, blobMember(b.Bytes(d.Digest)))
	}
	if want := f.bytes(); !bytes.Equal(got, want) {
		t.Errorf("%d bytes, the specification's %d", len(got), len(want))
	}
	if got := digest.FromBytes(f.index); got != bundle.Info().Digest {
		t.Errorf("identity %s, index.json is %s", bundle.Info().Digest, got)
	}
	const file = "sha256:ffd62008dc988045874fdb0fd428fd31ff751bce13e4dc6187e2d81db5e15daa"
	if got := digest.FromBytes(got); got != file {
		t.Errorf("the file is %s, was %s when the format was fixed", got, file)
	}
}

// content of the member whose header is at an offset.
func content(raw []byte, at int) string {
	var size int
	for _, c := range raw[at+124 : at+135] {
		size = size*8 + int(c-'0')
	}
	return string(raw[at+512 : at+512+size])
}

func TestSHA512Blobs(t *testing.T) {
	b := fixtures.NewBlobs()
	data := []byte("content of an artifact")
	blob := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.SHA512.FromBytes(data), Size: int64(len(data))}
	empty := b.Add("application/vnd.example.config", []byte("{}"))
	manifest := b.AddJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: empty, Layers: []ocispec.Descriptor{blob}})
	src := manifests.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		if d.Digest == blob.Digest {
			return manifests.BytesReader(data, d), nil
		}
		return b.Fetch(ctx, d)
	})
	g, err := manifests.NewGraph(t0, []manifests.Entry{{Source: src, Root: fixtures.Root("art:1", manifest)}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw := written(t, plan(t, g))
	bundle, err := open(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got := fetch(t, bundle, blob); !bytes.Equal(got, data) {
		t.Errorf("got %q", got)
	}
	if !bytes.Contains(raw, member{name: "blobs/sha512/" + blob.Digest.Encoded(), content: data}.bytes()) {
		t.Error("its header is not the specification's")
	}
}

func TestRowsAndTotals(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	g := b.Graph(t, append(roots, roots[0])...)
	p := plan(t, g)
	rows, totals := summary(t, p).Rows, summary(t, p).Totals
	if len(rows) != 4 {
		t.Fatalf("%d rows, want 4: what is given twice is stored once", len(rows))
	}
	var stored int64
	for i, r := range rows {
		if r.Root.Name != roots[i].Name || r.NewBytes > r.Bytes || r.NewBytes <= 0 {
			t.Errorf("row %d: %+v", i, r)
		}
		stored += r.NewBytes
	}
	if rows[0].NewBytes != rows[0].Bytes || rows[0].Bytes != rows[0].Images[0].Size() {
		t.Errorf("first row: %d new of %d, image has %d", rows[0].NewBytes, rows[0].Bytes, rows[0].Images[0].Size())
	}
	if rows[1].NewBytes >= rows[1].Bytes {
		t.Errorf("second row shares a layer: %d new of %d", rows[1].NewBytes, rows[1].Bytes)
	}
	if len(rows[3].Images) != 2 || rows[3].Layers != 4 {
		t.Errorf("index: %d images, %d layers", len(rows[3].Images), rows[3].Layers)
	}
	if stored != totals.Stored || stored != g.Size() || totals.Images != 4 || totals.Layers != 10 || totals.DistinctLayers != 7 {
		t.Errorf("totals %+v, rows sum to %d, graph is %d", totals, stored, g.Size())
	}
}

func TestPlanRefuses(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	one, two := roots[0], roots[1]
	two.Name = one.Name
	_, err := dedupe.NewPlan(b.Graph(t, one, two), dedupe.PlanOptions{Mode: dedupe.ModeLayer})
	var conflict *manifests.ConflictError
	if !errors.As(err, &conflict) {
		t.Errorf("one name for two images: %v", err)
	}
	if _, err := dedupe.NewPlan(b.Graph(t), dedupe.PlanOptions{Mode: dedupe.ModeLayer}); err == nil {
		t.Error("a bundle of nothing was planned")
	}
	reserved := one
	reserved.Descriptor.ArtifactType = "application/vnd.imgpack.bundle.chunk.v1"
	if _, err = dedupe.NewPlan(b.Graph(t, reserved), dedupe.PlanOptions{Mode: dedupe.ModeLayer}); !fixtures.Matches(err, fixtures.Unsupported) {
		t.Errorf("reserved type: %v", err)
	}
	many := make([]manifests.Root, 10_001)
	for i := range many {
		many[i] = manifests.Root{Label: strconv.Itoa(i), Descriptor: one.Descriptor}
	}
	if _, err = dedupe.NewPlan(b.Graph(t, many...), dedupe.PlanOptions{Mode: dedupe.ModeLayer}); !fixtures.Matches(err, manifests.KindLimit) {
		t.Errorf("too many images: %v", err)
	}
	if _, err = dedupe.NewPlan(b.Graph(t, many[1:]...), dedupe.PlanOptions{Mode: dedupe.ModeLayer}); err != nil {
		t.Errorf("as many as there may be: %v", err)
	}
}

func TestProgressCountsStoredBytes(t *testing.T) {
	b := fixtures.NewBlobs()
	p := plan(t, b.Graph(t, fixtures.Sample(b)...))
	var mu sync.Mutex
	var n int64
	o := dedupe.Options{Jobs: 4, Progress: func(_ ocispec.Descriptor, k int64) { mu.Lock(); n += k; mu.Unlock() }}
	if _, err := p.WriteFile(t0, filepath.Join(t.TempDir(), "x"), o); err != nil {
		t.Fatal(err)
	}
	if n != summary(t, p).Totals.Stored {
		t.Errorf("progress of %d bytes, %d stored", n, summary(t, p).Totals.Stored)
	}
}

func TestFailureLeavesNothingAndKeepsTheOld(t *testing.T) {
	for what, spoil := range map[string]func(*fixtures.Blobs, ocispec.Descriptor) (context.Context, manifests.Kind){
		"damaged": func(b *fixtures.Blobs, d ocispec.Descriptor) (context.Context, manifests.Kind) {
			b.Corrupt(d.Digest, func(p []byte) []byte { p[len(p)/2] ^= 1; return p })
			return t0, manifests.KindDigest
		},
		"cut": func(b *fixtures.Blobs, d ocispec.Descriptor) (context.Context, manifests.Kind) {
			b.Corrupt(d.Digest, func(p []byte) []byte { return p[:len(p)-1] })
			return t0, manifests.KindTruncated
		},
		"longer": func(b *fixtures.Blobs, d ocispec.Descriptor) (context.Context, manifests.Kind) {
			b.Corrupt(d.Digest, func(p []byte) []byte { return append(p, 0) })
			return t0, manifests.KindSize
		},
		"missing": func(b *fixtures.Blobs, d ocispec.Descriptor) (context.Context, manifests.Kind) {
			b.Remove(d.Digest)
			return t0, manifests.KindMissing
		},
		"cancelled": func(*fixtures.Blobs, ocispec.Descriptor) (context.Context, manifests.Kind) {
			ctx, cancel := context.WithCancel(t0)
			cancel()
			return ctx, fixtures.Refused
		},
	} {
		b := fixtures.NewBlobs()
		g := b.Graph(t, fixtures.Sample(b)...)
		p := plan(t, g)
		ctx, kind := spoil(b, g.Blobs()[1])
		dir := t.TempDir()
		path := filepath.Join(dir, "x")
		if _, err := p.WriteFile(ctx, path, dedupe.Options{}); !fixtures.Matches(err, kind) {
			t.Errorf("%s: %v, want %q", what, err, kind)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left %v", what, left)
		}
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.WriteFile(ctx, path, dedupe.Options{Replace: true}); err == nil {
			t.Errorf("%s: replaced", what)
		}
		if old, _ := os.ReadFile(path); string(old) != "old" {
			t.Errorf("%s: the old file is now %q", what, old)
		}
		if _, err := p.Write(ctx, io.Discard, dedupe.Options{}); !fixtures.Matches(err, kind) {
			t.Errorf("%s to a pipe: %v, want %q", what, err, kind)
		}
	}
}

func TestExistingFileIsKept(t *testing.T) {
	b := fixtures.NewBlobs()
	p := plan(t, b.Graph(t, fixtures.Sample(b)...))
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteFile(t0, path, dedupe.Options{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v, want it to exist", err)
	}
	if err := os.WriteFile(atomicfile.TempPath(path), bytes.Repeat([]byte("left by a killed run"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteFile(t0, path, dedupe.Options{Replace: true}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, written(t, p)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestFetch(t *testing.T) {
	f := valid()
	b, err := open(f.bytes())
	if err != nil {
		t.Fatal(err)
	}
	d := ocispec.Descriptor{Digest: digest.FromBytes(f.blobs[2].content), Size: int64(len(f.blobs[2].content))}
	lie := d
	lie.Size--
	if _, err := b.Fetch(t0, lie); !fixtures.Matches(err, manifests.KindSize) {
		t.Errorf("another size: %v", err)
	}
	absent := ocispec.Descriptor{Digest: digest.FromString("absent")}
	var none *manifests.NotFoundError
	if _, err := b.Fetch(t0, absent); !errors.As(err, &none) || none.In != "x.imgpack" {
		t.Errorf("absent: %v", err)
	}
	if _, err := b.Fetch(t0, ocispec.Descriptor{Digest: "sha256:../x"}); !fixtures.Matches(err, manifests.KindMalformed) {
		t.Errorf("bad digest: %v", err)
	}
	ctx, cancel := context.WithCancel(t0)
	r, err := b.Fetch(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOpenTakesFilesOnly(t *testing.T) {
	if _, err := dedupe.Open(t.TempDir(), dedupe.OpenOptions{}); err == nil {
		t.Error("a directory was opened")
	}
	if _, err := dedupe.Open(filepath.Join(t.TempDir(), "none"), dedupe.OpenOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// skopeo knows nothing of bundles; it reads an OCI layout.
func TestSkopeoReadsIt(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
			t.Fatal(err)
		}
		t.Skip("skopeo is not installed")
	}
	if os.Getuid() != 0 {
		t.Skip("skopeo unpacks OCI archives as root only")
	}
	b := fixtures.NewBlobs()
	root := fixtures.Sample(b)[0]
	dir := t.TempDir()
	path := filepath.Join(dir, "x.imgpack")
	if _, err := plan(t, b.Graph(t, root)).WriteFile(t0, path, dedupe.Options{}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(skopeo, "--tmpdir", dir, "--insecure-policy", "copy", "--preserve-digests", "oci-archive:"+path+":1", "dir:"+dir+"/out").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	raw, err := os.ReadFile(dir + "/out/manifest.json")
	if err != nil || digest.FromBytes(raw) != root.Descriptor.Digest {
		t.Errorf("manifest %s, want %s (%v)", digest.FromBytes(raw), root.Descriptor.Digest, err)
	}
}

func BenchmarkWriteFile(b *testing.B) {
	blobs := fixtures.NewBlobs()
	g := blobs.Graph(b, large(blobs)...)
	p := plan(b, g)
	dir := b.TempDir()
	b.SetBytes(summary(b, p).Size)
	for b.Loop() {
		if _, err := p.WriteFile(t0, filepath.Join(dir, "x"), dedupe.Options{Replace: true}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	blobs := fixtures.NewBlobs()
	raw := written(b, plan(b, blobs.Graph(b, large(blobs)...)))
	for b.Loop() {
		if _, err := open(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// large is one image with 64 MiB in 16 layers.
func large(b *fixtures.Blobs) []manifests.Root {
	var layers []fixtures.LayerSpec
	for i := range 16 {
		body := strings.Repeat(string(rune('a'+i)), 4<<20)
		layers = append(layers, fixtures.LayerSpec{Compression: manifests.Uncompressed, Files: []fixtures.File{{Name: "f", Body: body}}})
	}
	return []manifests.Root{fixtures.Root("large:1", b.Image(fixtures.ImageSpec{Layers: layers}))}
}
