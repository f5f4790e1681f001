package manifests

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestLayoutMarker(t *testing.T) {
	for raw, want := range map[string]string{
		LayoutMarker:                      "ok",
		`{"imageLayoutVersion":"1.1.0"}`:  "ok",
		`{"imageLayoutVersion":"2.0.0"}`:  "not supported",
		`{"imageLayoutVersion":"\u001b"}`: "not supported",
		`{}`:                              "not supported",
		`{"ImageLayoutVersion":"1.0.0"}`:  "malformed",
		`x`:                               "malformed",
	} {
		check(t, raw, ParseLayoutMarker([]byte(raw)), want)
	}
}

func TestLayoutIndexRoundTrip(t *testing.T) {
	s := newStore()
	m := s.image("linux/arm64/v9", "one")
	x := s.index(m)
	bare := m
	bare.Platform = nil
	for _, roots := range [][]Root{
		{},
		{root("nginx:1.27", x)},
		{root("nginx:1.27", x), root("quay.io:443/a/b:1@"+string(x.Digest), x), root("b@"+string(m.Digest), m)},
		{{Descriptor: bare}},
		{{Label: "stable", Descriptor: m}, {Label: "any \u202e text", Descriptor: m}},
		{{Name: root("nginx:1", m).Name, Label: "stable", Descriptor: m}},
		{{Name: root("nginx:1", m).Name, Descriptor: m, Index: x.Digest}},
		{{Name: root("nginx:1", m).Name, Descriptor: x, Rebuilt: true}},
		{{Name: root("nginx:1", m).Name, Label: "redis:1", Descriptor: x}},
	} {
		raw, err := FormatLayoutIndex(roots)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseLayoutIndex(raw)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(roots, back); d != "" {
			t.Errorf("%s: %s", names(roots), d)
		}
		if again, err := FormatLayoutIndex(back); err != nil || string(again) != string(raw) {
			t.Errorf("%s: written again as %s", raw, again)
		}
	}
}

func TestFormatAnnotatedIndex(t *testing.T) {
	raw, err := FormatAnnotatedIndex(nil, map[string]string{"b": "2", "a": "1"})
	if want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"a":"1","b":"2"}}`; err != nil || string(raw) != want {
		t.Error(string(raw), err)
	}
	_, err = FormatLayoutIndex([]Root{{Descriptor: ocispec.Descriptor{Digest: "x"}}})
	check(t, "a root with a bad digest", err, "malformed")
	_, err = FormatLayoutIndex(make([]Root, maxManifests+1))
	check(t, "too many roots", err, "limit")
}

// What others write.
func TestParseLayoutIndex(t *testing.T) {
	const ref, full = ocispec.AnnotationRefName, annotationFullName
	for _, c := range []struct {
		what        string
		annotations string
		want        Root
	}{
		{"nothing", ``, Root{}},
		{"skopeo's tag", `"` + ref + `":"1.27"`, Root{Label: "1.27"}},
		{"skopeo's name", `"` + ref + `":"api:v1"`, Root{Name: root("api:v1", ocispec.Descriptor{}).Name}},
		{"podman's name", `"` + ref + `":"quay.io/a/b:1"`, Root{Name: root("quay.io/a/b:1", ocispec.Descriptor{}).Name}},
		{"containerd's and docker's", `"` + full + `":"docker.io/library/a:1","` + ref + `":"1"`, Root{Name: root("a:1", ocispec.Descriptor{}).Name}},
		{"containerd's, another tag", `"` + full + `":"docker.io/library/a:1","` + ref + `":"2"`, Root{Name: root("a:1", ocispec.Descriptor{}).Name, Label: "2"}},
		{"a label that is another name", `"` + full + `":"a:1","` + ref + `":"b:1"`, Root{Name: root("a:1", ocispec.Descriptor{}).Name, Label: "b:1"}},
		{"a label without its tag", `"` + ref + `":"team/app"`, Root{Name: root("team/app", ocispec.Descriptor{}).Name}},
		{"a bad name", `"` + full + `":"A:1"`, Root{}},
		{"a bad name and a good label", `"` + full + `":"A:1","` + ref + `":"b:2"`, Root{Name: root("b:2", ocispec.Descriptor{}).Name}},
		{"a label that is no name", `"` + ref + `":"../../etc"`, Root{Label: "../../etc"}},
		{"an option for a label", `"` + ref + `":"--force"`, Root{Label: "--force"}},
		{"a bad index", `"` + annotationIndex + `":"sha256:x"`, Root{}},
		{"an unsure rebuilt", `"` + annotationRebuilt + `":"yes"`, Root{}},
		{"others", `"org.opencontainers.image.created":"now"`, Root{}},
	} {
		raw := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":3,"annotations":{%s}}]}`, ocispec.MediaTypeImageManifest, digestOf("x"), c.annotations)
		c.want.Descriptor = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digestOf("x"), Size: 3}
		roots, err := ParseLayoutIndex([]byte(raw))
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if d := cmp.Diff([]Root{c.want}, roots); d != "" {
			t.Errorf("%s: %s", c.what, d)
		}
	}
	_, err := ParseLayoutIndex([]byte(`{"schemaVersion":2,"manifests":[{}]}`))
	if check(t, "bad descriptor", err, "malformed"); !strings.Contains(err.Error(), "index.json") {
		t.Error(err)
	}
}
