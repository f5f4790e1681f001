package dedupe

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// openLayerTar gives the tar of a layer, whatever its source holds the layer
// as; io.EOF means that its diffID is proven. Progress is told of the layer's
// blob, whose size it adds up to. What is wrong with the layer is a
// *manifests.ContentError. The caller closes the reader.
func openLayerTar(ctx context.Context, source layerSource, l manifests.Layer, p manifests.Progress) (*tarReader, error) {
	t := &tarReader{stopped: ctx.Err, layer: l}
	in, err := source.OpenLayer(ctx, l)
	if err == nil {
		t.in, t.closers = p.WatchLayer(in, l.Blob), []io.Closer{in}
		return t, nil
	}
	if !errors.Is(err, manifests.ErrCompressed) {
		return nil, t.blame(err)
	}
	if in, err = source.Fetch(ctx, l.Blob); err != nil {
		return nil, t.blame(err)
	}
	content, err := codec.NewReader(p.WatchLayer(in, l.Blob), codec.Format(l.Compression))
	if err != nil {
		return nil, errors.Join(t.blame(err), in.Close())
	}
	t.in, t.closers = content, []io.Closer{content, in}
	if l.Compression != manifests.Uncompressed {
		t.in = &boundedReader{in: content, left: maxTar(l), over: tooLarge(l)}
	}
	if l.DiffID != l.Blob.Digest { // which Fetch proves
		t.hash = l.DiffID.Algorithm().Hash()
	}
	return t, nil
}

// unproven leaves it to the caller to prove the diffID of what was read. Blobs
// are what their digests say nevertheless.
func (t *tarReader) unproven() { t.hash = nil }

// tarReader gives a layer's tar, and proves it unless in does.
type tarReader struct {
	stopped func() error
	layer   manifests.Layer
	in      io.Reader
	closers []io.Closer
	hash    hash.Hash // nil: in proves the diffID
	err     error     // sticky
}

func (t *tarReader) Read(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	if err := t.stopped(); err != nil {
		return 0, err
	}
	n, err := t.in.Read(p)
	if t.hash != nil {
		t.hash.Write(p[:n])
	}
	switch {
	case err == io.EOF:
		t.err = t.finish()
	case err != nil:
		t.err = t.blame(err)
	}
	return n, t.err
}

func (t *tarReader) finish() error {
	if t.hash == nil {
		return io.EOF
	}
	if got := digest.NewDigest(t.layer.DiffID.Algorithm(), t.hash); got != t.layer.DiffID {
		return manifests.Bad(manifests.KindDiffID, t.subject(), "its tar hashes to %s, its config says %s", got, t.layer.DiffID)
	}
	return io.EOF
}

func (t *tarReader) subject() string { return "layer " + string(t.layer.Blob.Digest) }

// maxTar bounds the tar of a compressed layer.
func maxTar(l manifests.Layer) int64 {
	return min(max(layertar.RatioFree, layertar.DefaultRatio*l.Blob.Size), maxBlobSize)
}

// tooLarge makes the error for a tar beyond that.
func tooLarge(l manifests.Layer) func() error {
	return func() error {
		return manifests.Bad(manifests.KindLimit, "layer "+string(l.Blob.Digest), "its tar is more than %d times as large as its blob", layertar.DefaultRatio)
	}
}

// blame says which layer an error is of, and makes a *manifests.ContentError of
// what is the layer's own fault.
func (t *tarReader) blame(err error) error {
	var content *manifests.ContentError
	var format *codec.FormatError
	switch {
	case errors.As(err, &content):
		return err // names the blob
	case errors.As(err, &format):
		return &manifests.ContentError{Kind: formatKind(err), Subject: t.subject(), Err: err}
	}
	return fmt.Errorf("read %s: %w", t.subject(), err)
}

// formatKind tells a stream that is cut from one that is something else.
func formatKind(err error) manifests.Kind {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return manifests.KindTruncated
	}
	return manifests.KindMalformed
}

func (t *tarReader) Close() error {
	var errs []error
	for _, c := range t.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// boundedReader gives the error over makes in place of the first byte past a
// bound.
type boundedReader struct {
	in   io.Reader
	left int64
	over func() error
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.in.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return n - 1, b.over()
	}
	return n, err
}
