package manifests

import (
	"cmp"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
)

// Platforms is a choice of platforms: all of them, or a list of which any
// entry may match. The zero value means the platform this program runs on.
type Platforms struct {
	All  bool
	List []ocispec.Platform
}

// LocalPlatform is the platform of the running program.
func LocalPlatform() ocispec.Platform {
	return normalize(ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH})
}

// ParsePlatforms reads os/arch[/variant] texts, each of which may hold several
// separated by commas, and the words "local" and "all". None at all is the
// zero value. A bad text is an *InputError.
func ParsePlatforms(texts ...string) (Platforms, error) {
	var p Platforms
	for _, text := range texts {
		for _, word := range strings.Split(text, ",") {
			switch word = strings.TrimSpace(word); word {
			case "all":
				p.All = true
			case "local":
				p.List = append(p.List, LocalPlatform())
			default:
				one, err := ParsePlatform(word)
				if err != nil {
					return Platforms{}, err
				}
				p.List = append(p.List, one)
			}
		}
	}
	return p, nil
}

// ParsePlatform reads os/arch[/variant], in the spellings of Go, uname and
// Debian. A bad text is an *InputError.
func ParsePlatform(text string) (ocispec.Platform, error) {
	parts := strings.Split(text, "/")
	bad := &InputError{What: "platform", Input: text, Why: "want os/arch or os/arch/variant, such as linux/amd64"}
	if len(parts) < 2 || len(parts) > 3 {
		return ocispec.Platform{}, bad
	}
	for _, part := range parts {
		if part == "" || strings.IndexFunc(part, notPlatformRune) >= 0 {
			return ocispec.Platform{}, bad
		}
	}
	p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return normalize(p), nil
}

func notPlatformRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
}

// FormatPlatform is the mirror of ParsePlatform, safe to print. What a platform
// leaves out is "unknown".
func FormatPlatform(p ocispec.Platform) string {
	s := cmp.Or(p.OS, "unknown") + "/" + cmp.Or(p.Architecture, "unknown")
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return quote.Clean(s)
}

// Match reports whether the choice takes an image of platform p. A choice
// without a variant takes every variant.
func (c Platforms) Match(p ocispec.Platform) bool {
	return c.All || slices.ContainsFunc(c.wanted(), func(want ocispec.Platform) bool { return rank(want, p) > 0 })
}

// wanted is the list of platforms chosen, unless it is all.
func (c Platforms) wanted() []ocispec.Platform {
	if len(c.List) == 0 {
		return []ocispec.Platform{LocalPlatform()}
	}
	return c.List
}

// rank says how well an image of platform p serves where want is wanted: 0 not
// at all; most where the variants agree. A want without a variant is best
// served by the variant that runs everywhere, which an image without one is
// for; on arm, where there is none, by v7, as docker decides.
func rank(want, p ocispec.Platform) int {
	want, p = normalize(want), normalize(p)
	if p.OS != want.OS || p.Architecture != want.Architecture {
		return 0
	}
	if p.Architecture == "arm" {
		p.Variant = cmp.Or(p.Variant, armDefault)
	}
	switch {
	case p.Variant == want.Variant, want.Variant == "" && p.Architecture == "arm" && p.Variant == armDefault:
		return 2
	case want.Variant == "":
		return 1
	}
	return 0
}

// armDefault is the variant docker takes an arm image without one to be.
const armDefault = "v7"

// normalize maps the spellings in the wild onto Go's, and drops the variants
// that are an architecture's only one.
func normalize(p ocispec.Platform) ocispec.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	if p.OS == "macos" {
		p.OS = "darwin"
	}
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "i386", "i686":
		p.Architecture = "386"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	switch {
	case p.Architecture == "amd64" && p.Variant == "v1", p.Architecture == "arm64" && (p.Variant == "v8" || p.Variant == "8"):
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant != "" && p.Variant[0] != 'v':
		p.Variant = "v" + p.Variant
	}
	return p
}

// String lists the choice as it would be typed.
func (c Platforms) String() string {
	if c.All {
		return "all"
	}
	if len(c.List) == 0 {
		return FormatPlatform(LocalPlatform())
	}
	words := make([]string, len(c.List))
	for i, p := range c.List {
		words[i] = FormatPlatform(p)
	}
	return strings.Join(words, ",")
}
