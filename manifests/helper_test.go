package manifests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// store is a source in memory that counts what is asked of it.
type store struct {
	mu      sync.Mutex
	blobs   map[digest.Digest][]byte
	fetched map[digest.Digest]int
}

func newStore() *store {
	return &store{blobs: map[digest.Digest][]byte{}, fetched: map[digest.Digest]int{}}
}

func (s *store) add(mediaType string, raw []byte) ocispec.Descriptor {
	d := digest.FromBytes(raw)
	s.blobs[d] = raw
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}
}

func (s *store) addJSON(mediaType string, v any) ocispec.Descriptor {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return s.add(mediaType, raw)
}

func (s *store) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetched[d.Digest]++
	raw, ok := s.blobs[d.Digest]
	if !ok {
		return nil, &NotFoundError{Subject: "blob " + string(d.Digest), In: "memory"}
	}
	return BytesReader(raw, d), nil
}

// parts are an image before it is written.
type parts struct {
	manifest ocispec.Manifest
	config   ocispec.Image
}

// parts makes an image of some layers, whose texts are given, for a platform.
func (s *store) parts(platform string, layers ...string) *parts {
	p, err := ParsePlatform(platform)
	if err != nil {
		panic(err)
	}
	x := &parts{
		manifest: ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}},
		config:   ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}},
	}
	for _, text := range layers {
		x.manifest.Layers = append(x.manifest.Layers, s.add(ocispec.MediaTypeImageLayerGzip, []byte(text)))
		x.config.RootFS.DiffIDs = append(x.config.RootFS.DiffIDs, digest.FromString("tar of "+text))
	}
	return x
}

// write adds the image's config and manifest.
func (s *store) write(x *parts) ocispec.Descriptor {
	if x.manifest.Config.Digest == "" {
		x.manifest.Config = s.addJSON(ocispec.MediaTypeImageConfig, x.config)
	}
	d := s.addJSON(ocispec.MediaTypeImageManifest, x.manifest)
	if x.manifest.MediaType != "" {
		d.MediaType = x.manifest.MediaType
	}
	return d
}

func (s *store) image(platform string, layers ...string) ocispec.Descriptor {
	x := s.parts(platform, layers...)
	d := s.write(x)
	d.Platform = &x.config.Platform
	return d
}

func (s *store) index(children ...ocispec.Descriptor) ocispec.Descriptor {
	return s.addJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: children,
	})
}

// statement is an attestation as BuildKit writes it.
func (s *store) statement(text string) ocispec.Descriptor {
	x := s.parts("unknown/unknown", text)
	x.manifest.Layers[0].MediaType = "application/vnd.in-toto+json"
	d := s.write(x)
	d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	return d
}

func root(name string, d ocispec.Descriptor) Root {
	if name == "" {
		return Root{Descriptor: d}
	}
	n, err := ParseName(name, "")
	if err != nil {
		panic(err)
	}
	return Root{Name: n, Descriptor: d}
}

func names(roots []Root) string {
	var words []string
	for _, r := range roots {
		words = append(words, r.Display())
	}
	return strings.Join(words, " ")
}

// outcome is an error's type, and its kind where it has one.
func outcome(err error) string {
	var content *ContentError
	var missing *NotFoundError
	var unsupported *UnsupportedError
	var input *InputError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &content):
		return string(content.Kind)
	case errors.As(err, &missing):
		return "not found"
	case errors.As(err, &unsupported):
		return "not supported"
	case errors.As(err, &input):
		return "input"
	}
	return err.Error()
}

func check(t *testing.T, what string, err error, want string) {
	t.Helper()
	if got := outcome(err); got != want {
		t.Errorf("%s: %s (%v), want %s", what, got, err, want)
	}
	if err != nil {
		if text := err.Error(); strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) || len(text) > 2000 {
			t.Errorf("%s: message is not fit to print: %q", what, text)
		}
	}
}

func hex(n int) string { return strings.Repeat("a", n) }

func digestOf(format string, args ...any) digest.Digest {
	return digest.FromString(fmt.Sprintf(format, args...))
}
