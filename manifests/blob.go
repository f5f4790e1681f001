package manifests

import (
	"bytes"
	"context"
	_ "crypto/sha256" // go-digest links no hash itself
	_ "crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
)

// MaxDocument bounds every manifest, index and config read whole into memory,
// in bytes. Registries and engines accept 4 MiB; nothing real comes near it.
const MaxDocument = 4 << 20

// maxBlob bounds what a descriptor may claim as a blob's size, in bytes: the
// largest file ext4 holds. With the bounds on counts it also keeps every sum
// of sizes far from overflow.
const maxBlob = 16 << 40

// Fetcher gives the exact bytes of a blob. It is the one interface through
// which packages hand images to one another.
//
// Fetch returns a reader that yields io.EOF only once the bytes read are
// proven to be those the descriptor names, in full, and a *ContentError where
// they are not. The caller closes it, and may do so early. Fetch returns a
// *NotFoundError for a blob the source does not hold. Fetch is safe for
// concurrent use.
type Fetcher interface {
	Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
}

// LayerOpener is implemented by sources that can give a layer's uncompressed
// tar without decompressing it, and is found by assertion on a Fetcher.
//
// OpenLayer returns the layer's tar; io.EOF means that its diffID is proven.
// The caller closes it. ErrCompressed means that the source holds this layer
// compressed alone: the caller fetches its blob. It is safe for concurrent use.
type LayerOpener interface {
	OpenLayer(ctx context.Context, layer Layer) (io.ReadCloser, error)
}

// ErrCompressed is returned by a LayerOpener for a layer whose tar it would
// have to decompress.
var ErrCompressed = errors.New("the layer is held compressed")

// LocalFetcher is implemented by sources that read blobs from files, and is
// found by assertion on a Fetcher. Others may take long for a blob, and as long
// again when it is fetched again.
//
// Local reports whether Fetch reads the blob from a file here. It is safe for
// concurrent use.
type LocalFetcher interface {
	Local(d digest.Digest) bool
}

// FetcherFunc makes a Fetcher of a function.
type FetcherFunc func(context.Context, ocispec.Descriptor) (io.ReadCloser, error)

// Fetch calls f.
func (f FetcherFunc) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return f(ctx, desc)
}

// Progress is told of n more bytes of a blob that have been moved. It is
// called from several goroutines and must not block. Nil means nobody asks.
type Progress func(desc ocispec.Descriptor, n int64)

// Watch tells p of every byte read of desc through the reader it returns,
// which closes r. A nil p or r leaves r as it is.
func (p Progress) Watch(r io.ReadCloser, desc ocispec.Descriptor) io.ReadCloser {
	if p == nil || r == nil {
		return r
	}
	return &watchedReader{r, desc, p}
}

type watchedReader struct {
	io.ReadCloser
	desc     ocispec.Descriptor
	progress Progress
}

func (w *watchedReader) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	if n > 0 {
		w.progress(w.desc, int64(n))
	}
	return n, err
}

// WatchLayer is Watch for a reader of a layer's blob or of its tar. Whatever
// its length, what p is told adds up to the size of the blob once it ends, and
// is never more.
func (p Progress) WatchLayer(r io.ReadCloser, blob ocispec.Descriptor) io.ReadCloser {
	return &layerReader{ReadCloser: r, blob: blob, left: blob.Size, progress: p}
}

type layerReader struct {
	io.ReadCloser
	blob     ocispec.Descriptor
	left     int64
	progress Progress
}

func (l *layerReader) Read(b []byte) (int, error) {
	n, err := l.ReadCloser.Read(b)
	told := min(int64(n), l.left)
	if err == io.EOF {
		told = l.left
	}
	if l.left -= told; told > 0 && l.progress != nil {
		l.progress(l.blob, told)
	}
	return n, err
}

// maxEmptyReads is how many reads in a row may give neither bytes nor an error.
const maxEmptyReads = 100

// Fill reads until p is full. Unlike io.ReadFull it returns the reader's error
// as it is: io.EOF where r ends, however much was read before. A reader that
// goes on giving nothing is io.ErrNoProgress.
func Fill(r io.Reader, p []byte) (n int, err error) {
	for empty := 0; n < len(p) && err == nil; empty++ {
		var k int
		k, err = r.Read(p[n:])
		switch n += k; {
		case k > 0:
			empty = 0
		case err == nil && empty >= maxEmptyReads:
			return n, io.ErrNoProgress
		}
	}
	return n, err
}

// CheckDescriptor refuses a descriptor that cannot be used: a digest CheckDigest
// refuses, a size that is negative or over 16 TiB, an embedded data field that
// is not the content the descriptor names.
//
// Embedded data is checked here and then ignored everywhere: content always
// comes from a Fetcher. So are the urls of a descriptor: nothing contacts them.
func CheckDescriptor(d ocispec.Descriptor) error {
	if err := CheckDigest(d.Digest); err != nil {
		return err
	}
	subject := "descriptor " + string(d.Digest)
	switch {
	case d.Size < 0:
		return Bad(KindSize, subject, "size %d is negative", d.Size)
	case d.Size > maxBlob:
		return Bad(KindLimit, subject, "size %d is larger than %d", d.Size, int64(maxBlob))
	case len(d.Data) == 0:
		return nil
	case int64(len(d.Data)) != d.Size:
		return Bad(KindSize, subject, "size is %d, but its data field holds %d bytes", d.Size, len(d.Data))
	}
	if got := d.Digest.Algorithm().FromBytes(d.Data); got != d.Digest {
		return Bad(KindDigest, subject, "its data field hashes to %s", got)
	}
	return nil
}

// hexLength holds the digest algorithms of the OCI image specification.
var hexLength = map[string]int{"sha256": 64, "sha512": 128}

// CheckDigest refuses all but sha256 and sha512 digests in their one spelling:
// lower-case hex of full length. Only a checked digest may become part of a
// path. The error is a *ContentError.
func CheckDigest(d digest.Digest) error {
	algorithm, hex, _ := strings.Cut(string(d), ":")
	want := hexLength[algorithm]
	switch {
	case want == 0:
		return Bad(KindMalformed, "digest "+quote.Text(string(d)), "not a sha256 or sha512 digest")
	case len(hex) != want:
		return Bad(KindMalformed, "digest "+quote.Text(string(d)), "%d characters follow %s:, want %d", len(hex), algorithm, want)
	case !isHex(hex):
		return Bad(KindMalformed, "digest "+quote.Text(string(d)), "not lower-case hexadecimal")
	}
	return nil
}

func isHex(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}

// VerifyReader wraps r so that io.EOF is returned only when exactly desc.Size
// bytes that hash to desc.Digest have been read. A stream that ends early, goes
// on for longer or hashes to something else is a *ContentError of kind
// truncated, size or digest; other errors of r are returned as they are. Every
// error is sticky, io.EOF too.
//
// Closing the reader closes r. The reader is for one goroutine.
func VerifyReader(r io.ReadCloser, desc ocispec.Descriptor) io.ReadCloser {
	if err := CheckDescriptor(desc); err != nil {
		return &verifyReader{r: r, err: err}
	}
	return &verifyReader{r: r, desc: desc, hash: desc.Digest.Algorithm().Hash(), left: desc.Size}
}

type verifyReader struct {
	r    io.ReadCloser
	desc ocispec.Descriptor
	hash hash.Hash
	left int64 // bytes still owed
	err  error // sticky
}

func (v *verifyReader) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if v.left == 0 {
		v.err = v.finish()
		return 0, v.err
	}
	n, err := v.r.Read(p[:min(int64(len(p)), v.left)])
	v.hash.Write(p[:n])
	v.left -= int64(n)
	if err != nil {
		v.err = v.end(err)
	}
	return n, v.err
}

// finish is reached with every owed byte read: the stream must end here.
func (v *verifyReader) finish() error {
	var one [1]byte
	for range 100 { // as bufio does, give up on a reader that makes no progress
		n, err := v.r.Read(one[:])
		if n > 0 {
			return v.bad(KindSize, "longer than the %d bytes its descriptor says", v.desc.Size)
		}
		if err != nil {
			return v.end(err)
		}
	}
	return io.ErrNoProgress
}

// end judges the error that r ended with. A wrapped io.EOF is an end too, and
// must not reach a caller that takes it for proof. HTTP bodies and tar members
// that are cut short end with a bare io.ErrUnexpectedEOF.
func (v *verifyReader) end(err error) error {
	switch atEnd := errors.Is(err, io.EOF); {
	case v.left > 0 && (atEnd || err == io.ErrUnexpectedEOF):
		return v.bad(KindTruncated, "%d of %d bytes are missing", v.left, v.desc.Size)
	case atEnd:
		return v.compare()
	}
	return err
}

func (v *verifyReader) compare() error {
	if got := digest.NewDigest(v.desc.Digest.Algorithm(), v.hash); got != v.desc.Digest {
		return v.bad(KindDigest, "content hashes to %s", got)
	}
	return io.EOF
}

func (v *verifyReader) bad(kind Kind, format string, args ...any) error {
	return Bad(kind, "blob "+string(v.desc.Digest), format, args...)
}

func (v *verifyReader) Close() error { return v.r.Close() }

// ReadDocument fetches a manifest, index or config whole. Larger than
// MaxDocument is a *ContentError of kind limit.
func ReadDocument(ctx context.Context, f Fetcher, desc ocispec.Descriptor) ([]byte, error) {
	if err := CheckDescriptor(desc); err != nil {
		return nil, err
	}
	if desc.Size > MaxDocument {
		return nil, Bad(KindLimit, string(desc.Digest), "document of %d bytes is larger than %d", desc.Size, MaxDocument)
	}
	r, err := f.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, desc.Size+1)) // one more, to reach the end that proves it
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	if int64(len(raw)) != desc.Size {
		return nil, Bad(KindSize, string(desc.Digest), "the source gave %d bytes for %d", len(raw), desc.Size)
	}
	return raw, nil
}

// BytesReader gives raw as a verified blob; for sources that hold documents in
// memory.
func BytesReader(raw []byte, desc ocispec.Descriptor) io.ReadCloser {
	return VerifyReader(io.NopCloser(bytes.NewReader(raw)), desc)
}
