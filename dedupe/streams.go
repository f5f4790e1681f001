package dedupe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/recompress"
	"github.com/imgpack/imgpack/manifests"
)

// Stream is a compressed layer that is given back from an open one.
type Stream struct {
	Digest digest.Digest // of the compressed blob
	Size   int64         // its bytes
	Tar    digest.Digest // of the uncompressed tar
	Recipe int64         // bytes stored for the stream alone
	Model  string        // what is thought to have made it, for people; "" if it is not known
}

// Streams returns the compressed layers that the bundle gives back from open
// ones, in its order. It reads their recipes, and makes none of them.
func (b *Bundle) Streams(ctx context.Context) ([]Stream, error) {
	if b.contents == nil {
		return nil, nil
	}
	c := b.contents
	if err := c.streams.proven.wait(ctx); err != nil {
		return nil, err
	}
	all := make([]Stream, len(c.streams.list))
	for i, s := range c.streams.list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		raw, err := c.streamRecipe(s)
		if err != nil {
			return nil, err
		}
		all[i] = Stream{Digest: s.Digest, Size: s.Size, Tar: s.Tar, Recipe: s.Recipe, Model: recompress.ModelOf(raw)}
	}
	return all, nil
}

// streams are the compressed layers that are given back from open ones.
type streams struct {
	list   []stream
	blob   storedBlob // the recipes, one after the other
	proven task       // blob is what its digest says

	slots chan struct{} // parts of all streams that are made at a time
	made  atomic.Int32  // streams that are being made
}

// stream is a streamEntry with its places.
type stream struct {
	streamEntry
	tar int   // in contents.tars
	at  int64 // of the recipe, in the blob
}

func (c *contents) prepareStreams(b *Bundle) {
	c.streams.blob = b.streamRecipes
	c.streams.slots = make(chan struct{}, c.jobs)
	c.streams.proven = task{group: &c.tasks, do: c.proveStreams}
	var at int64
	for _, x := range b.catalog.Streams {
		c.streams.list = append(c.streams.list, stream{x, b.tars[x.Tar], at})
		at += x.Recipe
	}
}

// ownTars are the digests of the tars that no stream is made from.
func (c *contents) ownTars() []digest.Digest {
	taken := make([]bool, len(c.tars))
	for _, s := range c.streams.list {
		taken[s.tar] = true
	}
	var all []digest.Digest
	for i, t := range c.tars {
		if !taken[i] {
			all = append(all, t.Digest)
		}
	}
	return all
}

// proveStreams hashes the recipes of all streams, of which one at a time is
// read afterwards: together they may be too large for memory.
func (c *contents) proveStreams(ctx context.Context) error {
	blob := c.streams.blob
	if len(c.streams.list) == 0 {
		return nil
	}
	in := &blobReader{stopped: ctx.Err, r: io.NewSectionReader(c.file, blob.section.offset, blob.section.size)}
	_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, manifests.VerifyReader(in, blob.desc), make([]byte, proveBuffer))
	var bad *manifests.ContentError
	switch {
	case errors.As(err, &bad):
		return &manifests.ContentError{Kind: bad.Kind, Subject: c.member(blob), Err: bad.Err}
	case err != nil && ctx.Err() == nil:
		return fmt.Errorf("read %s: %w", c.name, err)
	}
	return err
}

// proveBuffer is how much of a blob is hashed at a time.
const proveBuffer = 1 << 20

// recipe reads the recipe of a stream. The blob has been proven.
func (c *contents) streamRecipe(s stream) ([]byte, error) {
	p := make([]byte, s.Recipe)
	if n, err := c.file.ReadAt(p, c.streams.blob.section.offset+s.at); n < len(p) {
		return nil, fmt.Errorf("read %s: %w", c.name, err)
	}
	return p, nil
}

// openStream gives the i-th stream. Work begins with the first Read. EOF proves
// that it is what the catalog says. The caller closes it.
func (c *contents) openStream(ctx context.Context, i int) (io.ReadCloser, error) {
	if err := c.streams.proven.wait(ctx); err != nil {
		return nil, err
	}
	s := c.streams.list[i]
	ctx, cancel := context.WithCancel(ctx)
	tar, err := c.openTar(ctx, s.tar)
	if err != nil {
		cancel()
		return nil, err
	}
	r := &restoredStream{tar: tar, cancel: cancel, ended: make(chan struct{})}
	r.in, r.out = io.Pipe()
	r.work = func() error { return c.restoreStream(ctx, s, r.out, tar) }
	return manifests.VerifyReader(r, ocispec.Descriptor{Digest: s.Digest, Size: s.Size}), nil
}

// restoreStream writes a stream to w, from its tar.
func (c *contents) restoreStream(ctx context.Context, s stream, w io.Writer, tar io.Reader) error {
	raw, err := c.streamRecipe(s)
	if err != nil {
		return err
	}
	from := &blamed{r: tar}
	// Each part takes memory, also one that waits for its turn: the more streams
	// there are, the fewer of each.
	made := int(c.streams.made.Add(1))
	defer c.streams.made.Add(-1)
	err = recompress.Restore(ctx, w, from, raw, s.Size, recompress.Options{Jobs: max(c.jobs/made, 1), Slots: c.streams.slots})
	if errors.Is(err, recompress.ErrRecipe) {
		_, _ = io.Copy(io.Discard, from) // a tar that is not what it should be is no fault of the recipe
	}
	switch {
	case err != nil && from.err != nil:
		return from.err
	case errors.Is(err, recompress.ErrUnknown):
		return &manifests.UnsupportedError{Subject: c.name, Reason: fmt.Sprintf("the layer %s is compressed in a way that is not known to this version of imgpack", s.Digest)}
	case !errors.Is(err, recompress.ErrRecipe):
		return err
	}
	return &manifests.ContentError{Kind: manifests.KindMalformed, Subject: fmt.Sprintf("%s: recipe of %s", c.member(c.streams.blob), s.Digest), Err: err}
}

// blamed remembers the error of a reader.
type blamed struct {
	r   io.Reader
	err error
}

func (b *blamed) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// restoredStream is a stream that another goroutine makes, from the first Read
// on.
type restoredStream struct {
	tar    io.Closer
	in     *io.PipeReader
	out    *io.PipeWriter
	work   func() error
	cancel context.CancelFunc

	mu    sync.Mutex // guards begun
	begun bool
	ended chan struct{} // closed when work has ended
}

// begin starts the work unless it has been started or given up.
func (r *restoredStream) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun {
		return
	}
	r.begun = true
	go func() {
		defer close(r.ended)
		r.out.CloseWithError(r.work())
	}()
}

func (r *restoredStream) Read(p []byte) (int, error) {
	r.begin()
	return r.in.Read(p)
}

// Close returns when the work has ended.
func (r *restoredStream) Close() error {
	r.mu.Lock()
	if !r.begun {
		r.begun = true
		close(r.ended)
	}
	r.mu.Unlock()
	r.cancel()
	r.in.CloseWithError(errReaderClosed)
	<-r.ended
	return r.tar.Close()
}
