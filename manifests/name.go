package manifests

import (
	"strings"

	"github.com/opencontainers/go-digest"
)

// DefaultRegistry is the registry of a name that names none.
const DefaultRegistry = "docker.io"

// Name is a normalised image name: registry, repository, and a tag, a digest
// or both. With both, the digest decides and the tag is remembered. The zero
// Name is that of an image without one.
type Name struct {
	Domain string // docker.io, registry.example.com:5000
	Path   string // library/nginx
	Tag    string
	Digest digest.Digest
}

// maxNameLength bounds domain and path together: the distribution
// specification warns that many clients, docker 20.10 among them, refuse more.
const maxNameLength = 255

// ParseName reads a name as docker does: a first component without dot, colon
// or upper-case letter that is not "localhost" is no registry, a single
// component is in library/, index.docker.io is docker.io, and a name with
// neither tag nor digest is tagged latest. The registry keeps its case. A bare
// digest or image ID is no name.
//
// defaultRegistry stands in for a missing registry; empty means
// DefaultRegistry. A bad name is an *InputError.
func ParseName(text, defaultRegistry string) (Name, error) {
	bad := func(why string) (Name, error) {
		return Name{}, &InputError{What: "image name", Input: text, Why: why}
	}
	if defaultRegistry == "" {
		defaultRegistry = DefaultRegistry
	} else if !isDomain(defaultRegistry) {
		return Name{}, &InputError{What: "default registry", Input: defaultRegistry, Why: "want a host with a dot or a port, such as registry.example.com"}
	}
	var n Name
	rest := text
	if at := strings.IndexByte(rest, '@'); at >= 0 {
		n.Digest = digest.Digest(rest[at+1:])
		if CheckDigest(n.Digest) != nil {
			return bad("what follows @ is not a sha256 or sha512 digest")
		}
		rest = rest[:at]
	}
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, '/') {
		n.Tag = rest[colon+1:]
		if !isTag(n.Tag) {
			return bad("the tag may hold letters, digits, '_', '.' and '-', 128 at most, and not begin with '.' or '-'")
		}
		rest = rest[:colon]
	}
	n.Domain, n.Path = splitDomain(rest, defaultRegistry)
	switch {
	case rest == "":
		return bad("it is empty")
	case strings.HasPrefix(text, "http://"), strings.HasPrefix(text, "https://"):
		return bad("leave out http:// or https://")
	case len(n.Domain)+1+len(n.Path) > maxNameLength:
		return bad("it is longer than 255 characters")
	case !isRegistry(n.Domain):
		return bad("the registry part is not a host name with an optional port")
	case strings.ToLower(n.Path) != n.Path:
		return bad("the repository must be lower-case")
	case !isRepository(n.Path):
		return bad("the repository may hold a-z, 0-9 and single separators '.', '_', '-', '/'")
	case isHexID(text), CheckDigest(digest.Digest(n.Familiar())) == nil:
		return bad("a digest alone is no name; write NAME@sha256:...")
	}
	if n.Tag == "" && n.Digest == "" {
		n.Tag = "latest"
	}
	return n, nil
}

func splitDomain(s, defaultRegistry string) (domain, path string) {
	domain, path = defaultRegistry, s
	if first, rest, ok := strings.Cut(s, "/"); ok && isDomain(first) {
		domain, path = first, rest
	}
	if domain == "index.docker.io" {
		domain = DefaultRegistry
	}
	if domain == DefaultRegistry && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	return domain, path
}

// isDomain reports whether the first component of a name is taken for a
// registry.
func isDomain(first string) bool {
	return strings.ContainsAny(first, ".:") || first == "localhost" || strings.ToLower(first) != first
}

// IsZero reports whether the image has no name.
func (n Name) IsZero() bool { return n == Name{} }

// Repository is the name without tag and digest: docker.io/library/nginx.
func (n Name) Repository() string {
	if n.IsZero() {
		return ""
	}
	return n.Domain + "/" + n.Path
}

// String is the full form: docker.io/library/nginx:1.27@sha256:…. It parses
// back to the same Name.
func (n Name) String() string { return n.suffixed(n.Repository()) }

// Familiar is the short form docker shows: nginx:1.27. It parses back to the
// same Name where docker.io is the default registry.
func (n Name) Familiar() string { return n.suffixed(n.FamiliarRepository()) }

// FamiliarRepository is Repository as docker shows it: nginx. The rare
// repository of docker.io whose path would be taken for another registry's
// (docker.io/localhost/x) stays in full.
func (n Name) FamiliarRepository() string {
	if n.Domain != DefaultRegistry {
		return n.Repository()
	}
	if rest, ok := strings.CutPrefix(n.Path, "library/"); ok && !strings.Contains(rest, "/") {
		return rest
	}
	if first, _, _ := strings.Cut(n.Path, "/"); isDomain(first) {
		return n.Repository()
	}
	return n.Path
}

func (n Name) suffixed(s string) string {
	if n.Tag != "" {
		s += ":" + n.Tag
	}
	if n.Digest != "" {
		s += "@" + string(n.Digest)
	}
	return s
}

// Tagged is the name without its digest; false when it has no tag.
func (n Name) Tagged() (Name, bool) {
	n.Digest = ""
	return n, n.Tag != ""
}
