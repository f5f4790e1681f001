package manifests

import (
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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

// ParsePlatform reads os/arch[/variant].
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

// FormatPlatform is the mirror of ParsePlatform.
func FormatPlatform(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// Match reports whether the choice takes an image of platform p.
func (c Platforms) Match(p ocispec.Platform) bool {
	if c.All {
		return true
	}
	list := c.List
	if len(list) == 0 {
		list = []ocispec.Platform{LocalPlatform()}
	}
	p = normalize(p)
	for _, want := range list {
		if p.OS == want.OS && p.Architecture == want.Architecture && (want.Variant == "" || p.Variant == want.Variant) {
			return true
		}
	}
	return false
}

// normalize maps the spellings in the wild onto Go's, and drops the variants
// that are an architecture's only one.
func normalize(p ocispec.Platform) ocispec.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
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
