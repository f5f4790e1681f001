package dedupe

import (
	"context"
	"errors"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/internal/recompress"
	"github.com/imgpack/imgpack/manifests"
)

// Reason says why a layer is carried as it is.
type Reason string

// The reasons.
const (
	ReasonEncoder Reason = "made by an encoder that is not known"
	ReasonFormat  Reason = "damaged, or not compressed as its media type says"
	ReasonDiffID  Reason = "not what its config says"
	ReasonSize    Reason = "unpacks to far more than its size"
	ReasonProof   Reason = "does not come back exact"
	ReasonLimit   Reason = "beyond what one bundle can hold open"
)

// verdict is what becomes of a compressed layer: it is held open if why is "".
type verdict struct {
	recipe keptRecipe
	model  string // of the encoder, for people
	tar    int64  // length of the layer's tar
	why    Reason // it is carried
	unread bool   // its contents will not be looked at
}

// study finds out which compressed layers can be given back from their tars: it
// finds their recipes, and proves each by the code that readers run.
type study struct {
	o       Options
	guess   bool // from the heads of layers alone
	graph   *manifests.Graph
	source  layerSource // of the graph's blobs
	cache   recipeCache
	recipes *recipeFile
	slots   chan struct{} // parts worked on at once, of all layers
}

// maxStudied bounds the layers that are studied at a time: to read one stream
// takes a processor, and gives work to a few.
const maxStudied = 4

// studyPasses is how often the study reads a layer, and tells Progress so.
const studyPasses = 2

// layers studies layers, and gives their verdicts in the same order.
func (s *study) layers(ctx context.Context, layers []manifests.Layer) ([]verdict, error) {
	s.slots = make(chan struct{}, s.o.jobs())
	out := make([]verdict, len(layers))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(min(s.o.jobs(), maxStudied))
	for _, i := range largestFirst(len(layers), func(i int) int64 { return layers[i].Blob.Size }) {
		group.Go(func() (err error) {
			out[i], err = s.layer(gctx, layers[i])
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	s.cache.trim()
	return out, ctx.Err()
}

// layer studies one layer. What is wrong with its tar alone is no error, for
// the blob can be carried.
func (s *study) layer(ctx context.Context, l manifests.Layer) (verdict, error) {
	if err := ctx.Err(); err != nil {
		return verdict{}, err
	}
	told := &toldOnce{progress: s.o.Progress, blob: l.Blob, left: studyPasses * l.Blob.Size}
	found, known := s.cache.get(l)
	if !known {
		var why Reason
		var err error
		if found, why, err = s.examine(ctx, l, told.tell); err != nil || why != "" {
			told.rest()
			return verdict{why: why}, err
		}
	}
	told.rest()
	if s.guess {
		kept := keptRecipe{length: max(found.length, int64(len(found.recipe)))}
		return verdict{recipe: kept, model: found.model, tar: found.tar, unread: !s.graph.Local(l.Blob.Digest)}, nil
	}
	kept, err := s.recipes.add(found.recipe)
	return verdict{recipe: kept, model: found.model, tar: found.tar}, err
}

// examine finds a layer's recipe, or why there is none.
func (s *study) examine(ctx context.Context, l manifests.Layer, p manifests.Progress) (foundRecipe, Reason, error) {
	if found, ok := s.inherit(ctx, l, p); ok {
		return found, "", nil
	}
	source := &blamingSource{layerSource: s.source}
	var found foundRecipe
	var err error
	if s.guess && l.Blob.Size > probeHead {
		found, err = s.probe(ctx, source, l)
	} else {
		found, err = s.find(ctx, source, l, p)
	}
	if err == nil && !s.guess {
		err = s.prove(ctx, source, l, found, p)
	}
	why, known := reasonOf(err)
	switch {
	case ctx.Err() != nil:
		return found, "", ctx.Err()
	case source.err != nil:
		return found, "", source.err
	case known:
		return found, why, nil
	case err != nil:
		return found, "", fmt.Errorf("study layer %s: %w", l.Blob.Digest, err)
	}
	if !s.guess {
		s.cache.put(l, found)
	}
	return found, "", nil
}

// foundRecipe is a recipe that was found, and what for.
type foundRecipe struct {
	recipe []byte
	length int64 // of a recipe that is not there, of an estimate
	model  string
	tar    int64
}

// find finds a recipe. It reads the blob to its proven end, also if there is
// none: it is fetched once alone.
func (s *study) find(ctx context.Context, source layerSource, l manifests.Layer, p manifests.Progress) (foundRecipe, error) {
	in, err := source.Fetch(ctx, l.Blob)
	if err != nil {
		return foundRecipe{}, err
	}
	defer in.Close()
	in = p.Watch(in, l.Blob)
	content := &boundedWriter{left: maxTar(l), over: tooLarge(l)}
	o := s.options()
	o.Spend = spend(l.Blob.Size)
	raw, info, err := recompress.Find(ctx, in, content, o)
	if _, rest := io.Copy(struct{ io.Writer }{io.Discard}, in); err == nil {
		err = rest
	}
	return foundRecipe{recipe: raw, model: info.Model, tar: info.Content}, err
}

// probeHead is how much of a layer is looked at for an estimate.
const probeHead = 512 << 10

// probe says what find would likely find.
func (s *study) probe(ctx context.Context, source layerSource, l manifests.Layer) (foundRecipe, error) {
	in, err := source.Fetch(ctx, l.Blob)
	if err != nil {
		return foundRecipe{}, err
	}
	defer in.Close()
	head := make([]byte, probeHead)
	n, err := io.ReadFull(in, head)
	if err != nil {
		return foundRecipe{}, err
	}
	info, err := recompress.Probe(head[:n])
	length := int64(info.Recipe) * (l.Blob.Size / max(info.Stream, 1))
	return foundRecipe{model: info.Model, tar: unknownSize, length: max(length, 1)}, err
}

// inherit takes a recipe over from a bundle, and proves it anew.
func (s *study) inherit(ctx context.Context, l manifests.Layer, p manifests.Progress) (foundRecipe, bool) {
	b, ok := s.graph.Source(l.Blob.Digest).(*Bundle)
	if !ok {
		return foundRecipe{}, false
	}
	r, ok := b.recipeFor(ctx, l)
	return r, ok && (s.guess || s.prove(ctx, s.source, l, r, p) == nil)
}

func (s *study) options() recompress.Options {
	return recompress.Options{Jobs: s.o.jobs(), Slots: s.slots}
}

// freeRecipe is how long a recipe may be for any layer, in bytes: a blob that is
// carried has a header and padding, which take more.
const freeRecipe = 512

// spend is the part of a layer that its recipe may be, as 1/spend.
func spend(size int64) int { return int(min(max(size/freeRecipe, 1), 10)) }

var errNotExact = errors.New("the stream does not come back exact")

// prove makes the blob from the layer's tar, whose diffID it proves as well.
func (s *study) prove(ctx context.Context, source layerSource, l manifests.Layer, r foundRecipe, p manifests.Progress) error {
	tar, err := openLayerTar(ctx, source, l, p)
	if err != nil {
		return err
	}
	defer tar.Close()
	h := l.Blob.Digest.Algorithm().Digester()
	err = recompress.Restore(ctx, h.Hash(), tar, r.recipe, l.Blob.Size, s.options())
	if _, rest := io.Copy(struct{ io.Writer }{io.Discard}, tar); rest != nil {
		return rest // which explains err
	}
	if err == nil && h.Digest() != l.Blob.Digest {
		err = errNotExact
	}
	return err
}

// reasonOf says why a layer is carried whose study ended with err.
func reasonOf(err error) (why Reason, known bool) {
	var content *manifests.ContentError
	switch {
	case errors.Is(err, recompress.ErrHopeless):
		return ReasonEncoder, true
	case errors.Is(err, recompress.ErrFormat):
		return ReasonFormat, true
	case errors.Is(err, errNotExact), errors.Is(err, recompress.ErrRecipe), errors.Is(err, recompress.ErrUnknown):
		return ReasonProof, true
	case !errors.As(err, &content):
		return "", false
	case content.Kind == manifests.KindDiffID:
		return ReasonDiffID, true
	case content.Kind == manifests.KindLimit:
		return ReasonSize, true
	}
	return ReasonFormat, true
}

// blamingSource remembers what went wrong with a blob, to tell it from what is
// wrong with its tar.
type blamingSource struct {
	layerSource
	err error // the first
}

func (b *blamingSource) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	in, err := b.layerSource.Fetch(ctx, d)
	if err != nil {
		b.blame(err)
		return nil, err
	}
	return &blamingReader{in, b}, nil
}

func (b *blamingSource) blame(err error) {
	if b.err == nil {
		b.err = err
	}
}

type blamingReader struct {
	io.ReadCloser
	source *blamingSource
}

func (b *blamingReader) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.source.blame(err)
	}
	return n, err
}

// boundedWriter gives the error over makes in place of taking what is beyond a
// bound.
type boundedWriter struct {
	left int64
	over func() error
}

func (b *boundedWriter) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, b.over()
	}
	return len(p), nil
}

// toldOnce tells of a blob that is read several times: as much as was promised,
// whatever is read.
type toldOnce struct {
	progress manifests.Progress
	blob     ocispec.Descriptor
	left     int64
}

func (t *toldOnce) tell(_ ocispec.Descriptor, n int64) {
	n = min(n, t.left)
	if t.left -= n; n > 0 && t.progress != nil {
		t.progress(t.blob, n)
	}
}

func (t *toldOnce) rest() { t.tell(t.blob, t.left) }

// recipeFor returns the recipe that the bundle has for a layer, for who makes
// another bundle.
func (b *Bundle) recipeFor(ctx context.Context, l manifests.Layer) (r foundRecipe, ok bool) {
	i, ok := b.streams[l.Blob.Digest]
	if !ok || b.catalog.Streams[i].Tar != l.DiffID || b.contents.streams.proven.wait(ctx) != nil {
		return r, false
	}
	s := b.contents.streams.list[i]
	raw, err := b.contents.streamRecipe(s)
	return foundRecipe{recipe: raw, model: recompress.ModelOf(raw), tar: b.catalog.Tars[s.tar].Size}, err == nil
}
