package manifests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// addAll seeds a fuzz target of one string.
func addAll(f *testing.F, words ...string) {
	for _, w := range words {
		f.Add(w)
	}
}

func FuzzParseName(f *testing.F) {
	addAll(f, "", "nginx", "nginx:1.27", "a/b/c:d@"+someDigest, "localhost:5000/a", "localhost/a", "QUAY.io/a", "index.docker.io/a",
		"docker.io/localhost/x", "docker.io/foo.bar/x", "docker.io/Foo/x", "[::1]:5000/a:b", "library/a/b", "docker.io/library/sha256:"+hex(64),
		hex(64), hex(64)+":x", someDigest, "a..b", "a__b/c---d", "a@sha512:"+hex(128), "https://a/b", "a//b", "é", "a\x00", strings.Repeat("a", 300))
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseName(text, "")
		if err != nil {
			check(t, text, err, "input")
			return
		}
		for _, form := range []string{n.String(), n.Familiar()} {
			if back, err := ParseName(form, ""); err != nil || back != n {
				t.Errorf("%q: %q reads back as %+v, %v", text, form, back, err)
			}
		}
		if tagged, ok := n.Tagged(); ok {
			if back, err := ParseName(tagged.String(), ""); err != nil || back != tagged {
				t.Errorf("%q: %q reads back as %+v, %v", text, tagged, back, err)
			}
		}
		other, err := ParseName(text, "registry.example.com")
		if err != nil {
			if len(n.Repository()) < maxNameLength-len("registry.example.com") {
				t.Errorf("%q: %v with another default registry", text, err)
			}
		} else if back, err := ParseName(other.String(), "registry.example.com"); err != nil || back != other {
			t.Errorf("%q: %q reads back as %+v, %v", text, other, back, err)
		}
	})
}

func FuzzParseReference(f *testing.F) {
	addAll(f, "", "-", "-//a", "nginx", "docker://a/b:c", "store:a", "oci:dir", "oci:dir:api:v1", "oci:dir@"+someDigest, "oci:a@b:c",
		"oci:d:n@"+someDigest, "oci-archive:x:y", "docker-archive:x:@3", "docker-archive:x:a/b:c", "dir:x:y", "podman:x", "./a//b", "/a//b.tar",
		"a.imgpack//b:c", "a//b.tgz//c", "//", "a.tar//", "oci:@"+someDigest, "oci:d@sha256:x", "store:oci:x", ".", "a.001")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseReference(text, "")
		if err != nil {
			check(t, text, err, "input")
			return
		}
		if back, err := ParseReference(r.String(), ""); err != nil || back != r {
			t.Errorf("%q: %q reads back as %+v, %v, not %+v", text, r, back, err, r)
		}
		byName := r.Transport == Auto || r.Transport == Registry || r.Transport == Store
		if byName == r.Name.IsZero() || byName != (r.Path == "" && r.Transport != Stdin) {
			t.Errorf("%q: %+v", text, r)
		}
		if r.Digest != "" && CheckDigest(r.Digest) != nil || r.Position < -1 {
			t.Errorf("%q: %+v", text, r)
		}
	})
}

func FuzzParsePlatform(f *testing.F) {
	addAll(f, "", "/", "linux/amd64", "Linux/X86_64/V1", "linux/armhf/v8", "linux/arm/7", "linux/arm64/8", "a/b/c/d", "linux/\x1b", "macos/aarch64")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePlatform(text)
		if err != nil {
			check(t, text, err, "input")
			return
		}
		if len(text) < 150 { // longer ones are cut
			if back, err := ParsePlatform(FormatPlatform(p)); err != nil || !reflect.DeepEqual(back, p) {
				t.Errorf("%q: %q reads back as %+v, %v", text, FormatPlatform(p), back, err)
			}
		}
		if !(Platforms{List: []ocispec.Platform{p}}).Match(p) {
			t.Errorf("%q does not take itself", text)
		}
	})
}

func FuzzDecodeJSON(f *testing.F) {
	addAll(f, ``, `{}`, `{"size":1,"size":2}`, `{"Size":1}`, `{"\u017fize":1}`, `{"layers":[{"digest":"x","data":"AA=="}]}`, `{} {}`,
		`{"map":{"a":{"os":"b"}},"any":[null,{"a":1}],"raw":{"x":[1,2]}}`, `[[[[]]]]`, `"x"`, `1e9`, `{"when":"2024-01-01T00:00:00Z"}`,
		"\ufeff{}", "{\"\xff\":1}", `{"Opt":{"deep":"x"},"deep":"y","leaf":"z"}`, nested(70, ""), `{"\ud800":1}`, `{"a":1,}`, `{"-":"x"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var v document
		err := DecodeJSON([]byte(text), "test", &v)
		if err != nil {
			if got := outcome(err); got != "malformed" && got != "limit" {
				t.Errorf("%q: %v", text, err)
			}
			check(t, text, err, outcome(err))
			return
		}
		var plain document
		if err := json.Unmarshal([]byte(text), &plain); err != nil || !reflect.DeepEqual(plain, v) {
			t.Errorf("%q: encoding/json reads %+v, %v", text, plain, err)
		}
		// A reader that sorts keys, or keeps the first of two, sees the same.
		var generic any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&generic); err != nil {
			t.Fatal(err)
		}
		sorted, err := json.Marshal(generic)
		if err != nil {
			t.Fatal(err)
		}
		var other document
		if err := DecodeJSON(sorted, "sorted", &other); err != nil && len(sorted) < MaxDocument {
			t.Errorf("%q: sorted: %v", text, err)
		}
		v.Raw, other.Raw = nil, nil
		if !reflect.DeepEqual(v, other) {
			t.Errorf("%q: sorted, it reads as %+v", text, other)
		}
	})
}

// manifestSeeds are documents of both kinds, good and not.
func manifestSeeds(f *testing.F) {
	s := newStore()
	x := s.parts("linux/amd64", "one", "two")
	d := s.write(x)
	statement, index := s.statement("s"), s.index(d)
	for _, d := range []ocispec.Descriptor{d, statement, index, s.index(index, statement)} {
		f.Add(s.blobs[d.Digest], s.blobs[x.manifest.Config.Digest])
	}
	for _, raw := range []string{
		`{"schemaVersion":1,"fsLayers":[]}`, `{"schemaVersion":2,"manifests":[],"layers":[]}`, `{"schemaVersion":2}`, `{"Layers":[]}`,
		`{"schemaVersion":2,"config":{"digest":"sha256:` + hex(64) + `","size":-1}}`, `[]`, `null`, ``,
	} {
		f.Add([]byte(raw), []byte(`{"rootfs":{"type":"layers","diff_ids":[""]}}`))
	}
}

func FuzzParseManifest(f *testing.F) {
	manifestSeeds(f)
	f.Fuzz(func(t *testing.T, raw, _ []byte) {
		for _, mediaType := range []string{ocispec.MediaTypeImageManifest, MediaTypeDockerManifest} {
			m, err := ParseManifest(raw, ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw)})
			if err != nil {
				checkRefusal(t, err)
				continue
			}
			checkUsable(t, append(m.Layers, m.Config))
			for _, kind := range []string{ocispec.MediaTypeImageIndex, MediaTypeDockerManifestList} {
				if _, err := ParseIndex(raw, ocispec.Descriptor{MediaType: kind, Digest: digest.FromBytes(raw)}); err == nil {
					t.Errorf("%s reads both ways", raw)
				}
			}
		}
	})
}

func FuzzParseIndex(f *testing.F) {
	manifestSeeds(f)
	f.Fuzz(func(t *testing.T, raw, _ []byte) {
		x, err := ParseIndex(raw, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(raw)})
		if err != nil {
			checkRefusal(t, err)
			return
		}
		checkUsable(t, x.Manifests)
	})
}

func checkRefusal(t *testing.T, err error) {
	t.Helper()
	switch got := outcome(err); got {
	case "malformed", "limit", "size", "digest", "not supported":
		check(t, "", err, got)
	default:
		t.Errorf("not one of our errors: %v", err)
	}
}

func checkUsable(t *testing.T, list []ocispec.Descriptor) {
	t.Helper()
	for _, d := range list {
		if err := CheckDescriptor(d); err != nil {
			t.Error(err)
		}
	}
}

// FuzzLoadImage reads any manifest with any config, whatever the digests in
// the manifest are.
func FuzzLoadImage(f *testing.F) {
	manifestSeeds(f)
	f.Fuzz(func(t *testing.T, raw, config []byte) {
		if m := map[string]any{}; json.Unmarshal(raw, &m) == nil && m["config"] != nil {
			m["config"] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
			raw, _ = json.Marshal(m)
		}
		s := newStore()
		s.add("", config)
		d := s.add(ocispec.MediaTypeImageManifest, raw)
		img, err := LoadImage(context.Background(), s, d)
		if err != nil {
			if outcome(err) != "not found" {
				checkRefusal(t, err)
			}
		} else {
			if len(img.Layers) != len(img.Manifest.Layers) || len(img.Layers) != len(img.Config.RootFS.DiffIDs) || img.Size() < d.Size {
				t.Errorf("%+v", img)
			}
			for _, l := range img.Layers {
				if CheckDescriptor(l.Blob) != nil || CheckDigest(l.DiffID) != nil || CheckDigest(l.ChainID) != nil || l.Compression == "" {
					t.Errorf("%+v", l)
				}
			}
		}
		g, err := graphOf(s, 1, root("x", d))
		if err == nil {
			_, err = Select(context.Background(), s, root("x", d), Platforms{List: []ocispec.Platform{LocalPlatform()}})
			checkGraphSums(t, g)
		}
		if err != nil && outcome(err) != "not found" {
			checkRefusal(t, err)
		}
	})
}

func checkGraphSums(t *testing.T, g *Graph) {
	t.Helper()
	seen := map[digest.Digest]bool{}
	for _, d := range g.Blobs() {
		seen[d.Digest] = true
	}
	for _, n := range g.Docs() {
		seen[n.Descriptor.Digest] = true
	}
	if len(seen) != len(g.Docs())+len(g.Blobs()) || g.Size() < 0 {
		t.Errorf("a graph of %d blobs lists %d documents and %d others", len(seen), len(g.Docs()), len(g.Blobs()))
	}
}

func FuzzParseLayoutIndex(f *testing.F) {
	s := newStore()
	m := s.image("linux/amd64", "one")
	for _, roots := range [][]Root{
		{}, {root("nginx:1", m)}, {{Label: "api:v1", Descriptor: m}, {Name: root("b@"+someDigest, m).Name, Descriptor: m, Index: someDigest}},
		{{Name: root("a:1", m).Name, Label: "b", Descriptor: m, Rebuilt: true}},
	} {
		raw, err := FormatLayoutIndex(roots)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + someDigest + `","annotations":{"org.opencontainers.image.ref.name":"\u202e<&>"}}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		roots, err := ParseLayoutIndex(raw)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		again, err := FormatLayoutIndex(roots)
		if err != nil {
			if len(raw) < MaxDocument/8 { // escaping and our own annotations make it longer
				t.Fatal(err)
			}
			return
		}
		back, err := ParseLayoutIndex(again)
		if err != nil || fmt.Sprintf("%#v", back) != fmt.Sprintf("%#v", roots) && !sameRoots(back, roots) {
			t.Errorf("%s reads back differently from %s: %v", again, raw, err)
		}
		for _, r := range roots {
			if found, err := FindRoots(roots, r.Label, "x"); err != nil || len(found) == 0 {
				t.Errorf("%q is not found by its label: %v", r.Label, err)
			}
		}
	})
}

// sameRoots compares without telling nil from empty.
func sameRoots(a, b []Root) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func FuzzCheckDigest(f *testing.F) {
	addAll(f, "", ":", "sha256:", someDigest, "sha512:"+hex(128), "sha384:"+hex(96), "sha256:../x", someDigest+"\n", strings.ToUpper(someDigest), "a+b:c=")
	f.Fuzz(func(t *testing.T, text string) {
		d := digest.Digest(text)
		err := CheckDigest(d)
		known := strings.HasPrefix(text, "sha256:") || strings.HasPrefix(text, "sha512:")
		if (err == nil) != (known && d.Validate() == nil) {
			t.Errorf("%q: %v, go-digest says %v", text, err, d.Validate())
		}
		if err != nil {
			check(t, text, err, "malformed")
		}
	})
}

func FuzzVerifyReader(f *testing.F) {
	f.Add([]byte("hello"), []byte("hello"), 2)
	f.Add([]byte("hello"), []byte("hellO"), 100)
	f.Add([]byte(""), []byte(""), 1)
	f.Add([]byte("ab"), []byte("a"), 1)
	f.Add([]byte("a"), []byte("ab"), 1)
	f.Fuzz(func(t *testing.T, want, got []byte, piece int) {
		if piece < 1 || piece > 1<<16 {
			piece = 3
		}
		d := ocispec.Descriptor{Digest: digest.FromBytes(want), Size: int64(len(want))}
		var out bytes.Buffer
		r := VerifyReader(io.NopCloser(bytes.NewReader(got)), d)
		_, err := io.CopyBuffer(struct{ io.Writer }{&out}, r, make([]byte, piece))
		if (err == nil) != bytes.Equal(want, got) {
			t.Errorf("%q for %q: %v", got, want, err)
		}
		if out.Len() > len(want) {
			t.Errorf("%d bytes let through for %d", out.Len(), len(want))
		}
	})
}

func FuzzSuggest(f *testing.F) {
	f.Add("ngnix", "nginx", "redis")
	f.Add("", "", "")
	f.Add("nginx", "nginx:1", "\xff")
	f.Fuzz(func(t *testing.T, word, a, b string) {
		if got := Suggest(word, []string{a, b}); got != "" && got != a && got != b {
			t.Errorf("%q out of %q and %q", got, a, b)
		}
		if len(word) > 2 && len(word) <= maxSuggest && Suggest(word, []string{word}) != word {
			t.Errorf("%q is not near itself", word)
		}
	})
}
