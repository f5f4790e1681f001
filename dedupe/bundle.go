package dedupe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// Bundle is an open bundle. It is safe for concurrent use.
type Bundle struct {
	r     io.ReaderAt
	close func() error
	name  string // for messages; safe to print
	info  Info
	roots []manifests.Root
	blobs map[digest.Digest]section // that are stored as they are

	// In chunk mode; nil in layer mode.
	catalog       *catalog
	tars          map[digest.Digest]int // where in catalog.Tars
	streams       map[digest.Digest]int // where in catalog.Streams
	recipes       storedBlob
	streamRecipes storedBlob   // if there are streams
	segments      []storedBlob // as many as catalog.Segments
	contents      *contents
}

type section struct{ offset, size int64 }

// storedBlob is a blob of the container, and where its content lies.
type storedBlob struct {
	desc    ocispec.Descriptor
	section section
}

// OpenOptions say how a bundle is read. The zero value works.
type OpenOptions struct {
	// SpoolDir is where contents of layers are unpacked in chunk mode, into a
	// file without a name; "" means the directory of the bundle.
	SpoolDir string
	Jobs     int // goroutines that decompress, or compress; 0 means GOMAXPROCS
}

// Info describes a bundle.
type Info struct {
	Version  int
	Mode     Mode
	Features []string      // mandatory ones, sorted
	Digest   digest.Digest // of index.json: the bundle's identity
	Size     int64         // of the file
	Blobs    int           // in the file

	// In chunk mode:
	Open     int      // layers that are cut up
	Streams  int      // compressed layers that are given back from these
	Segments int      // blobs that hold their contents
	Contents int64    // bytes of contents, uncompressed
	Bases    []BaseID // what a delta was made against
}

// IsBundle reports whether r looks like a bundle, by its first block alone:
// Open says whether it is one. A file cut short in its first block still looks
// like one.
func IsBundle(r io.ReaderAt, size int64) bool {
	head := make([]byte, min(size, blockSize))
	if n, err := r.ReadAt(head, 0); n < len(head) || err != nil && err != io.EOF {
		return false
	}
	if len(head) <= len(readmeName) || cstring(head) != readmeName {
		return false
	}
	return len(head) < fieldMagic+5 || string(head[fieldMagic:fieldMagic+5]) == ustarMagic[:5]
}

// Open opens a bundle and checks its container: every member, every header,
// every byte between them, against what index.json says. It does not read the
// blobs. What is wrong is a *manifests.ContentError; a version, mode or feature
// that this package does not know is a *manifests.UnsupportedError. The caller
// closes the Bundle.
func Open(path string, o OpenOptions) (*Bundle, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := openFile(f, o)
	if err != nil {
		f.Close()
		return nil, err
	}
	b.close = f.Close
	return b, nil
}

func openFile(f *os.File, o OpenOptions) (*Bundle, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: not a regular file", f.Name())
	}
	return OpenReaderAt(f, st.Size(), f.Name(), o)
}

// OpenReaderAt is Open for a bundle that is size bytes in r; name is its path,
// or what messages call it. Closing the Bundle does not close r.
func OpenReaderAt(r io.ReaderAt, size int64, name string, o OpenOptions) (*Bundle, error) {
	if o.SpoolDir == "" {
		o.SpoolDir = filepath.Dir(name)
	}
	s := &scanner{r: r, size: size, name: quote.Clean(name)}
	b, err := s.bundle()
	if err != nil {
		return nil, err
	}
	if b.catalog != nil {
		b.contents = newContents(b, o)
	}
	if b.catalog != nil && len(b.catalog.Tars) == 0 { // no layer will ever ask for the recipes
		if err := b.contents.recipes.wait(context.Background()); err != nil {
			return nil, errors.Join(err, b.contents.Close())
		}
	}
	return b, nil
}

// Info describes the bundle.
func (b *Bundle) Info() Info {
	info := b.info
	info.Features, info.Bases = slices.Clone(info.Features), slices.Clone(info.Bases)
	return info
}

// Roots returns the images of the bundle, in its order.
func (b *Bundle) Roots(context.Context) ([]manifests.Root, error) {
	return slices.Clone(b.roots), nil
}

// Blobs returns the digests of all blobs the bundle gives to images, sorted:
// those stored in it, the layers it puts together, and those it was supplied
// with. Tars that compressed layers are made from are not among them: they
// are there for these. Whatever a graph of Roots does not
// reach has no business there.
func (b *Bundle) Blobs() []digest.Digest {
	all := slices.AppendSeq(make([]digest.Digest, 0, len(b.blobs)+len(b.tars)+len(b.streams)), maps.Keys(b.blobs))
	all = slices.AppendSeq(all, maps.Keys(b.streams))
	if b.contents != nil {
		all = append(all, b.contents.ownTars()...)
		all = append(all, b.contents.suppliedBlobs()...)
	}
	slices.Sort(all)
	return all
}

// Fetch gives a blob of the bundle, whichever way it is stored, or one that the
// bundle leans on and was supplied with. See manifests.Fetcher. A blob that is
// not of the descriptor's size is refused at once; what a delta leans on and
// was not supplied with is a *MissingBaseError. A compressed layer that is not
// stored is compressed again, but not before it is read; what this version
// cannot do so is a *manifests.UnsupportedError.
func (b *Bundle) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := manifests.CheckDescriptor(d); err != nil {
		return nil, err
	}
	if s, ok := b.blobs[d.Digest]; ok {
		if err := fits(d, s.size); err != nil {
			return nil, err
		}
		in := &blobReader{stopped: ctx.Err, r: io.NewSectionReader(b.r, s.offset, s.size)}
		return manifests.VerifyReader(in, d), nil
	}
	if manifests.IsIndex(d.MediaType) || manifests.IsManifest(d.MediaType) || manifests.IsImageConfig(d.MediaType) {
		return nil, b.absent(d) // a document is stored as it is, or not there
	}
	if i, ok := b.tars[d.Digest]; ok {
		if err := fits(d, b.catalog.Tars[i].Size); err != nil {
			return nil, err
		}
		return b.contents.openTar(ctx, i)
	}
	if i, ok := b.streams[d.Digest]; ok {
		if err := fits(d, b.catalog.Streams[i].Size); err != nil {
			return nil, err
		}
		return b.contents.openStream(ctx, i)
	}
	if b.contents != nil {
		if r, ok, err := b.contents.fetchNeeded(ctx, d); ok {
			return r, err
		}
	}
	return nil, b.absent(d)
}

func (b *Bundle) absent(d ocispec.Descriptor) error {
	return &manifests.NotFoundError{Subject: "blob " + string(d.Digest), In: b.name}
}

func fits(d ocispec.Descriptor, size int64) error {
	if size != d.Size {
		return manifests.Bad(manifests.KindSize, "blob "+string(d.Digest), "%d bytes are stored, its descriptor says %d", size, d.Size)
	}
	return nil
}

// OpenLayer gives the tar of a layer that the bundle puts together, stores as a
// tar, or was supplied with by who need not decompress it. Nothing is compressed
// for it. See manifests.LayerOpener.
func (b *Bundle) OpenLayer(ctx context.Context, layer manifests.Layer) (io.ReadCloser, error) {
	if i, ok := b.tars[layer.DiffID]; ok {
		return b.contents.openTar(ctx, i)
	}
	if s, ok := b.blobs[layer.DiffID]; ok {
		return b.Fetch(ctx, ocispec.Descriptor{Digest: layer.DiffID, Size: s.size})
	}
	if b.contents != nil {
		if r, ok, err := b.contents.openNeeded(ctx, layer); ok {
			return r, err
		}
	}
	return nil, manifests.ErrCompressed
}

// Local reports whether the bundle itself has the blob. See
// manifests.LocalFetcher.
func (b *Bundle) Local(d digest.Digest) bool {
	_, isCarried := b.blobs[d]
	_, isOpen := b.tars[d]
	_, isStream := b.streams[d]
	return isCarried || isOpen || isStream
}

// blobReader reads a blob's bytes until the work is cancelled.
type blobReader struct {
	stopped func() error
	r       io.Reader
}

func (b *blobReader) Read(p []byte) (int, error) {
	if err := b.stopped(); err != nil {
		return 0, err
	}
	return b.r.Read(p)
}

func (b *blobReader) Close() error { return nil }

// Close ends what is being unpacked, and closes the file if Open opened it.
// Readers from Fetch must not be used after it.
func (b *Bundle) Close() error {
	var err error
	if b.contents != nil {
		err = b.contents.Close()
	}
	if b.close != nil {
		err = errors.Join(err, b.close())
	}
	return err
}

var (
	_ manifests.Fetcher      = (*Bundle)(nil)
	_ manifests.LayerOpener  = (*Bundle)(nil)
	_ manifests.LocalFetcher = (*Bundle)(nil)
)
