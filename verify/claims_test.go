package verify_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/verify"
)

func manifestOf(t *testing.T, b *fixtures.Blobs, d ocispec.Descriptor) ocispec.Manifest {
	t.Helper()
	m, err := manifests.ParseManifest(b.Bytes(d.Digest), d)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func configOf(t *testing.T, b *fixtures.Blobs, m ocispec.Manifest) (c ocispec.Image) {
	t.Helper()
	if err := json.Unmarshal(b.Bytes(m.Config.Digest), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

var index = ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}

func TestRedundantClaims(t *testing.T) {
	type edit func(m *ocispec.Manifest, c *ocispec.Image)
	for what, c := range map[string]struct {
		edit    edit
		deep    bool
		kind    manifests.Kind
		subject string
		message string
	}{
		"fewer diffIDs": {func(_ *ocispec.Manifest, c *ocispec.Image) { c.RootFS.DiffIDs = c.RootFS.DiffIDs[:1] }, false,
			manifests.KindMalformed, "manifest ", "2 layers, but the config lists 1 diffIDs"},
		"history": {func(_ *ocispec.Manifest, c *ocispec.Image) { c.History = c.History[:1] }, false,
			manifests.KindMalformed, "config ", "history tells of 1 layers"},
		"no history": {func(_ *ocispec.Manifest, c *ocispec.Image) { c.History = nil }, false, "", "", ""},
		"bad diffID": {func(_ *ocispec.Manifest, c *ocispec.Image) { c.RootFS.DiffIDs[0] = "md5:00" }, false,
			manifests.KindMalformed, "manifest ", "md5:00"},
		"wrong diffID, not unpacked": {func(_ *ocispec.Manifest, c *ocispec.Image) { c.RootFS.DiffIDs[1] = digest.FromString("x") }, false, "", "", ""},
		"wrong diffID": {func(_ *ocispec.Manifest, c *ocispec.Image) { c.RootFS.DiffIDs[1] = digest.FromString("x") }, true,
			manifests.KindDiffID, "layer 2 of 2 ", "its config says " + string(digest.FromString("x"))},
		"zstd under gzip's name": {func(m *ocispec.Manifest, _ *ocispec.Image) { m.Layers[1].MediaType = ocispec.MediaTypeImageLayerGzip }, false,
			manifests.KindMalformed, "layer 2 of 2 ", "compression is zstd"},
		"unknown layer": {func(m *ocispec.Manifest, _ *ocispec.Image) { m.Layers[1].MediaType += "+encrypted" }, false,
			manifests.KindUnsupported, "manifest ", "encrypted"},
		"foreign layer": {func(m *ocispec.Manifest, _ *ocispec.Image) {
			m.Layers[1].MediaType = manifests.MediaTypeDockerForeignLayer
		}, false,
			manifests.KindUnsupported, "manifest ", "foreign"},
		"size": {func(m *ocispec.Manifest, _ *ocispec.Image) { m.Layers[1].Size++ }, false,
			manifests.KindTruncated, "layer 2 of 2 ", "missing"},
		"rootfs type": {func(_ *ocispec.Manifest, c *ocispec.Image) { c.RootFS.Type = "\x1b[2J" }, false,
			manifests.KindMalformed, "manifest ", "rootfs type"},
	} {
		b := fixtures.NewBlobs()
		m := manifestOf(t, b, fixtures.Sample(b)[0].Descriptor)
		config := configOf(t, b, m)
		c.edit(&m, &config)
		m.Config = b.AddJSON(m.Config.MediaType, config)
		r := run(t, b, []manifests.Root{fixtures.Root("a:1", b.AddJSON(m.MediaType, m))}, verify.Options{Deep: c.deep})
		if c.kind == "" {
			if len(findings(r)) != 0 {
				t.Errorf("%s: %+v", what, findings(r))
			}
			continue
		}
		one(t, what, r, c.kind, c.subject, c.message)
		if f := findings(r); len(f) > 0 && strings.ContainsFunc(f[0].Message+f[0].Subject, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%s: not safe to print: %q", what, f[0].Message)
		}
	}
}

func TestIndexClaims(t *testing.T) {
	b := fixtures.NewBlobs()
	sample := fixtures.Sample(b)
	of := func(entries ...ocispec.Descriptor) manifests.Root {
		x := index
		x.Manifests = entries
		return fixtures.Root("x:1", b.AddJSON(x.MediaType, x))
	}
	image := sample[0].Descriptor
	elsewhere := image
	elsewhere.Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	one(t, "platform", run(t, b, []manifests.Root{of(elsewhere)}, verify.Options{}), manifests.KindMalformed, string(image.Digest), "linux/s390x")

	spelled := image
	spelled.Platform = &ocispec.Platform{OS: "linux", Architecture: map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[manifests.LocalPlatform().Architecture]}
	if r := run(t, b, []manifests.Root{of(spelled)}, verify.Options{}); len(findings(r)) != 0 && spelled.Platform.Architecture != "" {
		t.Errorf("another spelling: %+v", findings(r))
	}

	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 6}
	one(t, "absent child", run(t, b, []manifests.Root{of(image, absent)}, verify.Options{}), manifests.KindMissing, string(absent.Digest), "not there")

	lie := image
	lie.Size++
	r := run(t, b, []manifests.Root{of(image, lie)}, verify.Options{})
	one(t, "two sizes", r, manifests.KindSize, string(image.Digest), "in one place")

	deep := of(of(of(of(image).Descriptor).Descriptor).Descriptor)
	one(t, "nested", run(t, b, []manifests.Root{deep}, verify.Options{}), manifests.KindLimit, "index ", "nested deeper")

	note := b.Add("text/plain", []byte("a note"))
	if r := run(t, b, []manifests.Root{of(image, note)}, verify.Options{}); r.Verdict != verify.Pass || check(t, r, "digests").Items != 6 {
		t.Errorf("entry that is no document: %+v %+v", check(t, r, "digests"), findings(r))
	}
	both := image
	both.MediaType = ocispec.MediaTypeImageIndex
	r = run(t, b, []manifests.Root{of(image, both)}, verify.Options{})
	one(t, "as manifest and index", r, manifests.KindMalformed, string(image.Digest), "elsewhere")

	schema1 := b.Add("application/vnd.docker.distribution.manifest.v1+json", []byte(`{"schemaVersion":1,"fsLayers":[]}`))
	one(t, "schema 1", run(t, b, []manifests.Root{fixtures.Root("old:1", schema1)}, verify.Options{}), manifests.KindUnsupported, string(schema1.Digest), "neither")
}

func TestArtifactsAreHashedAndNotUnpacked(t *testing.T) {
	b := fixtures.NewBlobs()
	content := b.Add("application/vnd.example", []byte("not a layer"))
	empty := b.Add("application/vnd.oci.empty.v1+json", []byte("{}"))
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example", Config: empty, Layers: []ocispec.Descriptor{content}}
	roots := []manifests.Root{fixtures.Root("artifact:1", b.AddJSON(m.MediaType, m))}
	r := run(t, b, roots, verify.Options{Deep: true})
	if r.Verdict != verify.Pass || check(t, r, "digests").Items != 3 || check(t, r, "layers").Items != 0 {
		t.Errorf("%+v", r)
	}
	damage(b, content.Digest, "flip")
	one(t, "artifact", run(t, b, roots, verify.Options{Deep: true}), manifests.KindDigest, "artifact content "+string(content.Digest), "")
}

func TestHostileLayers(t *testing.T) {
	for _, h := range fixtures.HostileLayers() {
		if h.Placed() {
			continue
		}
		b := fixtures.NewBlobs()
		roots := []manifests.Root{fixtures.Root("hostile:1", h.Image(b))}
		r := run(t, b, roots, verify.Options{Deep: true})
		var bad []manifests.Kind
		for _, f := range findings(r) {
			if !f.Warn {
				bad = append(bad, f.Kind)
			}
			if strings.ContainsFunc(f.Message, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%q: not safe to print: %q", h.Name, f.Message)
			}
		}
		switch h.Want {
		case fixtures.Any:
		case "":
			if len(bad) != 0 {
				t.Errorf("%q: %+v, want it taken", h.Name, findings(r))
			}
		case fixtures.Refused:
			if len(bad) == 0 {
				t.Errorf("%q: want it refused", h.Name)
			}
		default:
			if !slices.Contains(bad, h.Want) {
				t.Errorf("%q: %+v, want %q", h.Name, findings(r), h.Want)
			}
		}
	}
}

func TestNotes(t *testing.T) {
	b := fixtures.NewBlobs()
	layer := func(f ...fixtures.File) []manifests.Root {
		d := b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: append(f, fixtures.File{Name: "d/"})}}})
		return []manifests.Root{fixtures.Root("dev:1", d)}
	}
	r := run(t, b, layer(
		fixtures.File{Name: "dev/null", Type: '3', Major: 1, Minor: 3}, fixtures.File{Name: "dev/zero", Type: '3', Major: 1, Minor: 5},
		fixtures.File{Name: "dev/plain", Xattrs: map[string]string{"security.selinux": "label"}}), verify.Options{Deep: true})
	if c := check(t, r, "layers"); c.Result != verify.ResultPass || !strings.HasSuffix(c.Detail, "; 0 setuid, 2 devices") {
		t.Errorf("%+v", c)
	}
	forged := map[string]string{"trusted.overlay.opaque": "y"}
	r = run(t, b, layer(fixtures.File{Name: "a\x1b", Xattrs: forged}, fixtures.File{Name: "b", Xattrs: forged}), verify.Options{Deep: true})
	one(t, "overlay's own attribute", r, manifests.KindMalformed, "layer 1 of 1", `entry "a\x1b": extended attribute "trusted.overlay.opaque" (2 such entries)`)
	if r.Images[0].Result != verify.ResultWarn {
		t.Errorf("%+v", r.Images)
	}
}
