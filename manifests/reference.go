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
//	oci:DIR[:TAG|@DIGEST]         Layout
//	oci-archive:FILE[:TAG|@DIGEST]
//	docker-archive:FILE[:REF|:@N] DockerArchive
//	dir:DIR                       Dir
//	./x.tar /m/x site.imgpack     Path
//	site.imgpack//nginx:1.27      Path with one image in it
//	-                             Stdin
//
// A bare word is never a path, whatever lies in the working directory: a path
// has a slash in front ("/", "./", "../") or ends in .imgpack, .tar, .tgz,
// .tar.gz, .tar.zst or .001. A bad text is an *InputError.
func ParseReference(text, defaultRegistry string) (Reference, error) {
	bad := func(why string) (Reference, error) {
		return Reference{}, &InputError{What: "reference", Input: text, Why: why}
	}
	named := func(t Transport, s string) (Reference, error) {
		n, err := ParseName(s, defaultRegistry)
		return Reference{Transport: t, Name: n, Position: -1}, err
	}
	if text == "-" {
		return Reference{Transport: Stdin, Position: -1}, nil
	}
	if rest, ok := strings.CutPrefix(text, "docker://"); ok {
		return named(Registry, rest)
	}
	prefix, rest, _ := strings.Cut(text, ":")
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

func parseArchive(t Transport, rest string, bad func(string) (Reference, error)) (Reference, error) {
	r := Reference{Transport: t, Path: rest, Position: -1}
	if path, d, ok := strings.Cut(rest, "@"); ok && t != DockerArchive && CheckDigest(digest.Digest(d)) == nil {
		r.Path, r.Digest = path, digest.Digest(d)
	} else if path, image, ok := strings.Cut(rest, ":"); ok {
		r.Path, r.Image = path, image
		if image == "" {
			return bad("an image must follow the last colon")
		}
		if at, ok := strings.CutPrefix(image, "@"); ok && t == DockerArchive {
			n, err := strconv.ParseUint(at, 10, 31)
			if err != nil {
				return bad("a number must follow :@")
			}
			r.Image, r.Position = "", int(n)
		}
	}
	if r.Path == "" {
		return bad("a path must follow " + string(t) + ":")
	}
	return r, nil
}

// cutInside splits FILE//IMAGE.
func cutInside(text string) (file, image string, ok bool) {
	for from := 1; ; {
		i := strings.Index(text[min(from, len(text)):], "//")
		if i < 0 {
			return "", "", false
		}
		if i += from; looksLikePath(text[:i]) || text[:i] == "-" {
			return text[:i], text[i+2:], true
		}
		from = i + 1
	}
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
