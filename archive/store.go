package archive

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// Store is the local store: an OCI image layout in a directory, whose
// index.json names the images, and beside it
//
//	lock       held by whoever changes index.json or blobs; holds its process id
//	tmp/       unfinished work, each piece locked by the process it belongs to
//	unpacked/  unpacked layers, which belong to package unpack
//	run/       what running sandboxes write
//
// Blobs are copied into tmp and forced to disk without holding the lock, then
// renamed into place under it, index.json last: readers need no lock, a killed
// process leaves only blobs that no image needs. A Store may be used by any
// number of goroutines and processes at once.
type Store struct {
	dir    string
	closed atomic.Bool
}

var _ Source = (*Store)(nil)

// OpenStore returns the store at dir. The directory is made by the first write;
// one that is not there is an empty store.
func OpenStore(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return nil, &manifests.UnsupportedError{Subject: "store " + quote.Clean(dir), Reason: "not a directory"}
	}
	return &Store{dir: dir}, nil
}

// Dir is the directory of the store.
func (s *Store) Dir() string { return s.dir }

// LayerDir is the directory for unpacked layers of the store's images. It need
// not be there.
func (s *Store) LayerDir() string { return filepath.Join(s.dir, "unpacked") }

// Format is FormatStore.
func (s *Store) Format() Format { return FormatStore }

// Roots returns the images of the store, sorted by name, those without a name
// last.
func (s *Store) Roots(ctx context.Context) ([]manifests.Root, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.roots()
}

func (s *Store) roots() ([]manifests.Root, error) {
	root, err := s.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	raw, err := readDocument(root, "index.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, within(s.place(), err)
	}
	roots, err := manifests.ParseLayoutIndex(raw)
	if err != nil {
		return nil, within(s.place(), err)
	}
	sortRoots(roots)
	return roots, nil
}

func (s *Store) open() (*os.Root, error) {
	if s.closed.Load() {
		return nil, &fs.PathError{Op: "read", Path: s.dir, Err: fs.ErrClosed}
	}
	return os.OpenRoot(s.dir)
}

// place names the store in messages.
func (s *Store) place() string { return "store " + quote.Clean(s.dir) }

func sortRoots(roots []manifests.Root) {
	slices.SortStableFunc(roots, func(a, b manifests.Root) int {
		if a.Name.IsZero() != b.Name.IsZero() {
			if a.Name.IsZero() {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(a.Name.String(), b.Name.String()), cmp.Compare(a.Descriptor.Digest, b.Descriptor.Digest))
	})
}

// Fetch gives a blob of the store. See manifests.Fetcher.
func (s *Store) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	root, err := s.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &manifests.NotFoundError{Subject: "blob " + string(d.Digest), In: s.place()}
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return fetchFile(ctx, root, s.place(), d, blobPath)
}

// Local is true. See manifests.LocalFetcher.
func (*Store) Local(digest.Digest) bool { return true }

// Close ends the use of the store. Further reads fail; closing it again does
// nothing.
func (s *Store) Close() error {
	s.closed.Store(true)
	return nil
}

// Resolve finds the image that n names: by its tag, by its digest in that
// repository, or by both, which must agree. The digest may be that of the index
// an image was chosen from. None is a *NotFoundError listing the names there
// are.
func (s *Store) Resolve(n manifests.Name) (manifests.Root, error) {
	roots, err := s.roots()
	if err != nil {
		return manifests.Root{}, err
	}
	return s.resolve(roots, n)
}

func (s *Store) resolve(roots []manifests.Root, n manifests.Name) (manifests.Root, error) {
	for _, r := range roots {
		if named(r, n) {
			return r, nil
		}
	}
	return manifests.Root{}, s.notFound(n.Familiar(), roots)
}

func (s *Store) notFound(image string, roots []manifests.Root) error {
	return &manifests.NotFoundError{Subject: "image " + quote.Text(image), In: s.place(), Have: displays(roots)}
}

// present reports whether a blob lies in the store with the size it should
// have. One of another size is as good as absent.
func (s *Store) present(d ocispec.Descriptor) bool {
	st, err := os.Lstat(s.blob(d.Digest))
	return err == nil && st.Mode().IsRegular() && st.Size() == d.Size
}

func (s *Store) blob(d digest.Digest) string { return filepath.Join(s.dir, blobPath(d)) }
