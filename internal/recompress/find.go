package recompress

import (
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/internal/recompress/model"
)

// lag is how many parts later the model of a part is taken up: far enough that
// it is known by then however many parts are worked on at once.
const lag = 16

func (o Options) jobs() int {
	if o.Jobs > 0 {
		return o.Jobs
	}
	return runtime.GOMAXPROCS(0)
}

// compute calls f when there is a slot for it.
func (o Options) compute(ctx context.Context, f func() error) error {
	if o.Slots != nil {
		select {
		case o.Slots <- struct{}{}:
			defer func() { <-o.Slots }()
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return f()
}

// finder is one call of Find for a gzip stream.
type finder struct {
	work    chan *part // any order
	order   chan *part // as in the stream
	content chan *part // the same
	verdict []*verdict // of parts, the last lag
	parts   int

	recipe []byte
	origin int64 // in the content, of the encoder of the last part
	info   Info
	models map[string]int64 // content by name
}

func findDeflate(ctx context.Context, stream io.Reader, content io.Writer, o Options) ([]byte, Info, error) {
	jobs := o.jobs()
	f := &finder{
		work: make(chan *part), order: make(chan *part, jobs+1), content: make(chan *part, jobs+1),
		recipe: []byte{recipeDeflate}, models: make(map[string]int64),
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(f.work)
		defer close(f.order)
		defer close(f.content)
		return newSplitter(stream, func(q *part) error { return f.hand(ctx, q) }).split()
	})
	for range jobs {
		g.Go(func() error { return f.worker(ctx, o) })
	}
	g.Go(func() error { return f.writer(content) })
	g.Go(func() error { return f.collect(ctx, o) })
	if err := g.Wait(); err != nil {
		return nil, Info{}, err
	}
	f.info.Recipe, f.info.Model = len(f.recipe), most(f.models)
	if o.costs(len(f.recipe), f.info.Stream) {
		return nil, f.info, ErrHopeless
	}
	return f.recipe, f.info, nil
}

// hand gives a part to all who work on it.
func (f *finder) hand(ctx context.Context, q *part) error {
	q.result = &verdict{done: make(chan struct{})}
	switch {
	case f.parts >= lag:
		q.origin = f.verdict[f.parts%lag]
	case f.parts > 0:
		q.origin = f.verdict[0]
	}
	if len(f.verdict) < lag {
		f.verdict = append(f.verdict, q.result)
	} else {
		f.verdict[f.parts%lag] = q.result
	}
	f.parts++
	for _, c := range []chan *part{f.order, f.content, f.work} {
		select {
		case c <- q:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (f *finder) worker(ctx context.Context, o Options) error {
	var d detective
	for q := range f.work {
		if q.origin != nil {
			select {
			case <-q.origin.done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := o.compute(ctx, func() error { return d.solve(q) }); err != nil {
			return err
		}
		close(q.result.done)
	}
	return nil
}

func (f *finder) writer(content io.Writer) error {
	for q := range f.content {
		if content == nil {
			continue
		}
		if _, err := content.Write(q.data[q.from:q.to]); err != nil {
			return fmt.Errorf("write content: %w", err)
		}
	}
	return nil
}

// collect puts the recipe together.
func (f *finder) collect(ctx context.Context, o Options) error {
	var bits int64
	for q := range f.order {
		select {
		case <-q.result.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		origin := f.info.Content - q.taken(q.result.spec)
		q.found.moved = origin - f.origin
		f.origin = origin
		f.recipe = q.found.append(f.recipe)
		bits += q.bits
		f.info.Stream = (bits + 7) / 8
		f.info.Content += int64(q.to - q.from)
		f.models[q.result.spec.Name] += int64(q.to - q.from)
		if o.costs(len(f.recipe)-4<<10, max(f.info.Stream, min(2*f.info.Stream, 2<<20))) || len(f.recipe) > MaxRecipe {
			return ErrHopeless
		}
	}
	return nil
}

// costs tells whether a recipe is too long for a stream.
func (o Options) costs(recipe int, stream int64) bool {
	spend := int64(o.Spend)
	if spend == 0 {
		spend = 10
	}
	return spend > 0 && int64(recipe) > stream/spend
}

// most returns the name with the largest number, the first of several.
func most(names map[string]int64) (name string) {
	best := int64(-1)
	for _, s := range slices.Sorted(maps.Keys(names)) {
		if names[s] > best {
			name, best = s, names[s]
		}
	}
	return name
}

// taken is how much the encoder had taken before the part.
func (q *part) taken(s model.Spec) int64 {
	if s.Restarts && q.begin == beginAmid {
		return q.run
	}
	return q.member
}

// record is what is found of a part.
func (q *part) record(id uint16, dense bool, structure, corrected []byte) record {
	r := record{begin: q.begin, dense: dense, bit: q.bit, model: id, content: q.to - q.from, prior: q.from, structure: structure, correction: corrected}
	if q.goesOn {
		r.ahead = len(q.data) - q.to
	}
	return r
}
