package manifests

import (
	"runtime"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64":      "linux/amd64",
		"Linux/X86_64":     "linux/amd64",
		"linux/x86-64":     "linux/amd64",
		"linux/amd64/v1":   "linux/amd64",
		"linux/amd64/v3":   "linux/amd64/v3",
		"linux/aarch64":    "linux/arm64",
		"linux/arm64/v8":   "linux/arm64",
		"linux/arm64/8":    "linux/arm64",
		"linux/arm64/v9":   "linux/arm64/v9",
		"linux/arm":        "linux/arm",
		"linux/arm/7":      "linux/arm/v7",
		"linux/arm/v6":     "linux/arm/v6",
		"linux/armhf":      "linux/arm/v7",
		"linux/armel":      "linux/arm/v6",
		"linux/i386":       "linux/386",
		"linux/i686":       "linux/386",
		"linux/s390x":      "linux/s390x",
		"windows/amd64":    "windows/amd64",
		"macos/arm64":      "darwin/arm64",
		"unknown/unknown":  "unknown/unknown",
		"wasip1/wasm":      "wasip1/wasm",
		"linux/mips64le/x": "linux/mips64le/x",
	} {
		p, err := ParsePlatform(in)
		if err != nil || FormatPlatform(p) != want {
			t.Errorf("%s: %s, %v, want %s", in, FormatPlatform(p), err, want)
		}
		if back, err := ParsePlatform(want); err != nil || FormatPlatform(back) != want {
			t.Errorf("%s reads back as %s, %v", want, FormatPlatform(back), err)
		}
	}
	for _, in := range []string{"", "/", "linux", "amd64", "linux/", "/amd64", "linux//v7", "linux/arm/v7/x", "linux/arm/", "linux /amd64", "linux/\x1b", "линукс/amd64", "windows(10.0)/amd64"} {
		_, err := ParsePlatform(in)
		check(t, in, err, "input")
	}
}

func TestFormatPlatformOfForeignText(t *testing.T) {
	for want, p := range map[string]ocispec.Platform{
		"unknown/unknown":       {},
		"linux/unknown":         {OS: "linux"},
		`linux/\x1b[2J`:         {OS: "linux", Architecture: "\x1b[2J"},
		`linux/amd64/\u202eabc`: {OS: "linux", Architecture: "amd64", Variant: "\u202eabc"},
	} {
		if got := FormatPlatform(p); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestParsePlatforms(t *testing.T) {
	local := runtime.GOOS + "/" + runtime.GOARCH
	for _, c := range []struct{ in, want string }{
		{"", local},
		{"all", "all"},
		{"local", local},
		{"linux/amd64", "linux/amd64"},
		{"linux/amd64,linux/arm64/v8", "linux/amd64,linux/arm64"},
		{"linux/amd64 linux/arm64", "linux/amd64,linux/arm64"},
		{"linux/s390x,\tlocal", "linux/s390x," + local},
		{"linux/amd64,all", "all"},
	} {
		p, err := ParsePlatforms(strings.Split(c.in, " ")...)
		if c.in == "" {
			p, err = ParsePlatforms()
		}
		if err != nil || p.String() != c.want {
			t.Errorf("%q: %s, %v", c.in, p, err)
		}
	}
	for _, in := range []string{"", ",", "linux/amd64,", "every", "linux"} {
		p, err := ParsePlatforms(in)
		check(t, in, err, "input")
		if p.All || p.List != nil {
			t.Errorf("%q: %v came with an error", in, p)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		choice, image string
		want          bool
	}{
		{"all", "plan9/mips", true},
		{"linux/amd64", "linux/amd64", true},
		{"linux/amd64", "linux/amd64/v2", true},
		{"linux/amd64/v2", "linux/amd64/v2", true},
		{"linux/amd64/v2", "linux/amd64", false},
		{"linux/amd64/v2", "linux/amd64/v3", false},
		{"linux/amd64", "windows/amd64", false},
		{"linux/arm64", "linux/arm64/v8", true},
		{"linux/arm64/v8", "linux/arm64", true},
		{"linux/arm", "linux/arm/v5", true},
		{"linux/arm/v7", "linux/arm", true},
		{"linux/arm/v6", "linux/arm", false},
		{"linux/arm64", "linux/arm/v8", false},
		{"linux/amd64,linux/arm64", "linux/arm64", true},
		{"linux/amd64,linux/arm64", "linux/386", false},
		{"linux/amd64", "unknown/unknown", false},
	} {
		choice, err := ParsePlatforms(c.choice)
		if err != nil {
			t.Fatal(err)
		}
		image, err := ParsePlatform(c.image)
		if err != nil {
			t.Fatal(err)
		}
		if choice.Match(image) != c.want {
			t.Errorf("%s takes %s: %v", c.choice, c.image, !c.want)
		}
	}
	if zero := (Platforms{}); !zero.Match(LocalPlatform()) || zero.Match(ocispec.Platform{OS: "plan9", Architecture: "none"}) {
		t.Error("the zero choice is not the local platform")
	}
	raw := Platforms{List: []ocispec.Platform{{OS: "Linux", Architecture: "x86_64"}}}
	if !raw.Match(ocispec.Platform{OS: "linux", Architecture: "amd64"}) {
		t.Error("spellings differ")
	}
}

func TestMediaTypes(t *testing.T) {
	for _, c := range []struct {
		mediaType                                        string
		manifest, index, config, layer, carried, foreign bool
	}{
		{mediaType: ocispec.MediaTypeImageManifest, manifest: true},
		{mediaType: MediaTypeDockerManifest, manifest: true},
		{mediaType: ocispec.MediaTypeImageIndex, index: true},
		{mediaType: MediaTypeDockerManifestList, index: true},
		{mediaType: ocispec.MediaTypeImageConfig, config: true},
		{mediaType: MediaTypeDockerConfig, config: true},
		{mediaType: ocispec.MediaTypeImageLayer, layer: true, carried: true},
		{mediaType: ocispec.MediaTypeImageLayerGzip, layer: true, carried: true},
		{mediaType: ocispec.MediaTypeImageLayerZstd, layer: true, carried: true},
		{mediaType: MediaTypeDockerLayer, layer: true, carried: true},
		{mediaType: MediaTypeDockerLayerGzip, layer: true, carried: true},
		{mediaType: MediaTypeDockerLayerZstd, layer: true, carried: true},
		{mediaType: MediaTypeDockerForeignLayer, layer: true, foreign: true},
		{mediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", layer: true, foreign: true},
		{mediaType: "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", layer: true},
		{mediaType: "application/vnd.docker.distribution.manifest.v1+prettyjws"},
		{mediaType: "APPLICATION/VND.OCI.IMAGE.MANIFEST.V1+JSON"},
		{mediaType: ocispec.MediaTypeImageManifest + "; charset=utf-8"},
		{mediaType: "application/json"},
		{mediaType: ""},
	} {
		_, carried := LayerCompression(c.mediaType)
		got := []bool{IsManifest(c.mediaType), IsIndex(c.mediaType), IsImageConfig(c.mediaType), isLayer(c.mediaType), carried, isForeignLayer(c.mediaType)}
		for i, want := range []bool{c.manifest, c.index, c.config, c.layer, c.carried, c.foreign} {
			if got[i] != want {
				t.Errorf("%s: question %d: %v", c.mediaType, i, got[i])
			}
		}
	}
	for mediaType, want := range map[string]Compression{
		ocispec.MediaTypeImageLayer: Uncompressed, MediaTypeDockerLayer: Uncompressed,
		ocispec.MediaTypeImageLayerGzip: Gzip, MediaTypeDockerLayerGzip: Gzip,
		ocispec.MediaTypeImageLayerZstd: Zstd, MediaTypeDockerLayerZstd: Zstd,
	} {
		if got, _ := LayerCompression(mediaType); got != want {
			t.Errorf("%s: %s", mediaType, got)
		}
	}
}
