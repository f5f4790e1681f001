package manifests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func graphOf(s Fetcher, jobs int, roots ...Root) (*Graph, error) {
	entries := make([]Entry, len(roots))
	for i, r := range roots {
		entries[i] = Entry{Source: s, Root: r}
	}
	return NewGraph(context.Background(), entries, jobs)
}

// list names the digests by the names given to some descriptors.
func list(known map[string]ocispec.Descriptor, g *Graph) (docs, blobs string) {
	name := func(d digest.Digest) string {
		for n, k := range known {
			if k.Digest == d {
				return n
			}
		}
		return "?"
	}
	var a, b []string
	for _, n := range g.Docs() {
		a = append(a, name(n.Descriptor.Digest))
	}
	for _, d := range g.Blobs() {
		b = append(b, name(d.Digest))
	}
	return strings.Join(a, " "), strings.Join(b, " ")
}

func TestGraph(t *testing.T) {
	s := newStore()
	base, one, two := s.add("", []byte("base")), s.add("", []byte("one")), s.add("", []byte("two"))
	stated := s.add("", []byte("stated"))
	m1, m2 := s.image("linux/amd64", "base", "one"), s.image("linux/arm64", "base", "two")
	att := s.statement("stated")
	odd := s.add("application/x-odd", []byte("odd"))
	x := s.index(m1, m2, att, odd)
	config := func(d ocispec.Descriptor) ocispec.Descriptor {
		m, _ := ParseManifest(s.blobs[d.Digest], d)
		return m.Config
	}
	known := map[string]ocispec.Descriptor{
		"base": base, "one": one, "two": two, "stated": stated, "m1": m1, "m2": m2, "att": att, "odd": odd, "x": x,
		"c1": config(m1), "c2": config(m2), "cA": config(att),
	}
	for _, c := range []struct {
		what        string
		roots       []ocispec.Descriptor
		docs, blobs string
		images      string // how many under each root
	}{
		{"nothing", nil, "", "", "[]"},
		{"a manifest", []ocispec.Descriptor{m1}, "m1 c1", "base one", "[1]"},
		{"an index", []ocispec.Descriptor{x}, "x m1 c1 m2 c2 att", "base one two cA stated odd", "[2]"},
		{"an attestation alone", []ocispec.Descriptor{att}, "att", "cA stated", "[0]"},
		{"two images", []ocispec.Descriptor{m2, m1}, "m2 c2 m1 c1", "base two one", "[1 1]"},
		{"one twice", []ocispec.Descriptor{m1, m1}, "m1 c1", "base one", "[1 1]"},
		{"a child first", []ocispec.Descriptor{m2, x}, "x m1 c1 m2 c2 att", "base two one cA stated odd", "[1 2]"},
		{"a child last", []ocispec.Descriptor{x, m2}, "x m1 c1 att m2 c2", "base one two cA stated odd", "[2 1]"},
		{"a child twice", []ocispec.Descriptor{s.index(m1, m2, m1)}, "? m2 c2 m1 c1", "base one two", "[2]"},
		{"index in index", []ocispec.Descriptor{s.index(m1, x)}, "? x m1 c1 m2 c2 att", "base one two cA stated odd", "[2]"},
	} {
		var roots []Root
		for i, d := range c.roots {
			roots = append(roots, root(fmt.Sprintf("r%d", i), d))
		}
		var first *Graph
		for _, jobs := range []int{0, 1, 8} {
			clear(s.fetched)
			g, err := graphOf(s, jobs, roots...)
			if err != nil {
				t.Fatal(c.what, err)
			}
			checkGraph(t, c.what, s, g)
			if docs, blobs := list(known, g); docs != c.docs || blobs != c.blobs {
				t.Errorf("%s: docs %s, blobs %s", c.what, docs, blobs)
			}
			var n []int
			for _, r := range roots {
				n = append(n, len(g.Images(r)))
			}
			if fmt.Sprint(n) != c.images {
				t.Errorf("%s: images %v", c.what, n)
			}
			if first == nil {
				first = g
			} else if d := cmp.Diff(first.Docs(), g.Docs()) + cmp.Diff(first.Blobs(), g.Blobs()) + cmp.Diff(first.Roots(), g.Roots()); d != "" {
				t.Errorf("%s: %d jobs: %s", c.what, jobs, d)
			}
			for _, n := range g.Docs() {
				if s.fetched[n.Descriptor.Digest] != 1 {
					t.Errorf("%s: a document was read %d times", c.what, s.fetched[n.Descriptor.Digest])
				}
			}
		}
	}
}

// checkGraph holds a graph to what its methods promise.
func checkGraph(t *testing.T, what string, s *store, g *Graph) {
	t.Helper()
	at := map[digest.Digest]int{}
	var size int64
	for i, n := range g.Docs() {
		at[n.Descriptor.Digest] = i
		size += n.Descriptor.Size
		if !bytes.Equal(n.Raw, s.blobs[n.Descriptor.Digest]) {
			t.Errorf("%s: bytes of %s", what, n.Descriptor.Digest)
		}
	}
	if len(at) != len(g.Docs()) {
		t.Errorf("%s: a document is listed twice", what)
	}
	for _, d := range g.Blobs() {
		if _, ok := at[d.Digest]; ok {
			t.Errorf("%s: %s is listed twice", what, d.Digest)
		}
		at[d.Digest] = len(at)
		size += d.Size
	}
	if size != g.Size() {
		t.Errorf("%s: size %d, want %d", what, g.Size(), size)
	}
	for i, n := range g.Docs() {
		for _, d := range linksOf(n) {
			if j, ok := at[d.Digest]; !ok || j <= i {
				t.Errorf("%s: %s comes before its parent, or not at all", what, d.Digest)
			}
			r, err := g.Fetch(context.Background(), d)
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			if raw, err := io.ReadAll(r); err != nil || !bytes.Equal(raw, s.blobs[d.Digest]) {
				t.Errorf("%s: fetch %s: %v", what, d.Digest, err)
			}
		}
	}
}

func linksOf(n Node) []ocispec.Descriptor {
	if x, err := ParseIndex(n.Raw, n.Descriptor); err == nil {
		return x.Manifests
	}
	if m, err := ParseManifest(n.Raw, n.Descriptor); err == nil {
		return append(m.Layers, m.Config)
	}
	return nil
}

func TestGraphArtifacts(t *testing.T) {
	const inToto, cosign = "application/vnd.in-toto+json", "application/vnd.dev.cosign.simplesigning.v1+json"
	for _, c := range []struct {
		what   string
		edit   func(s *store, x *parts, d *ocispec.Descriptor)
		images int
		want   string
	}{
		{"image", func(*store, *parts, *ocispec.Descriptor) {}, 1, "ok"},
		{"attestation", func(_ *store, x *parts, _ *ocispec.Descriptor) { x.manifest.Layers[0].MediaType = inToto }, 0, "ok"},
		{"cosign signature", func(_ *store, x *parts, _ *ocispec.Descriptor) { x.manifest.Layers[0].MediaType = cosign }, 0, "ok"},
		{"chart", func(s *store, x *parts, _ *ocispec.Descriptor) {
			x.manifest.Config = s.add("application/vnd.cncf.helm.config.v1+json", []byte("{}"))
			x.manifest.Layers[0].MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
		}, 0, "ok"},
		{"artifact of the 1.1 kind", func(s *store, x *parts, _ *ocispec.Descriptor) {
			x.manifest.ArtifactType = "application/x-thing"
			x.manifest.Config = s.add(ocispec.MediaTypeEmptyJSON, []byte("{}"))
			x.manifest.Config.Data = []byte("{}")
			x.manifest.Layers[0] = x.manifest.Config
		}, 0, "ok"},
		{"artifact with an image config", func(_ *store, x *parts, _ *ocispec.Descriptor) {
			x.manifest.ArtifactType, x.manifest.Layers[0].MediaType = "application/x-thing", "application/x-content"
		}, 0, "ok"},
		{"image with an artifact type", func(_ *store, x *parts, _ *ocispec.Descriptor) { x.manifest.ArtifactType = "application/x-thing" }, 1, "ok"},
		{"marked as for no platform", func(_ *store, x *parts, d *ocispec.Descriptor) {
			x.manifest.Layers[0].MediaType = "application/x-content"
			d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
		}, 0, "ok"},
		{"an image is one whatever marks it", func(_ *store, x *parts, d *ocispec.Descriptor) {
			d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
			x.config.RootFS.DiffIDs = nil
		}, 0, "malformed"},
		{"unknown layers", func(_ *store, x *parts, _ *ocispec.Descriptor) {
			x.manifest.Layers[0].MediaType = "application/x-content"
		}, 0, "not supported"},
		{"encrypted layers", func(_ *store, x *parts, _ *ocispec.Descriptor) { x.manifest.Layers[0].MediaType += "+encrypted" }, 0, "not supported"},
		{"a statement among layers", func(s *store, x *parts, _ *ocispec.Descriptor) {
			x.manifest.Layers = append(x.manifest.Layers, s.add(inToto, []byte("{}")))
			x.config.RootFS.DiffIDs = append(x.config.RootFS.DiffIDs, digestOf("{}"))
		}, 0, "not supported"},
		{"a manifest for a layer", func(s *store, x *parts, _ *ocispec.Descriptor) {
			x.manifest.Layers[0] = s.image("linux/amd64", "other")
		}, 0, "not supported"},
		{"foreign layer", func(_ *store, x *parts, _ *ocispec.Descriptor) {
			x.manifest.Layers[0].MediaType = MediaTypeDockerForeignLayer
		}, 0, "not supported"},
		{"artifact: bad digest", func(_ *store, x *parts, _ *ocispec.Descriptor) {
			x.manifest.Layers[0].MediaType, x.manifest.Layers[0].Digest = inToto, "x"
		}, 0, "malformed"},
	} {
		s := newStore()
		x := s.parts("linux/amd64", "one")
		var marks ocispec.Descriptor
		c.edit(s, x, &marks)
		d := s.write(x)
		d.Platform = marks.Platform
		top := s.index(d)
		g, err := graphOf(s, 0, root("x", top))
		check(t, c.what, err, c.want)
		if err != nil {
			continue
		}
		checkGraph(t, c.what, s, g)
		if n := len(g.Images(root("x", top))); n != c.images {
			t.Errorf("%s: %d images", c.what, n)
		}
	}
}

func TestGraphRefuses(t *testing.T) {
	schema1 := "application/vnd.docker.distribution.manifest.v1+prettyjws"
	for _, c := range []struct {
		what  string
		roots func(s *store) []ocispec.Descriptor
		want  string
	}{
		{"a root that is a layer", func(s *store) []ocispec.Descriptor {
			return []ocispec.Descriptor{s.add(ocispec.MediaTypeImageLayer, nil)}
		}, "not supported"},
		{"a root of schema 1", func(s *store) []ocispec.Descriptor { return []ocispec.Descriptor{s.add(schema1, []byte("{}"))} }, "not supported"},
		{"a child of schema 1", func(s *store) []ocispec.Descriptor {
			return []ocispec.Descriptor{s.index(s.add(schema1, []byte("{}")))}
		}, "ok"},
		{"a bad root", func(s *store) []ocispec.Descriptor {
			return []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, Digest: "\x1b", Size: 1}}
		}, "malformed"},
		{"an absent child", func(s *store) []ocispec.Descriptor {
			return []ocispec.Descriptor{s.index(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digestOf("none"), Size: 3})}
		}, "not found"},
		{"a damaged child", func(s *store) []ocispec.Descriptor {
			d := s.image("linux/amd64")
			s.blobs[d.Digest] = bytes.ToUpper(s.blobs[d.Digest])
			return []ocispec.Descriptor{s.index(d)}
		}, "digest"},
		{"a child of two sizes", func(s *store) []ocispec.Descriptor {
			d := s.image("linux/amd64")
			e := d
			e.Size++
			return []ocispec.Descriptor{s.index(d, e)}
		}, "size"},
		{"a layer of two sizes", func(s *store) []ocispec.Descriptor {
			x := s.parts("linux/amd64", "one")
			x.manifest.Layers[0].Size++
			return []ocispec.Descriptor{s.image("linux/amd64", "one"), s.write(x)}
		}, "size"},
		{"a layer of two media types", func(s *store) []ocispec.Descriptor {
			x := s.parts("linux/arm64", "one")
			x.manifest.Layers[0].MediaType = MediaTypeDockerLayerGzip
			return []ocispec.Descriptor{s.image("linux/amd64", "one"), s.write(x)}
		}, "ok"},
		{"a child as two kinds of manifest", func(s *store) []ocispec.Descriptor {
			x := s.parts("linux/amd64", "one")
			x.manifest.MediaType = ""
			d := s.write(x)
			e := d
			e.MediaType = MediaTypeDockerManifest
			return []ocispec.Descriptor{s.index(d, e)}
		}, "malformed"},
		{"roots as two kinds of manifest", func(s *store) []ocispec.Descriptor {
			x := s.parts("linux/amd64", "one")
			x.manifest.MediaType = ""
			d := s.write(x)
			e := d
			e.MediaType = MediaTypeDockerManifest
			return []ocispec.Descriptor{d, e}
		}, "malformed"},
		{"a manifest that is also a layer", func(s *store) []ocispec.Descriptor {
			x, inner := s.parts("linux/amd64", "one"), s.image("linux/amd64", "two")
			x.manifest.Layers[0] = inner
			x.manifest.Layers[0].MediaType = ocispec.MediaTypeImageLayer
			return []ocispec.Descriptor{s.write(x), s.index(inner)}
		}, "malformed"},
		{"a manifest that is also an odd child", func(s *store) []ocispec.Descriptor {
			d := s.image("linux/amd64", "two")
			e := d
			e.MediaType = "application/x-odd"
			return []ocispec.Descriptor{s.index(e, d)}
		}, "malformed"},
		{"a config that is also a layer", func(s *store) []ocispec.Descriptor {
			x := s.parts("linux/amd64", "one")
			d := s.write(x)
			y := s.parts("linux/arm64", "one")
			y.manifest.Layers[0] = x.manifest.Config
			y.manifest.Layers[0].MediaType = ocispec.MediaTypeImageLayer
			return []ocispec.Descriptor{s.write(y), d}
		}, "ok"},
	} {
		s := newStore()
		var roots []Root
		for i, d := range c.roots(s) {
			roots = append(roots, root(fmt.Sprintf("r%d", i), d))
		}
		for _, jobs := range []int{1, 8} {
			g, err := graphOf(s, jobs, roots...)
			check(t, c.what, err, c.want)
			if err == nil {
				checkGraph(t, c.what, s, g)
			}
		}
	}
	_, err := graphOf(newStore(), 0, Root{Label: "a\x1b[2J", Descriptor: newStore().image("linux/amd64")})
	if err == nil || strings.Contains(err.Error(), "\x1b") || !strings.HasPrefix(err.Error(), `a\x1b[2J: `) {
		t.Errorf("error of a hostile label: %q", err)
	}
}

func TestGraphDepth(t *testing.T) {
	s := newStore()
	chain := []ocispec.Descriptor{s.image("linux/amd64", "one")}
	for range maxIndexDepth + 1 {
		chain = append(chain, s.index(chain[len(chain)-1]))
	}
	_, err := graphOf(s, 0, root("deepest", chain[maxIndexDepth]))
	check(t, "at the limit", err, "ok")
	_, err = graphOf(s, 0, root("too-deep", chain[maxIndexDepth+1]))
	check(t, "past the limit", err, "limit")
	for _, children := range [][]ocispec.Descriptor{chain, append([]ocispec.Descriptor{chain[maxIndexDepth]}, chain...)} {
		_, err = graphOf(s, 0, root("long-way", s.index(children...)))
		check(t, "a long way beside a short one", err, "limit")
		slices.Reverse(children)
		_, err = graphOf(s, 0, root("long-way", s.index(children...)))
		check(t, "a long way beside a short one, reversed", err, "limit")
	}
}

func TestGraphLimits(t *testing.T) {
	s := newStore()
	var children []ocispec.Descriptor
	for i := range maxDescriptors {
		children = append(children, ocispec.Descriptor{MediaType: "application/x-odd", Digest: digestOf("%d", i), Size: maxBlob})
	}
	_, err := graphOf(s, 0, root("most", s.index(children[1:]...)))
	check(t, "at the limit", err, "ok")
	_, err = graphOf(s, 0, root("more", s.index(children...)))
	check(t, "past the limit", err, "limit")

	var roots []Root
	for n := range 7 {
		for i := range children[1:] {
			children[1+i].Digest = digestOf("%d %d", n, i)
		}
		roots = append(roots, root(fmt.Sprintf("r%d", n), s.index(children[1:]...)))
	}
	g, err := graphOf(s, 0, roots[:6]...)
	if err != nil || g.Size() > maxGraph {
		t.Error(err)
	}
	_, err = graphOf(s, 0, roots...)
	check(t, "more bytes than there are", err, "limit")

	w := &walker{}
	check(t, "as many documents as fit in memory", w.spend(ocispec.Descriptor{Size: maxDocuments}), "ok")
	check(t, "one byte more", w.spend(ocispec.Descriptor{Size: 1}), "limit")
}

func TestGraphCancelled(t *testing.T) {
	s := newStore()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := NewGraph(ctx, []Entry{{s, root("x", s.image("linux/amd64"))}}, 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// opening is a store that can open layers.
type opening struct{ *store }

func (opening) OpenLayer(context.Context, Layer) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("tar")), nil
}

func TestGraphSources(t *testing.T) {
	plain, open := newStore(), opening{newStore()}
	one, two := plain.image("linux/amd64", "base", "one"), open.image("linux/amd64", "base", "two")
	g, err := NewGraph(context.Background(), []Entry{{plain, root("one", one)}, {open, root("two", two)}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	layers := g.Images(root("", two))[0].Layers
	if _, err := g.OpenLayer(context.Background(), layers[0]); err != ErrCompressed {
		t.Errorf("the shared layer comes from the first source, which opens none: %v", err)
	}
	if _, err := g.OpenLayer(context.Background(), layers[1]); err != nil {
		t.Errorf("the second source's layer: %v", err)
	}
	if _, err := g.OpenLayer(context.Background(), Layer{}); err != ErrCompressed {
		t.Errorf("a layer of nothing: %v", err)
	}
	clear(plain.fetched)
	for _, d := range g.Blobs() {
		r, err := g.Fetch(context.Background(), d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
	}
	if plain.fetched[layers[0].Blob.Digest] != 1 || open.fetched[layers[0].Blob.Digest] != 0 {
		t.Error("the shared layer came from the second source")
	}
	_, err = g.Fetch(context.Background(), ocispec.Descriptor{Digest: digestOf("none")})
	check(t, "a blob that is elsewhere", err, "not found")
	wrong := g.Docs()[0].Descriptor
	wrong.Size++
	r, err := g.Fetch(context.Background(), wrong)
	if err == nil {
		_, err = io.ReadAll(r)
	}
	check(t, "a document by a wrong size", err, "truncated")
	if g.Images(root("none", ocispec.Descriptor{Digest: digestOf("none")})) != nil {
		t.Error("images of a root that is not there")
	}
}

func TestRootTexts(t *testing.T) {
	d := ocispec.Descriptor{Digest: digestOf("x")}
	named, labelled, bare := root("nginx:1", d), Root{Label: "v1\x1b", Descriptor: d}, Root{Descriptor: d}
	if named.Display() != "nginx:1" || labelled.Display() != `v1\x1b` || bare.Display() != string(d.Digest) {
		t.Error(named.Display(), labelled.Display(), bare.Display())
	}
	for want, r := range map[State]Root{
		Exact: bare, PlatformState: {Index: d.Digest}, Rebuilt: {Index: d.Digest, Rebuilt: true},
	} {
		if r.State() != want {
			t.Errorf("%s, want %s", r.State(), want)
		}
	}
}

func BenchmarkNewGraph(b *testing.B) {
	s := newStore()
	var roots []Root
	for i := range 100 {
		m := []ocispec.Descriptor{s.image("linux/amd64", "base", fmt.Sprint(i)), s.image("linux/arm64", "base", fmt.Sprint(i))}
		roots = append(roots, root(fmt.Sprintf("r%d", i), s.addJSON(ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: m})))
	}
	for b.Loop() {
		if _, err := graphOf(s, 0, roots...); err != nil {
			b.Fatal(err)
		}
	}
}

// Indexes that share all they list are one root's after another.
func TestSharedImages(t *testing.T) {
	s := newStore()
	s.add("", []byte("layer"))
	var children []ocispec.Descriptor
	for i := range 40 {
		x := s.parts("linux/amd64", "layer")
		x.manifest.Annotations = map[string]string{"i": fmt.Sprint(i)}
		children = append(children, s.write(x))
	}
	shared := s.index(children...)
	var roots []Root
	for i := range 30 {
		roots = append(roots, root("", s.addJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{shared, children[i]}, Annotations: map[string]string{"i": fmt.Sprint(i)},
		})))
	}
	g, err := graphOf(s, 1, roots...)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roots {
		var got []digest.Digest
		for _, img := range g.Images(r) {
			got = append(got, img.Descriptor.Digest)
		}
		if !slices.EqualFunc(got, children, func(a digest.Digest, b ocispec.Descriptor) bool { return a == b.Digest }) {
			t.Errorf("%s: %v", r.Descriptor.Digest, got)
		}
	}
	if len(g.Blobs()) != 1 {
		t.Errorf("%v", g.Blobs())
	}
	w := &walker{nodes: map[digest.Digest]*node{"x": {collected: true, desc: shared, links: make([]ocispec.Descriptor, maxShared+1)}}}
	if w.collect(&Graph{}, "x", nil, map[digest.Digest]bool{}) != nil || w.shared <= maxShared {
		t.Error(w.shared)
	}
}
