package verify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/verify"
)

var t0 = context.Background()

func run(t testing.TB, src manifests.Fetcher, roots []manifests.Root, o verify.Options) *verify.Report {
	t.Helper()
	r, err := verify.Run(t0, src, roots, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// findings are those of all checks.
func findings(r *verify.Report) (all []verify.Finding) {
	for _, c := range r.Checks {
		all = append(all, c.Findings...)
	}
	return all
}

func check(t *testing.T, r *verify.Report, id string) verify.Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.ID == id {
			return c
		}
	}
	t.Fatalf("no check %q", id)
	return verify.Check{}
}

// one holds a report to a single finding.
func one(t *testing.T, what string, r *verify.Report, kind manifests.Kind, subject, message string) {
	t.Helper()
	all := findings(r)
	if len(all) != 1 {
		t.Errorf("%s: %d findings, want 1: %+v", what, len(all), all)
		return
	}
	f := all[0]
	if f.Kind != kind || !strings.Contains(f.Subject, subject) || !strings.Contains(f.Message, message) {
		t.Errorf("%s: %+v, want %q of %s: %q", what, f, kind, subject, message)
	}
	if f.Warn != (r.Verdict == verify.Pass) || f.Warn != (r.Warnings == 1) {
		t.Errorf("%s: %s with %d warnings for %+v", what, r.Verdict, r.Warnings, f)
	}
}

func TestSoundImagesPass(t *testing.T) {
	for seed := range int64(4) {
		b := fixtures.NewBlobs()
		roots := fixtures.Sample(b)
		if seed > 0 {
			roots = fixtures.Random(b, seed, 5)
		}
		g := b.Graph(t, roots...)
		blobs := len(g.Docs()) + len(g.Blobs())
		for _, o := range []verify.Options{{}, {Quick: true}, {Deep: true}, {Deep: true, Jobs: 8}} {
			r := run(t, b, roots, o)
			if r.Verdict != verify.Pass || r.Warnings != 0 {
				t.Errorf("%+v: %s %+v", o, r.Verdict, findings(r))
			}
			digests, links, layers := check(t, r, "digests"), check(t, r, "links"), check(t, r, "layers")
			if links.Items != blobs || !o.Quick && (digests.Items != blobs || digests.Bytes != g.Size()) || o.Quick && digests.Items != len(g.Docs()) {
				t.Errorf("%+v: %d blobs of %d bytes: %+v %+v", o, blobs, g.Size(), digests, links)
			}
			if o.Deep != (layers.Result == verify.ResultPass) || !o.Deep && layers.Result != verify.ResultSkip {
				t.Errorf("%+v: %+v", o, layers)
			}
		}
	}
}

func TestDetails(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	r := run(t, b, roots, verify.Options{Deep: true, Extra: []verify.Check{verify.FileCheck("format 1", 3, 7)}})
	var got []string
	for _, c := range r.Checks {
		got = append(got, c.ID+": "+c.Detail)
	}
	want := []string{
		"file: format 1",
		"digests: 18 of 18 blobs re-hashed",
		"links: every manifest, config and layer is present",
		"layers: 7 of 7 diff IDs match; 48 entries, none unsafe; 1 setuid, 0 devices",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	var images []string
	for _, i := range r.Images {
		images = append(images, i.Ref+" "+strings.Join(i.Platforms, ",")+" "+string(i.State)+" "+string(i.Result))
	}
	local := manifests.FormatPlatform(manifests.LocalPlatform())
	want = []string{
		"example.com/app:1 " + local + " exact pass",
		"example.com/app:2 " + local + " exact pass",
		"docker.io/library/other:latest " + local + " exact pass",
		"example.com/multi:1 linux/amd64,linux/arm64 exact pass",
	}
	if d := cmp.Diff(want, images); d != "" {
		t.Error(d)
	}
}

// counted counts what is fetched of each blob.
type counted struct {
	manifests.Fetcher
	mu      sync.Mutex
	fetched map[digest.Digest]int
	read    map[digest.Digest]int64
}

func count(f manifests.Fetcher) *counted {
	return &counted{Fetcher: f, fetched: map[digest.Digest]int{}, read: map[digest.Digest]int64{}}
}

func (c *counted) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetched[d.Digest]++
	r, err := c.Fetcher.Fetch(ctx, d)
	return &countedReader{r, c, d.Digest}, err
}

type countedReader struct {
	io.ReadCloser
	c *counted
	d digest.Digest
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.c.read[r.d] += int64(n)
	return n, err
}

func TestEveryBlobIsReadOnce(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := append(fixtures.Sample(b), fixtures.Random(b, 3, 6)...)
	g := b.Graph(t, roots...)
	for _, o := range []verify.Options{{}, {Deep: true}, {Deep: true, Jobs: 8}} {
		c := count(b)
		var told int64
		var mu sync.Mutex
		o.Progress = func(_ ocispec.Descriptor, n int64) { mu.Lock(); told += n; mu.Unlock() }
		run(t, c, roots, o)
		for d, n := range c.fetched {
			if n != 1 || c.read[d] != int64(len(b.Bytes(d))) {
				t.Errorf("%s fetched %d times, %d of %d bytes read", d, n, c.read[d], len(b.Bytes(d)))
			}
		}
		if told != g.Size() {
			t.Errorf("progress of %d bytes, there are %d", told, g.Size())
		}
	}
}

// Every blob in turn, damaged in every way: one finding, which names it; the
// images that use it fail and no other.
func TestCorruptionMatrix(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	g := b.Graph(t, roots...)
	isDoc := map[digest.Digest]bool{}
	var all []digest.Digest
	for _, n := range g.Docs() {
		isDoc[n.Descriptor.Digest] = true
		all = append(all, n.Descriptor.Digest)
	}
	for _, d := range g.Blobs() {
		all = append(all, d.Digest)
	}
	for _, d := range all {
		for what, kind := range damages {
			damage(b, d, what)
			for _, o := range []verify.Options{{}, {Deep: true}, {Quick: true}} {
				r := run(t, b, roots, o)
				if o.Quick && !isDoc[d] && kind != manifests.KindMissing {
					if r.Verdict != verify.Pass {
						t.Errorf("quick, %s of %s: %+v", what, d, findings(r))
					}
					continue
				}
				one(t, what, r, kind, string(d), "")
				sameImages(t, g, r, d)
			}
			b.Heal(d)
		}
	}
}

var damages = map[string]manifests.Kind{
	"flip": manifests.KindDigest, "zero page": manifests.KindDigest, "cut": manifests.KindTruncated, "cut to nothing": manifests.KindTruncated,
	"longer": manifests.KindSize, "missing": manifests.KindMissing,
}

func damage(b *fixtures.Blobs, d digest.Digest, what string) {
	switch what {
	case "flip":
		b.Corrupt(d, func(p []byte) []byte { p[len(p)/2] ^= 0x10; return p })
	case "zero page":
		b.Corrupt(d, func(p []byte) []byte { clear(p[:min(len(p), 4096)]); return p })
	case "cut":
		b.Corrupt(d, func(p []byte) []byte { return p[:len(p)-1] })
	case "cut to nothing":
		b.Corrupt(d, func([]byte) []byte { return nil })
	case "longer":
		b.Corrupt(d, func(p []byte) []byte { return append(p, 0) })
	case "missing":
		b.Remove(d)
	}
}

func sameImages(t *testing.T, g *manifests.Graph, r *verify.Report, d digest.Digest) {
	t.Helper()
	for i, root := range g.Roots() {
		uses := root.Descriptor.Digest == d
		for _, img := range g.Images(root) {
			uses = uses || img.Descriptor.Digest == d || img.ID() == d
			for _, l := range img.Layers {
				uses = uses || l.Blob.Digest == d
			}
		}
		if got := r.Images[i].Result; uses != (got == verify.ResultFail) {
			t.Errorf("%s is %s; it uses %s: %t", r.Images[i].Ref, got, d, uses)
		}
	}
}

func TestAllFindingsAreReported(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	g := b.Graph(t, roots...)
	for i, d := range g.Blobs() {
		damage(b, d.Digest, []string{"flip", "missing"}[i%2])
	}
	first := run(t, b, roots, verify.Options{Jobs: 1})
	if n := len(findings(first)); n != len(g.Blobs()) || first.Verdict != verify.Fail {
		t.Errorf("%d findings of %d, %s", n, len(g.Blobs()), first.Verdict)
	}
	for range 5 {
		if d := cmp.Diff(first, run(t, b, roots, verify.Options{Jobs: 8})); d != "" {
			t.Error("the report depends on timing:", d)
		}
	}
}

func TestNotCheckedIsNeitherPassNorFail(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	broken := errors.New("input/output error")
	for _, bad := range b.Digests() {
		src := manifests.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
			if d.Digest == bad {
				return manifests.VerifyReader(io.NopCloser(io.MultiReader(bytes.NewReader(b.Bytes(bad)[:1]), errReader{broken})), d), nil
			}
			return b.Fetch(ctx, d)
		})
		r, err := verify.Run(t0, src, roots, verify.Options{Deep: true})
		if !errors.Is(err, broken) || r.Verdict != verify.Unchecked || len(findings(r)) != 0 {
			t.Errorf("%s: %v, %s, %v", bad, err, r.Verdict, findings(r))
		}
		for _, i := range r.Images {
			if i.Result != verify.ResultSkip {
				t.Errorf("%s: %s is %s", bad, i.Ref, i.Result)
			}
		}
		for _, c := range r.Checks {
			if c.Result != verify.ResultSkip && c.ID != verify.CheckLinks {
				t.Errorf("%s: check %s is %s", bad, c.ID, c.Result)
			}
		}
	}
	ctx, cancel := context.WithCancel(t0)
	cancel()
	if r, err := verify.Run(ctx, b, roots, verify.Options{}); !errors.Is(err, context.Canceled) || r.Verdict != verify.Unchecked || r.Checks[1].Result != verify.ResultSkip {
		t.Errorf("cancelled: %v, %s", err, r.Verdict)
	}
	if r := run(t, b, nil, verify.Options{}); r.Verdict != verify.Unchecked {
		t.Errorf("nothing: %s", r.Verdict)
	}
}

// A layer that only a later version can make is not called bad, when it is
// opened and when it is read.
func TestUnknownLayersAreNotChecked(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	later := &manifests.UnsupportedError{Subject: "x.imgpack", Reason: "it is not known"}
	layer := b.Graph(t, roots...).Blobs()[0].Digest
	for _, fetch := range []func() (io.ReadCloser, error){
		func() (io.ReadCloser, error) { return nil, later },
		func() (io.ReadCloser, error) { return io.NopCloser(errReader{later}), nil },
	} {
		src := manifests.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
			if d.Digest == layer {
				return fetch()
			}
			return b.Fetch(ctx, d)
		})
		for _, deep := range []bool{false, true} {
			r, err := verify.Run(t0, src, roots, verify.Options{Deep: deep})
			if !errors.Is(err, later) || r.Verdict != verify.Unchecked || len(findings(r)) != 0 {
				t.Errorf("%v, %s, %v", err, r.Verdict, findings(r))
			}
		}
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestFromError(t *testing.T) {
	bad := manifests.Bad(manifests.KindTruncated, "site.imgpack", "the file is cut short: %d bytes are missing", 7)
	r, ok := verify.FromError(errors.Join(errors.New("open"), bad))
	if !ok || r.Verdict != verify.Fail || len(r.Checks) != 1 || r.Checks[0].ID != "file" || r.Checks[0].Result != verify.ResultFail {
		t.Fatalf("%+v", r)
	}
	one(t, "cut file", r, manifests.KindTruncated, "site.imgpack", "7 bytes are missing")
	if _, ok := verify.FromError(io.ErrUnexpectedEOF); ok {
		t.Error("an error that is no finding became one")
	}
}

func TestExtraChecksCount(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	extra := verify.Check{ID: "policy", Result: verify.ResultFail, Findings: []verify.Finding{{Message: "no"}}}
	if r := run(t, b, roots, verify.Options{Extra: []verify.Check{extra}}); r.Verdict != verify.Fail || r.Checks[0].ID != "policy" {
		t.Errorf("%+v", r)
	}
	extra.Result, extra.Findings[0].Warn = verify.ResultWarn, true
	if r := run(t, b, roots, verify.Options{Extra: []verify.Check{extra}}); r.Verdict != verify.Pass || r.Warnings != 1 {
		t.Errorf("%+v", r)
	}
}

func TestHolds(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	held := b.Digests()
	if r := run(t, b, roots, verify.Options{Holds: held}); r.Verdict != verify.Pass {
		t.Errorf("%+v", findings(r))
	}
	stray := b.Add("text/plain", []byte("stray"))
	held = append(held, stray.Digest)
	one(t, "stray blob", run(t, b, roots, verify.Options{Holds: held}), manifests.KindMalformed, string(stray.Digest), "nothing refers to it")
	damage(b, roots[0].Descriptor.Digest, "flip")
	one(t, "damaged manifest", run(t, b, roots, verify.Options{Holds: held}), manifests.KindDigest, string(roots[0].Descriptor.Digest), "")
}

func TestJSON(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)[:1]
	g := b.Graph(t, roots...)
	layer := g.Blobs()[1]
	b.Corrupt(layer.Digest, func(p []byte) []byte { return p[1:] })
	raw, err := json.Marshal(run(t, b, roots, verify.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Verdict  string
		Warnings *int
		Checks   []struct {
			ID, Result, Detail string
			Items              int
			Bytes              int64
			Findings           []map[string]any
		}
		Images []map[string]any
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	f := got.Checks[0].Findings[0]
	delete(f, "message")
	want := map[string]any{"kind": "truncated", "image": "example.com/app:1", "subject": "layer 2 of 2 " + string(layer.Digest)}
	if d := cmp.Diff(want, f); d != "" {
		t.Error(d)
	}
	image := map[string]any{"ref": "example.com/app:1", "digest": string(roots[0].Descriptor.Digest), "digestState": "exact", "result": "fail",
		"platforms": []any{manifests.FormatPlatform(manifests.LocalPlatform())}}
	if d := cmp.Diff(image, got.Images[0]); d != "" {
		t.Error(d)
	}
	if got.Verdict != "fail" || got.Warnings == nil || bytes.Contains(raw, []byte("null")) {
		t.Errorf("%s", raw)
	}
}

func BenchmarkRun(b *testing.B) {
	blobs := fixtures.NewBlobs()
	var layers []fixtures.LayerSpec
	for i := range 8 {
		body := strings.Repeat(string(rune('a'+i)), 8<<20)
		layers = append(layers, fixtures.LayerSpec{Compression: manifests.Uncompressed, Files: []fixtures.File{{Name: "f", Body: body}}})
	}
	roots := []manifests.Root{fixtures.Root("large:1", blobs.Image(fixtures.ImageSpec{Layers: layers}))}
	for name, o := range map[string]verify.Options{"default": {}, "deep": {Deep: true}} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(64 << 20)
			for b.Loop() {
				run(b, blobs, roots, o)
			}
		})
	}
}
