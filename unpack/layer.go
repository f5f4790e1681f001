package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// job is one layer on its way into a directory.
type job struct {
	src      manifests.Fetcher
	img      *manifests.Image
	index    int // of the layer
	options  Options
	budget   *budget
	lower    lowerView // nil: on its own
	marks    bool
	progress manifests.Progress
	decoders int  // cores that decode the layer at most; 0 means all
	known    bool // the blob has given this layer before, and what it gives now its digest proves
}

// run unpacks the layer into dir, an existing empty directory, and proves its
// diffID. It returns what to record, and, where marks are not written, the
// attributes its directories still have to get.
func (j *job) run(ctx context.Context, dir string) (*layerMeta, map[string]*attrs, error) {
	layer := j.img.Layers[j.index]
	root, err := openDir(dir)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(root)
	j.decoders = j.budget.decoders
	x := newExtractor(root, j.budget)
	defer x.close()
	x.lower, x.marks, x.noXattrs, x.ids = j.lower, j.marks, j.options.NoXattrs, &j.options.IDs
	x.meta.DiffIDs = []digest.Digest{layer.DiffID}

	in, err := j.open(ctx, layer)
	if err != nil {
		return nil, nil, j.fail(layer, err)
	}
	defer in.close()
	if err := j.extract(ctx, in, x, layer); err != nil {
		return nil, nil, j.fail(layer, in.blame(err))
	}
	if err := x.finish(); err != nil {
		return nil, nil, j.fail(layer, err)
	}
	return x.meta, x.dirs, nil
}

// extract runs the parser and, beside it, the extractor and the writer of
// files.
func (j *job) extract(ctx context.Context, in *layerStream, x *extractor, layer manifests.Layer) error {
	group, gctx := errgroup.WithContext(ctx)
	p := newPipe(gctx, j.budget.items)
	defer p.close()
	w := newFileWriter(x)
	defer w.close()
	var notes []layertar.Note
	group.Go(func() (err error) {
		defer close(p.parsed)
		notes, err = j.parse(in, layer, p)
		return err
	})
	group.Go(func() error {
		defer close(p.made)
		return each(gctx, in, p.parsed, p.made, x.make)
	})
	group.Go(func() error { return each(gctx, in, p.made, p.free, w.write) })
	if err := group.Wait(); err != nil {
		return err
	}
	x.meta.addFiles(w.meta)
	for _, n := range notes {
		x.meta.skip(n.Kind, "", n.Text)
	}
	return nil
}

// each does its part of the work on the batches that come, and passes them on.
func each(ctx context.Context, in *layerStream, from <-chan *batch, to chan<- *batch, work func(*batch) error) error {
	for b := range from {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := work(b); err != nil {
			in.abandon()
			return err
		}
		to <- b // there is room for all batches
	}
	return nil
}

// parse reads the tar into batches, and returns what was odd about it.
func (j *job) parse(in *layerStream, layer manifests.Layer, p *pipe) ([]layertar.Note, error) {
	limits := j.options.Limits
	if layer.Compression != manifests.Uncompressed {
		limits.Compressed = layer.Blob.Size
	}
	r := layertar.NewReader(in, limits)
	for {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := p.put(e, r); err != nil {
			return nil, err
		}
	}
	p.flush()
	return r.Notes(), in.prove(layer.DiffID)
}

// fail says which layer an error is of, and makes a *manifests.ContentError of
// what is the layer's own fault.
func (j *job) fail(layer manifests.Layer, err error) error {
	subject := fmt.Sprintf("layer %d of %d %s", j.index+1, len(j.img.Layers), short(layer.Blob.Digest))
	var content *manifests.ContentError
	var tarErr *layertar.Error
	var format *codec.FormatError
	switch {
	case errors.As(err, &content):
		return &manifests.ContentError{Kind: content.Kind, Subject: subject, Err: err}
	case errors.As(err, &tarErr):
		if tarErr.Entry != "" {
			subject += " entry " + quote.Text(tarErr.Entry)
		}
		return &manifests.ContentError{Kind: manifests.Kind(tarErr.Kind), Subject: subject, Err: tarErr.Err}
	case errors.As(err, &format):
		kind := manifests.KindMalformed
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			kind = manifests.KindTruncated
		case errors.Is(err, codec.ErrWindow):
			kind = manifests.KindLimit
		}
		return &manifests.ContentError{Kind: kind, Subject: subject, Err: err}
	}
	return fmt.Errorf("%s: %w", subject, err)
}

// short is enough of a digest to find the layer by.
func short(d digest.Digest) string { return string(d.Algorithm()) + ":" + d.Encoded()[:12] + "…" }

// open starts reading the layer's tar, decompressing beside the caller.
func (j *job) open(ctx context.Context, layer manifests.Layer) (_ *layerStream, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	tar, err := openTar(ctx, j.src, layer)
	if err == nil {
		counted := j.progress.WatchLayer(tar, layer.Blob) // its EOF proves the diffID
		return newLayerStream(counted, io.NopCloser(counted), nil, cancel), nil
	}
	if !errors.Is(err, manifests.ErrCompressed) {
		return nil, err
	}
	blob, err := j.src.Fetch(ctx, layer.Blob)
	if err != nil {
		return nil, err
	}
	counted := j.progress.WatchLayer(blob, layer.Blob)
	tar, err = codec.NewReaderOptions(counted, codec.Format(layer.Compression), codec.Options{Window: j.options.Window, Jobs: j.decoders})
	if err != nil {
		s := newLayerStream(counted, nil, nil, cancel)
		defer s.close()
		return nil, s.blame(err)
	}
	if j.known || layer.Blob.Digest == layer.DiffID { // stored as it is: the blob's EOF proves it
		return newLayerStream(counted, tar, nil, cancel), nil
	}
	return newLayerStream(counted, tar, layer.DiffID.Algorithm().Hash(), cancel), nil
}

// openTar opens the layer's tar where the source can give it;
// manifests.ErrCompressed says that there is the blob alone.
func openTar(ctx context.Context, src manifests.Fetcher, layer manifests.Layer) (io.ReadCloser, error) {
	if opener, ok := src.(manifests.LayerOpener); ok {
		return opener.OpenLayer(ctx, layer)
	}
	return nil, manifests.ErrCompressed
}
