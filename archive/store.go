package archive

import (
	"context"
	"io"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/manifests"
)

// Store is the local store.
type Store struct{ dir string }

// OpenStore returns the store at dir. It is created on first write.
func OpenStore(dir string) (*Store, error) { return &Store{dir}, nil }

// Dir is the directory of the store.
func (s *Store) Dir() string { return s.dir }

// LayerDir is where unpacked layers of the store's images are kept.
func (s *Store) LayerDir() string { return filepath.Join(s.dir, "layers") }

// Roots returns the images of the store, sorted by name.
func (s *Store) Roots(ctx context.Context) ([]manifests.Root, error) { return nil, nil }

// Fetch gives a blob.
func (s *Store) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return nil, &manifests.NotFoundError{Subject: "blob " + string(d.Digest), In: s.dir}
}

// Close ends the use of the store.
func (s *Store) Close() error { return nil }

// Resolve finds an image.
func (s *Store) Resolve(n manifests.Name) (manifests.Root, error) {
	return manifests.Root{}, &manifests.NotFoundError{Subject: "image " + n.Familiar(), In: s.dir}
}

// AddOptions are options of Store.Add. The zero value works.
type AddOptions struct {
	Jobs     int
	Progress manifests.Progress
	Force    bool // an existing tag may move to another digest
}

// AddResult says what became of one root.
type AddResult struct {
	Root        manifests.Root
	Previous    digest.Digest // what the tag named before; "" if it was not there
	New, Shared int64         // bytes stored for it, and bytes it needed that were there
}

// Add stores all of g.
func (s *Store) Add(ctx context.Context, g *manifests.Graph, o AddOptions) ([]AddResult, error) {
	return nil, errUnfinished
}

// Tag gives the image src the further name dst.
func (s *Store) Tag(ctx context.Context, src, dst manifests.Name) error { return errUnfinished }

// Removed is one name taken from an image.
type Removed struct {
	Name   manifests.Name // zero for an image that had none
	Digest digest.Digest  // of the manifest or index
	Last   bool           // the image has no other name; GC will free what only it used
}

// Remove takes names from images.
func (s *Store) Remove(ctx context.Context, names []string, force bool) ([]Removed, error) {
	return nil, errUnfinished
}

// GCOptions are options of Store.GC.
type GCOptions struct {
	DryRun bool // count only
}

// GCResult says what GC removed, or would remove.
type GCResult struct {
	Blobs       int
	Temps       int // left-overs of killed runs
	Bytes       int64
	KeepDiffIDs []digest.Digest // of every layer of every image still there
}

// GC removes what no image of the store needs.
func (s *Store) GC(ctx context.Context, o GCOptions) (GCResult, error) { return GCResult{}, errUnfinished }
