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

// extract runs the parser and, beside it, the writer.
func (j *job) extract(ctx context.Context, in *layerStream, x *extractor, layer manifests.Layer) error {
	group, gctx := errgroup.WithContext(ctx)
	full, free := make(chan *batch, batches), make(chan *batch, batches)
	for range batches {
		free <- &batch{}
	}
	group.Go(func() error {
		defer close(full)
		return j.parse(gctx, in, layer, full, free)
	})
	group.Go(func() error {
		for b := range full {
			if err := gctx.Err(); err != nil {
				return err
			}
			if err := b.write(x); err != nil {
				in.abandon()
				return err
			}
			free <- b
		}
		return nil
	})
	return group.Wait()
}

// parse reads the tar into batches.
func (j *job) parse(ctx context.Context, in *layerStream, layer manifests.Layer, full chan<- *batch, free <-chan *batch) error {
	limits := j.options.Limits
	if layer.Compression != manifests.Uncompressed {
		limits.Compressed = layer.Blob.Size
	}
	f := &filler{ctx: ctx, full: full, free: free}
	if err := f.next(); err != nil {
		return err
	}
	r := layertar.NewReader(in, limits)
	for {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := f.entry(e, r); err != nil {
			return err
		}
	}
	f.b.items = append(f.b.items, item{notes: r.Notes()})
	if err := f.send(); err != nil {
		return err
	}
	return in.prove(layer.DiffID)
}

// Memory of one layer's way from parser to writer: batches × batchSize.
const (
	batches    = 4
	batchSize  = 1 << 20
	batchItems = 256
)

// batch is some entries and their content, handed over at once.
type batch struct {
	items []item
	data  []byte // the items' parts, one after another
}

// item is an entry, or more content of the one before.
type item struct {
	entry *layertar.Entry
	n     int  // bytes of data
	last  bool // the content ends here
	notes []layertar.Note
}

// filler fills batches and sends them off.
type filler struct {
	ctx  context.Context
	full chan<- *batch
	free <-chan *batch
	b    *batch
}

func (f *filler) next() error {
	select {
	case f.b = <-f.free:
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
	if f.b.data == nil {
		f.b.data = make([]byte, 0, batchSize)
	}
	f.b.items, f.b.data = f.b.items[:0], f.b.data[:0]
	return nil
}

func (f *filler) send() error {
	select {
	case f.full <- f.b:
		f.b = nil
		return nil
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
}

// entry adds an entry with its content, over as many batches as that takes.
func (f *filler) entry(e *layertar.Entry, r io.Reader) error {
	it := item{entry: e, last: e.Kind != layertar.File}
	for {
		if len(f.b.items) >= batchItems || !it.last && len(f.b.data) == cap(f.b.data) {
			if err := f.send(); err != nil {
				return err
			}
			if err := f.next(); err != nil {
				return err
			}
		}
		if !it.last {
			at := len(f.b.data)
			n, err := io.ReadFull(r, f.b.data[at:cap(f.b.data)])
			f.b.data = f.b.data[:at+n]
			it.n = n
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				it.last = true
			} else if err != nil {
				return err
			}
		}
		f.b.items = append(f.b.items, it)
		if it.last {
			return nil
		}
		it = item{}
	}
}

// write gives a batch to the extractor.
func (b *batch) write(x *extractor) error {
	data := b.data
	for _, it := range b.items {
		for _, n := range it.notes {
			x.meta.skip(n.Kind, "", n.Text)
		}
		if it.entry != nil {
			if err := x.entry(it.entry); err != nil {
				return atEntry(it.entry, err)
			}
		}
		if x.file.fd < 0 {
			continue
		}
		var err error
		if it.n > 0 {
			err = x.content(data[:it.n])
			data = data[it.n:]
		}
		entry := x.file.entry
		if err == nil && it.last {
			err = x.closeFile()
		}
		if err != nil {
			return atEntry(entry, err)
		}
	}
	return nil
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
	tar, err = codec.NewReaderWindow(counted, codec.Format(layer.Compression), j.options.Window)
	if err != nil {
		s := newLayerStream(counted, nil, nil, cancel)
		defer s.close()
		return nil, s.blame(err)
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
