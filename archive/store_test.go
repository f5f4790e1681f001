package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

var bg = context.Background()

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := OpenStore(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func names(t testing.TB, s *Store) string {
	t.Helper()
	roots, err := s.Roots(bg)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range roots {
		name := r.Name.Familiar()
		if r.Name.IsZero() {
			name = "<none>"
		}
		out = append(out, name+"="+r.Descriptor.Digest.Encoded()[:6])
	}
	return strings.Join(out, " ")
}

// small adds an image of one layer that holds the given text.
func small(b *fixtures.Blobs, text string) ocispec.Descriptor {
	return b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: []fixtures.File{{Name: "f", Body: text}}}}})
}

func add(t testing.TB, s *Store, b *fixtures.Blobs, o AddOptions, roots ...manifests.Root) []AddResult {
	t.Helper()
	results, err := s.Add(bg, b.Graph(t, roots...), o)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func TestStoreAdd(t *testing.T) {
	s := newStore(t)
	if roots, err := s.Roots(bg); err != nil || len(roots) > 0 {
		t.Fatalf("absent store: %v, %v", roots, err)
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Error("reading made the store")
	}
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	g := b.Graph(t, roots...)
	var moved int64
	var mu sync.Mutex
	results := add(t, s, b, AddOptions{Progress: func(_ ocispec.Descriptor, n int64) { mu.Lock(); moved += n; mu.Unlock() }}, roots...)
	var stored int64
	for _, r := range results {
		stored += r.New
	}
	if stored != g.Size() || moved != g.Size() {
		t.Errorf("stored %d, moved %d, want %d", stored, moved, g.Size())
	}
	if results[1].Shared == 0 || results[0].Shared != 0 {
		t.Errorf("app:1 shares %d, app:2 shares %d", results[0].Shared, results[1].Shared)
	}
	if _, err := readAll(s); err != nil {
		t.Error(err)
	}
	before := snapshot(t, s.Dir())
	for i, r := range add(t, s, b, AddOptions{}, roots...) {
		if r.New != 0 || r.Previous != roots[i].Descriptor.Digest {
			t.Errorf("again: %+v", r)
		}
	}
	if after := snapshot(t, s.Dir()); after != before {
		t.Errorf("adding again changed the store:\n%s\nwas:\n%s", after, before)
	}
	for _, line := range strings.Split(strings.TrimSpace(before), "\n") {
		if f := strings.Fields(line); f[1] != "drwx------" && f[1] != "-rw-------" {
			t.Errorf("open to others: %s", line)
		}
	}
}

func TestStoreIsALayout(t *testing.T) {
	s := newStore(t)
	b := fixtures.NewBlobs()
	add(t, s, b, AddOptions{}, fixtures.Sample(b)...)
	src, err := open(manifests.Reference{Transport: manifests.Path, Path: s.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := readAll(src); err != nil {
		t.Error(err)
	}
}

func TestStoreRefusesOtherDirectories(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := fixtures.NewBlobs()
	var conflict *manifests.ConflictError
	if _, err := s.Add(bg, b.Graph(t, fixtures.Sample(b)...), AddOptions{}); !errors.As(err, &conflict) {
		t.Errorf("%v, want ConflictError", err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

// counting counts what is fetched from a source.
type counting struct {
	manifests.Fetcher
	mu sync.Mutex
	n  int
}

func (c *counting) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.Fetcher.Fetch(ctx, d)
}

func TestStoreTagMovesOnlyByForce(t *testing.T) {
	s := newStore(t)
	b := fixtures.NewBlobs()
	one, two := small(b, "one"), small(b, "two")
	add(t, s, b, AddOptions{}, fixtures.Root("app:1", one))
	src := &counting{Fetcher: b}
	g, err := manifests.NewGraph(bg, []manifests.Entry{{Source: src, Root: fixtures.Root("app:1", two)}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	src.n = 0
	before := snapshot(t, s.Dir())
	_, err = s.Add(bg, g, AddOptions{})
	var conflict *manifests.ConflictError
	if !errors.As(err, &conflict) || !strings.Contains(err.Error(), string(one.Digest)) || !strings.Contains(err.Error(), string(two.Digest)) {
		t.Errorf("%v, want a ConflictError with both digests", err)
	}
	if src.n > 0 || snapshot(t, s.Dir()) != before {
		t.Errorf("%d blobs were read before the conflict was seen, or the store changed", src.n)
	}
	results, err := s.Add(bg, g, AddOptions{Force: true})
	if err != nil || results[0].Previous != one.Digest {
		t.Fatalf("%+v, %v", results, err)
	}
	want := fmt.Sprintf("app:1=%s <none>=%s", two.Digest.Encoded()[:6], one.Digest.Encoded()[:6])
	if got := names(t, s); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, err := s.GC(bg, GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(s); err != nil {
		t.Errorf("the image that lost its name: %v", err)
	}
	add(t, s, b, AddOptions{}, fixtures.Root("old:1", one))
	if got := names(t, s); strings.Contains(got, "<none>") {
		t.Errorf("an image with a name is there without one too: %s", got)
	}
}

func TestStoreNameless(t *testing.T) {
	s := newStore(t)
	b := fixtures.NewBlobs()
	r := manifests.Root{Descriptor: small(b, "x"), Label: "latest"}
	add(t, s, b, AddOptions{}, r)
	add(t, s, b, AddOptions{}, r)
	if got := names(t, s); got != "<none>="+r.Descriptor.Digest.Encoded()[:6] {
		t.Errorf("names %s", got)
	}
	result, err := s.GC(bg, GCOptions{})
	if err != nil || result.Blobs != 0 {
		t.Errorf("gc: %+v, %v", result, err)
	}
}

// TestStoreAddFails has the source fail at each blob in turn, in each way.
func TestStoreAddFails(t *testing.T) {
	for name, hurt := range map[string]func(b *fixtures.Blobs, d digest.Digest){
		"flipped":   func(b *fixtures.Blobs, d digest.Digest) { b.Corrupt(d, func(p []byte) []byte { p[0] ^= 1; return p }) },
		"truncated": func(b *fixtures.Blobs, d digest.Digest) { b.Corrupt(d, func(p []byte) []byte { return p[:len(p)-1] }) },
		"longer":    func(b *fixtures.Blobs, d digest.Digest) { b.Corrupt(d, func(p []byte) []byte { return append(p, 0) }) },
		"missing":   func(b *fixtures.Blobs, d digest.Digest) { b.Remove(d) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			b := fixtures.NewBlobs()
			add(t, s, b, AddOptions{}, fixtures.Root("there:1", small(b, "there")))
			before := snapshot(t, s.Dir())
			g := b.Graph(t, fixtures.Sample(b)...)
			for _, d := range g.Blobs() {
				hurt(b, d.Digest)
				_, err := s.Add(bg, g, AddOptions{Jobs: 2})
				if err == nil || !strings.Contains(err.Error(), string(d.Digest)) {
					t.Errorf("%v, want an error that names %s", err, d.Digest)
				}
				if after := snapshot(t, s.Dir()); after != before {
					t.Fatalf("the store changed:\n%s\nwas:\n%s", after, before)
				}
				b.Heal(d.Digest)
			}
			ctx, cancel := context.WithCancel(bg)
			_, err := s.Add(ctx, g, AddOptions{Jobs: 1, Progress: func(ocispec.Descriptor, int64) { cancel() }})
			if !errors.Is(err, context.Canceled) || snapshot(t, s.Dir()) != before {
				t.Errorf("cancelled: %v, or the store changed", err)
			}
			if _, err := s.Add(bg, g, AddOptions{}); err != nil {
				t.Errorf("healed: %v", err)
			}
		})
	}
}

// TestStoreRollsBack makes the last step fail, when blobs are in place already.
func TestStoreRollsBack(t *testing.T) {
	s := newStore(t)
	b := fixtures.NewBlobs()
	there := small(b, "there")
	add(t, s, b, AddOptions{}, fixtures.Root("there:1", there))
	if err := os.WriteFile(s.blob(there.Digest), []byte("damaged"), 0o600); err != nil { // to be replaced, and put back
		t.Fatal(err)
	}
	index, err := os.ReadFile(s.index())
	if err != nil {
		t.Fatal(err)
	}
	g := b.Graph(t, append(fixtures.Sample(b), fixtures.Root("there:2", there))...)
	before := snapshot(t, s.Dir())
	a := &addition{store: s, graph: g, roots: g.Roots(), blobs: allBlobs(g), staged: map[digest.Digest]bool{}}
	if a.stage, err = s.begin(bg); err != nil {
		t.Fatal(err)
	}
	if err := a.copy(bg, a.unstaged()); err != nil {
		t.Fatal(err)
	}
	// A directory cannot be replaced by a file: the last rename fails.
	if err := errors.Join(os.Remove(s.index()), os.MkdirAll(filepath.Join(s.index(), "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	undo, err := a.place()
	if err != nil {
		t.Fatal(err)
	}
	undo()
	a.stage.end()
	if err := errors.Join(os.RemoveAll(s.index()), os.WriteFile(s.index(), index, 0o600)); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(t, s.Dir()); after != before {
		t.Errorf("the store changed:\n%s\nwas:\n%s", after, before)
	}
}

func TestStoreReplacesADamagedBlob(t *testing.T) {
	s := newStore(t)
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	add(t, s, b, AddOptions{}, roots...)
	layer := b.Graph(t, roots...).Blobs()[0]
	if err := os.Truncate(s.blob(layer.Digest), 3); err != nil {
		t.Fatal(err)
	}
	if r := add(t, s, b, AddOptions{}, roots...); r[0].New != layer.Size {
		t.Errorf("stored %d bytes, want %d", r[0].New, layer.Size)
	}
	if _, err := readAll(s); err != nil {
		t.Error(err)
	}
}

func TestStoreResolve(t *testing.T) {
	s := newStore(t)
	b := fixtures.NewBlobs()
	one, two := small(b, "one"), small(b, "two")
	chosen := fixtures.Root("chosen:1", one)
	chosen.Index = digest.FromString("an index")
	add(t, s, b, AddOptions{}, fixtures.Root("app:1", one), fixtures.Root("app:2@"+string(two.Digest), two), chosen)
	for text, want := range map[string]digest.Digest{
		"app:1":                            one.Digest,
		"docker.io/library/app:2":          two.Digest,
		"app@" + string(one.Digest):        one.Digest,
		"app:1@" + string(one.Digest):      one.Digest,
		"app:2@" + string(two.Digest):      two.Digest,
		"app:2@" + string(one.Digest):      "",
		"other@" + string(one.Digest):      "",
		"app":                              "",
		"chosen@" + string(chosen.Index):   one.Digest,
		"chosen:1@" + string(chosen.Index): one.Digest,
	} {
		n, err := manifests.ParseName(text, "")
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Resolve(n)
		var nf *manifests.NotFoundError
		if r.Descriptor.Digest != want || (want == "") != errors.As(err, &nf) {
			t.Errorf("%s: %s, %v; want %s", text, r.Descriptor.Digest, err, want)
		}
		if want == "" && !slices.Contains(nf.Have, "app:1") {
			t.Errorf("%s: have %v", text, nf.Have)
		}
	}
}

func parse(t *testing.T, text string) manifests.Name {
	t.Helper()
	n, err := manifests.ParseName(text, "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStoreTagAndRemove(t *testing.T) {
	s := newStore(t)
	b := fixtures.NewBlobs()
	one, two := small(b, "one"), small(b, "two")
	d1, d2 := one.Digest.Encoded()[:6], two.Digest.Encoded()[:6]
	img, err := manifests.LoadImage(bg, b, two)
	if err != nil {
		t.Fatal(err)
	}
	add(t, s, b, AddOptions{}, fixtures.Root("app:1", one), fixtures.Root("app:2", two))
	check := func(want string) {
		t.Helper()
		if got := names(t, s); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if err := s.Tag(bg, parse(t, "app:2"), parse(t, "quay.io/x/y:z")); err != nil {
		t.Fatal(err)
	}
	check("app:1=" + d1 + " app:2=" + d2 + " quay.io/x/y:z=" + d2)
	if err := s.Tag(bg, parse(t, "app:2"), parse(t, "app:1")); err != nil {
		t.Fatal(err)
	}
	check("app:1=" + d2 + " app:2=" + d2 + " quay.io/x/y:z=" + d2 + " <none>=" + d1)
	var nf *manifests.NotFoundError
	var conflict *manifests.ConflictError
	if err := s.Tag(bg, parse(t, "nginx"), parse(t, "b")); !errors.As(err, &nf) {
		t.Errorf("tag of nothing: %v", err)
	}
	if _, err := s.Remove(bg, []string{"app:1", "nginx"}, false, nil); !errors.As(err, &nf) {
		t.Errorf("remove of nothing: %v", err)
	}
	if _, err := s.Remove(bg, []string{img.ID().Encoded()[:12]}, false, nil); !errors.As(err, &conflict) {
		t.Errorf("remove of three names by ID: %v", err)
	}
	check("app:1=" + d2 + " app:2=" + d2 + " quay.io/x/y:z=" + d2 + " <none>=" + d1)
	removed, err := s.Remove(bg, []string{"app:1", d1}, false, nil)
	if err != nil || len(removed) != 2 || removed[0].Last || !removed[1].Last || removed[0].Name.Familiar() != "app:1" {
		t.Errorf("%+v, %v", removed, err)
	}
	check("app:2=" + d2 + " quay.io/x/y:z=" + d2)
	removed, err = s.Remove(bg, []string{string(img.ID())}, true, nil)
	if err != nil || len(removed) != 2 || !removed[1].Last {
		t.Errorf("%+v, %v", removed, err)
	}
	check("")
}

func TestStoreGC(t *testing.T) {
	s := newStore(t)
	if r, err := s.GC(bg, GCOptions{}); err != nil || r.Blobs != 0 {
		t.Errorf("absent store: %+v, %v", r, err)
	}
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	add(t, s, b, AddOptions{}, roots...)
	only := snapshot(t, s.Dir())
	extra := b.Graph(t, fixtures.Root("extra:1", small(b, "extra")))
	if _, err := s.Add(bg, extra, AddOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(bg, []string{"extra:1"}, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir(), "blobs", "sha256", "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	with := snapshot(t, s.Dir())
	dry, err := s.GC(bg, GCOptions{DryRun: true})
	if err != nil || snapshot(t, s.Dir()) != with {
		t.Errorf("dry run: %v, or the store changed", err)
	}
	got, err := s.GC(bg, GCOptions{})
	if err != nil || got.Blobs != 3 || got.Bytes != extra.Size() || fmt.Sprint(got) != fmt.Sprint(dry) {
		t.Errorf("%+v, %v; dry run %+v", got, err, dry)
	}
	if err := os.Remove(filepath.Join(s.Dir(), "blobs", "sha256", "README")); err != nil {
		t.Errorf("a file that is no blob: %v", err)
	}
	if snapshot(t, s.Dir()) != only {
		t.Error("gc did not lead back to what was")
	}
	checkDiffIDs(t, b.Graph(t, roots...), got.KeepDiffIDs)
	if err := os.Remove(s.blob(roots[0].Descriptor.Digest)); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, s.Dir())
	var bad *manifests.ContentError
	if _, err := s.GC(bg, GCOptions{}); !errors.As(err, &bad) || snapshot(t, s.Dir()) != before {
		t.Errorf("a damaged image: %v, want a ContentError and nothing removed", err)
	}
	if _, err := s.Remove(bg, []string{roots[0].Descriptor.Digest.Encoded()[:12]}, false, nil); err != nil {
		t.Errorf("remove a damaged image: %v", err)
	}
	if _, err := s.GC(bg, GCOptions{}); err != nil {
		t.Error(err)
	}
}

func checkDiffIDs(t *testing.T, g *manifests.Graph, got []digest.Digest) {
	t.Helper()
	var want []digest.Digest
	for _, r := range g.Roots() {
		for _, img := range g.Images(r) {
			for _, l := range img.Layers {
				want = append(want, l.DiffID)
			}
		}
	}
	slices.Sort(want)
	if want = slices.Compact(want); !slices.Equal(want, got) {
		t.Errorf("diffIDs %v, want %v", got, want)
	}
}
