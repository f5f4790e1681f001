package manifests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
)

// MaxDocument bounds every manifest, index and config read whole into memory,
// in bytes. Registries and engines accept 4 MiB; nothing real comes near it.
const MaxDocument = 4 << 20

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
// The caller closes it. It is safe for concurrent use.
type LayerOpener interface {
	OpenLayer(ctx context.Context, layer Layer) (io.ReadCloser, error)
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

// CheckDescriptor refuses a descriptor whose digest or size cannot be used: an
// algorithm other than sha256 and sha512, hex that is not lower-case and of
// full length, a negative size.
func CheckDescriptor(d ocispec.Descriptor) error {
	if err := CheckDigest(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 {
		return Bad(KindSize, string(d.Digest), "size %d is negative", d.Size)
	}
	return nil
}

// CheckDigest refuses all but sha256 and sha512 digests in their one spelling.
// Only a checked digest may become part of a path.
func CheckDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return Bad(KindMalformed, "digest "+quote.Text(string(d)), "%w", err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return Bad(KindMalformed, "digest "+quote.Text(string(d)), "algorithm is neither sha256 nor sha512")
	}
	return nil
}

// VerifyReader wraps r so that io.EOF is returned only when exactly desc.Size
// bytes that hash to desc.Digest have been read. Anything else is a
// *ContentError of kind truncated, size or digest. The error is sticky.
//
// Closing the reader closes r. The reader is for one goroutine.
func VerifyReader(r io.ReadCloser, desc ocispec.Descriptor) io.ReadCloser {
	if err := CheckDescriptor(desc); err != nil {
		return &verifyReader{r: r, err: err}
	}
	return &verifyReader{r: r, desc: desc, hash: desc.Digest.Algorithm().Digester(), left: desc.Size}
}

type verifyReader struct {
	r    io.ReadCloser
	desc ocispec.Descriptor
	hash digest.Digester
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
	if int64(len(p)) > v.left {
		p = p[:v.left]
	}
	n, err := v.r.Read(p)
	v.hash.Hash().Write(p[:n])
	v.left -= int64(n)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		if v.left > 0 {
			v.err = v.bad(KindTruncated, "%d of %d bytes are missing", v.left, v.desc.Size)
			break
		}
		v.err = v.compare()
	default:
		v.err = err
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
		if errors.Is(err, io.EOF) {
			return v.compare()
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

func (v *verifyReader) compare() error {
	if got := v.hash.Digest(); got != v.desc.Digest {
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
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	return raw, nil
}

// BytesReader gives raw as a verified blob; for sources that hold documents in
// memory.
func BytesReader(raw []byte, desc ocispec.Descriptor) io.ReadCloser {
	return VerifyReader(io.NopCloser(bytes.NewReader(raw)), desc)
}
