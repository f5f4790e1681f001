package dedupe

import (
	"cmp"
	"context"
	"errors"

	"github.com/opencontainers/go-digest"
)

// Phase is a part of the work of packing.
type Phase string

// The phases, in their order. In chunk mode the last two come again for each
// window of layers that are put in order at a time.
const (
	PhaseStudy    Phase = "study"    // how layers were compressed is found out; only where there are such
	PhaseWrite    Phase = "write"    // blobs are read: carried ones are written, open ones are taken apart
	PhaseCompress Phase = "compress" // the contents of open ones are compressed and written
)

// blobBytesOf is what is read for windows.
func blobBytesOf(windows ...[]openTar) (n int64) {
	for _, w := range windows {
		for _, t := range w {
			n += t.Blob.Size
		}
	}
	return n
}

func (o Options) begin(p Phase, bytes int64) {
	if o.Phase != nil {
		o.Phase(p, bytes)
	}
}

// prepare studies the compressed layers of a plan, and gives the plan in which
// all is decided. open opens the file for blobs from far away. end, never nil,
// frees what the new plan reads from; it may keep the blobs for a later run.
func (p *chunkPlan) prepare(ctx context.Context, o Options, open openSpool) (d *chunkPlan, end func(keep bool) error, err error) {
	decided := *p
	d = &decided
	d.recipes = &recipeFile{dir: cmp.Or(o.SpoolDir, ".")}
	end = func(bool) error { return d.recipes.close() }
	if far := p.far(); len(far) > 0 {
		if d.spool, err = newBlobSpool(p.graph, far, open); err != nil {
			return d, end, err
		}
		end = func(keep bool) error { return errors.Join(d.recipes.close(), d.spool.end(keep)) }
		d.source = d.spool
	}
	if len(p.packed) > 0 {
		if err := d.study(ctx, o); err != nil {
			return d, end, err
		}
	}
	later := windows(d.open, o.SpoolLimit)
	o.begin(PhaseWrite, d.transfer()-blobBytesOf(later[min(1, len(later)):]...))
	return d, end, nil
}

// study decides what becomes of the compressed layers.
func (p *chunkPlan) study(ctx context.Context, o Options) error {
	o.begin(PhaseStudy, studyPasses*p.packedBytes())
	return p.decide(ctx, &study{o: o, recipes: p.recipes})
}

// guess is the plan that prepare would likely make, for an estimate: what
// compressed layers unpack to is not known in it.
func (p *chunkPlan) guess(ctx context.Context, o Options) (*chunkPlan, error) {
	decided := *p
	s := &study{o: o, guess: true}
	s.o.Progress = nil
	if err := decided.decide(ctx, s); err != nil {
		return nil, err
	}
	for _, h := range decided.unread {
		if o.Progress != nil {
			o.Progress(h.blob, h.blob.Size)
		}
	}
	return &decided, nil
}

func (p *chunkPlan) decide(ctx context.Context, s *study) error {
	s.graph, s.source, s.cache = p.graph, p.source, recipeCache{s.o.RecipeCache, s.o.Program}
	layers := p.packed
	list, err := s.layers(ctx, layers)
	if err != nil {
		return err
	}
	verdicts := map[digest.Digest]verdict{}
	for i, l := range layers {
		verdicts[l.Blob.Digest] = list[i]
	}
	return p.arrange(verdicts)
}
