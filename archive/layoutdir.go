package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// layoutDir is an OCI image layout in a directory (image-layout.md).
type layoutDir struct {
	root  *os.Root
	name  string // for messages
	roots []manifests.Root
}

var _ Source = (*layoutDir)(nil)

func newLayoutDir(root *os.Root, path string) (*layoutDir, error) {
	l := &layoutDir{root: root, name: quote.Clean(path)}
	marker, err := readDocument(root, "oci-layout")
	if err != nil {
		return nil, within(l.name, err)
	}
	if err := manifests.ParseLayoutMarker(marker); err != nil {
		return nil, within(l.name, err)
	}
	index, err := readDocument(root, "index.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, manifests.Bad(manifests.KindMissing, l.name, "there is no index.json")
	}
	if err != nil {
		return nil, within(l.name, err)
	}
	if l.roots, err = manifests.ParseLayoutIndex(index); err != nil {
		return nil, within(l.name, err)
	}
	return l, nil
}

// Format is FormatLayout.
func (l *layoutDir) Format() Format { return FormatLayout }

func (l *layoutDir) Roots(ctx context.Context) ([]manifests.Root, error) {
	return append([]manifests.Root(nil), l.roots...), ctx.Err()
}

func (l *layoutDir) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return fetchFile(ctx, l.root, l.name, d, blobPath)
}

// Local is true. See manifests.LocalFetcher.
func (*layoutDir) Local(digest.Digest) bool { return true }

func (l *layoutDir) Close() error { return l.root.Close() }

// blobPath is where a layout keeps a blob. The digest must have been checked.
func blobPath(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

// fetchFile gives a blob that lies in a file of its own.
func fetchFile(ctx context.Context, root *os.Root, place string, d ocispec.Descriptor, path func(digest.Digest) string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := manifests.CheckDescriptor(d); err != nil {
		return nil, err
	}
	f, err := openRegular(root, path(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &manifests.NotFoundError{Subject: "blob " + string(d.Digest), In: place}
	}
	if err != nil {
		return nil, within(place, err)
	}
	return manifests.VerifyReader(blobReader(ctx, f, f), d), nil
}

// openTries bounds how often openRegular begins again. A writer that renames
// a new index into place is met once, a hundred times in a row by nobody but
// an enemy.
const openTries = 100

var errReplaced = errors.New("it is being replaced again and again")

// openRegular opens a file that must be a regular one itself: neither a link,
// which could lead to what is not the layout's, nor a pipe, which would hang.
func openRegular(root *os.Root, name string) (*os.File, error) {
	for range openTries {
		if f, err := tryOpenRegular(root, name); !errors.Is(err, errReplaced) {
			return f, err
		}
	}
	return nil, fmt.Errorf("open %s: %w", name, errReplaced)
}

// tryOpenRegular looks, opens, and looks again; errReplaced is what it ends
// with when another file took the name in between.
func tryOpenRegular(root *os.Root, name string) (*os.File, error) {
	st, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, manifests.Bad(manifests.KindUnsafePath, name, "not a regular file")
	}
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil && !os.SameFile(st, opened) {
		err = errReplaced
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readDocument reads a small file whole.
func readDocument(root *os.Root, name string) ([]byte, error) {
	f, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, name)
}

func readBounded(r io.Reader, name string) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, manifests.MaxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(raw) > manifests.MaxDocument {
		return nil, manifests.Bad(manifests.KindLimit, name, "larger than %d bytes", manifests.MaxDocument)
	}
	return raw, nil
}

// within says in which file or directory something is wrong.
func within(place string, err error) error { return fmt.Errorf("%s: %w", place, err) }
