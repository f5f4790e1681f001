package manifests

import (
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Transport says what kind of place a reference points to.
type Transport string

// The transports. Auto is a name without a prefix (the store first, then, for
// commands that may dial, its registry); Path is a file or directory whose
// format is found by looking at it.
const (
	Auto          Transport = ""
	Registry      Transport = "docker"
	Layout        Transport = "oci"
	LayoutArchive Transport = "oci-archive"
	DockerArchive Transport = "docker-archive"
	Dir           Transport = "dir"
	Store         Transport = "store"
	Path          Transport = "path"
	Stdin         Transport = "-"
)

// Reference is a place images are read from or written to, as typed by a
// user: a transport, a name or a path, and optionally which images there.
type Reference struct {
	Transport Transport
	Name      Name   // Auto, Registry and Store
	Path      string // the others; as typed
	Image     string // which image at Path: a name, a tag or a layout's label; "" is all
	Digest    digest.Digest
	Position  int // docker-archive's :@N, counted from 0; -1 when not given
}

// ParseReference reads:
//
//	nginx:1.27                    Auto
//	docker://quay.io/a/b:1        Registry
//	store:nginx:1.27              Store
//	oci:DIR[:IMAGE|@DIGEST]       Layout
//	oci-archive:FILE[:IMAGE|@DIGEST]
//	docker-archive:FILE[:REF|:@N] DockerArchive
//	dir:DIR                       Dir
//	./x.tar /m/x site.imgpack     Path
//	site.imgpack//nginx:1.27      Path with one image in it
//	-                             Stdin
//
// A bare word is never a path, whatever lies in the working directory: a path
// has a slash in front ("/", "./", "../") or ends in .imgpack, .tar, .tgz,
// .tar.gz, .tar.zst or .001. IMAGE and REF are as FindRoots reads them.
// defaultRegistry is ParseName's. A bad text is an *InputError.
func ParseReference(text, defaultRegistry string) (Reference, error) {
	bad := func(why string) (Reference, error) {
		return Reference{}, &InputError{What: "reference", Input: text, Why: why}
	}
	named := func(t Transport, s string) (Reference, error) {
		n, err := ParseName(s, defaultRegistry)
		if err != nil {
			return Reference{}, err
		}
		return Reference{Transport: t, Name: n, Position: -1}, nil
	}
	if text == "-" {
		return Reference{Transport: Stdin, Position: -1}, nil
	}
	if rest, ok := strings.CutPrefix(text, "docker://"); ok {
		return named(Registry, rest)
	}
	prefix, rest, colon := strings.Cut(text, ":")
	if !colon {
		prefix = "" // an image may well be called oci or store
	}
	switch t := Transport(prefix); t {
	case Store:
		return named(Store, rest)
	case Layout, LayoutArchive, DockerArchive:
		return parseArchive(t, rest, bad)
	case Dir:
		if rest == "" {
			return bad("a directory must follow dir:")
		}
		return Reference{Transport: Dir, Path: rest, Position: -1}, nil
	case "docker-daemon", "podman", "containerd":
		return bad("engines are not read yet; save the image to a file there, and give the file")
	}
	if file, image, ok := cutInside(text); ok {
		if image == "" {
			return bad("an image name must follow //")
		}
		r := Reference{Transport: Path, Path: file, Image: image, Position: -1}
		if file == "-" {
			r.Transport, r.Path = Stdin, ""
		}
		return r, nil
	}
	if looksLikePath(text) {
		return Reference{Transport: Path, Path: text, Position: -1}, nil
	}
	return named(Auto, text)
}

// parseArchive reads what follows oci:, oci-archive: and docker-archive:. As in
// skopeo the path ends at the first colon, so that the image may hold more of
// them: oci:DIR:api:v1.
func parseArchive(t Transport, rest string, bad func(string) (Reference, error)) (Reference, error) {
	r := Reference{Transport: t, Position: -1}
	path, image, named := strings.Cut(rest, ":")
	switch at := strings.LastIndexByte(path, '@'); {
	case t == DockerArchive && strings.HasPrefix(image, "@"):
		n, err := strconv.ParseUint(image[1:], 10, 31)
		if err != nil {
			return bad("a number must follow :@")
		}
		r.Position = int(n)
	case t != DockerArchive && named && at >= 0 && hexLength[path[at+1:]] > 0:
		r.Digest = digest.Digest(rest[at+1:])
		if CheckDigest(r.Digest) != nil {
			return bad("what follows @ is not a sha256 or sha512 digest")
		}
		path = path[:at]
	case named && image == "":
		return bad("an image must follow the colon")
	default:
		r.Image = image
	}
	if r.Path = path; path == "" {
		return bad("a path must follow " + string(t) + ":")
	}
	return r, nil
}

// cutInside splits FILE//IMAGE at the last double slash; sloppy paths such as
// /mnt//x.tar have them too.
func cutInside(text string) (file, image string, ok bool) {
	i := strings.LastIndex(text, "//")
	if i < 0 || looksLikePath(text[i+2:]) || text[:i] != "-" && !looksLikePath(text[:i]) {
		return "", "", false
	}
	return text[:i], text[i+2:], true
}

func looksLikePath(s string) bool {
	for _, p := range []string{"/", "./", "../"} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	for _, suffix := range []string{".imgpack", ".tar", ".tgz", ".tar.gz", ".tar.zst", ".001"} {
		if strings.HasSuffix(s, suffix) {
			return true
		}
	}
	return s == "." || s == ".."
}

// String is the text ParseReference reads back, in full form.
func (r Reference) String() string {
	switch r.Transport {
	case Auto:
		return r.Name.String()
	case Registry:
		return "docker://" + r.Name.String()
	case Store:
		return "store:" + r.Name.String()
	case Stdin, Path:
		s := r.Path
		if r.Transport == Stdin {
			s = "-"
		}
		if r.Image != "" {
			s += "//" + r.Image
		}
		return s
	}
	s := string(r.Transport) + ":" + r.Path
	switch {
	case r.Digest != "":
		s += "@" + string(r.Digest)
	case r.Position >= 0:
		s += ":@" + strconv.Itoa(r.Position)
	case r.Image != "":
		s += ":" + r.Image
	}
	return s
}
