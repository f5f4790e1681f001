package archive

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// skopeoDir is what skopeo calls dir: (containers-transports(5)): one image or
// index as manifest.json, blobs named by their hex, the manifests under an
// index as HEX.manifest.json.
type skopeoDir struct {
	root *os.Root
	name string
	top  manifests.Root
}

var _ Source = (*skopeoDir)(nil)

func newSkopeoDir(root *os.Root, path string) (*skopeoDir, error) {
	s := &skopeoDir{root: root, name: quote.Clean(path)}
	version, err := readDocument(root, "version")
	if err != nil {
		return nil, within(s.name, err)
	}
	if !strings.HasPrefix(string(version), "Directory Transport Version: 1.") {
		return nil, &manifests.UnsupportedError{Subject: s.name, Reason: "its version file says " + quote.Text(strings.TrimSpace(string(version)))}
	}
	raw, err := readDocument(root, "manifest.json")
	if err != nil {
		return nil, within(s.name, err)
	}
	s.top.Descriptor = ocispec.Descriptor{MediaType: mediaTypeOf(raw), Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return s, nil
}

// mediaTypeOf guesses the media type of a manifest that lies there without a
// descriptor. A wrong guess is refused where the manifest is parsed.
func mediaTypeOf(raw []byte) string {
	var m struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := manifests.DecodeJSON(raw, "manifest.json", &m); err == nil && m.MediaType != "" {
		return m.MediaType
	}
	if m.Manifests != nil {
		return ocispec.MediaTypeImageIndex
	}
	return ocispec.MediaTypeImageManifest
}

// Format is FormatDir.
func (s *skopeoDir) Format() Format { return FormatDir }

func (s *skopeoDir) Roots(ctx context.Context) ([]manifests.Root, error) {
	return []manifests.Root{s.top}, ctx.Err()
}

func (s *skopeoDir) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return fetchFile(ctx, s.root, s.name, d, s.path)
}

func (s *skopeoDir) path(d digest.Digest) string {
	if d == s.top.Descriptor.Digest {
		return "manifest.json"
	}
	hex := d.Encoded()
	if _, err := s.root.Lstat(hex); errors.Is(err, fs.ErrNotExist) {
		return hex + ".manifest.json"
	}
	return hex
}

// Local is true. See manifests.LocalFetcher.
func (*skopeoDir) Local(digest.Digest) bool { return true }

func (s *skopeoDir) Close() error { return s.root.Close() }
