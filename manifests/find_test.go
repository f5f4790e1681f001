package manifests

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestFindRoots(t *testing.T) {
	d := func(first string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest("sha256:" + filled(first))}
	}
	pin := "sha256:" + filled("4b0001")
	roots := []Root{
		root("nginx:1.27", d("4b0000")),
		root("nginx:latest", d("4b0001")),
		root("redis:1.27", d("4b0002")),
		root("quay.io/a/nginx:1.27@"+pin, d("4b0001")),
		{Label: "stable", Descriptor: d("feedface")},
		{Label: "api:v1", Name: root("api:v1", d("")).Name, Descriptor: d("c0ffee")},
		{Label: "v9", Name: root("tool:v8", d("")).Name, Descriptor: d("abcdef01")},
		{Descriptor: ocispec.Descriptor{Digest: digest.Digest("sha512:" + filled("99") + filled(""))}},
		{Label: "deadbeef", Descriptor: d("00000000")},
		root("x:1", d("deadbeef")),
		root("gone@"+pin, d("4b0001")),
	}
	for _, c := range []struct{ image, want string }{
		{"", names(roots)},
		{"nginx:1.27", "nginx:1.27"},
		{"docker.io/library/nginx:1.27", "nginx:1.27"},
		{"index.docker.io/nginx:1.27", "nginx:1.27"},
		{"nginx", "nginx:latest"},
		{"quay.io/a/nginx:1.27", "quay.io/a/nginx:1.27@" + pin},
		{"quay.io/a/nginx@" + pin, "quay.io/a/nginx:1.27@" + pin},
		{"quay.io/a/nginx:1.27@" + pin, "quay.io/a/nginx:1.27@" + pin},
		{"nginx@" + pin, "nginx:latest"},
		{"gone@" + pin, "gone@" + pin},
		{"gone", "not found"},
		{"quay.io/a/nginx:1@" + pin, "not found"},
		{"nginx:1.27@" + pin, "not found"},
		{"nginx@" + someDigest, "not found"},
		{"stable", "stable"},
		{"api:v1", "api:v1"},
		{"docker.io/library/api:v1", "api:v1"},
		{"v9", "tool:v8"},
		{"v8", "tool:v8"},
		{"1.27", "nginx:1.27 redis:1.27 quay.io/a/nginx:1.27@" + pin},
		{"latest", "nginx:latest"},
		{pin, "nginx:latest quay.io/a/nginx:1.27@" + pin + " gone@" + pin},
		{"4b0001", "nginx:latest quay.io/a/nginx:1.27@" + pin + " gone@" + pin},
		{"sha256:4b0002", "redis:1.27"},
		{"4b000", "not found"},
		{"sha256:4b00", "not found"},
		{"sha256:", "not found"},
		{"4b000000000000", "nginx:1.27"},
		{"4B0002", "not found"},
		{"4b0003", "not found"},
		{"deadbeef", "deadbeef"}, // labels go before digests
		{"feedface", "stable"},
		{"000000", "deadbeef"},
		{string(roots[7].Descriptor.Digest), string(roots[7].Descriptor.Digest)},
		{"sha512:" + filled("99"), "not found"}, // no prefixes of these
		{"nginx:1.28", "not found"},
		{"ngnix", "not found"},
		{"\x1b[2J", "not found"},
		{"../x", "not found"},
	} {
		found, err := FindRoots(roots, c.image, "site.imgpack")
		if c.want == "not found" {
			check(t, c.image, err, c.want)
			var missing *NotFoundError
			if errors.As(err, &missing) && (missing.In != "site.imgpack" || len(missing.Have) != len(roots) || !strings.HasPrefix(missing.Subject, `image "`)) {
				t.Errorf("%q: %+v", c.image, missing)
			}
			continue
		}
		if err != nil || names(found) != c.want {
			t.Errorf("%q: %s, %v, want %s", c.image, names(found), err, c.want)
		}
	}
	_, err := FindRoots([]Root{{Descriptor: d("4b00001")}, {Descriptor: d("4b00002")}}, "4b0000", "x")
	check(t, "ambiguous", err, "input")
	_, err = FindRoots(nil, "nginx", "")
	check(t, "nowhere", err, "not found")
}

// filled fills up hexadecimal digits with zeros.
func filled(first string) string { return first + strings.Repeat("0", 64-len(first)) }

func TestSuggest(t *testing.T) {
	have := []string{"nginx:1.27", "redis:7", "registry.example.com/team/nginx:1.27", "Postgres:16", "ab", "naïve:1"}
	for word, want := range map[string]string{
		"ngnix:1.27":                            "nginx:1.27",
		"nginx:1.28":                            "nginx:1.27",
		"nginx:127":                             "nginx:1.27",
		"NGINX:1.27":                            "nginx:1.27",
		"nginx":                                 "nginx:1.27",
		"rediss:7":                              "redis:7",
		"redi":                                  "",
		"redis":                                 "redis:7",
		"postgres:15":                           "Postgres:16",
		"registry.example.com":                  "registry.example.com/team/nginx:1.27",
		"registry.exmple.com/taem/nginx:1.27":   "registry.example.com/team/nginx:1.27",
		"registry.example.com/team/redis:7":     "",
		"a":                                     "",
		"ac":                                    "",
		"abc":                                   "ab",
		"":                                      "",
		"naive:1":                               "naïve:1",
		"mysql:8":                               "",
		"nginx:1.27" + strings.Repeat("x", 500): "",
	} {
		if got := Suggest(word, have); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
	if Suggest("x", nil) != "" || Suggest("abc", []string{strings.Repeat("abc", 500)}) != "" {
		t.Error("something out of nothing")
	}
	if got := Suggest("pakc", []string{"push", "pull", "pack", "unpack"}); got != "pack" {
		t.Error(got)
	}
	if got := Suggest("verfy", []string{"verify", "very"}); got != "verify" {
		t.Error(got)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "axc", 1}, {"abc", "abxc", 1},
		{"ca", "abc", 3}, {"kitten", "sitting", 3}, {"abcdef", "badcfe", 3}, {"aaaa", "bbbb", 4}, {"aaaaaaaa", "bbbbbbbb", 5},
	} {
		if got, back := distance(c.a, c.b, 5), distance(c.b, c.a, 5); got != c.want || back != c.want {
			t.Errorf("%q, %q: %d, %d, want %d", c.a, c.b, got, back, c.want)
		}
	}
}
