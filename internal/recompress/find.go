package recompress

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
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

	bits    int64     // of the parts so far
	decider detective // of what the workers do not decide
	last    *verdict  // of the part before, if that has content
	left    int64     // work that searches may do
}

func findDeflate(ctx context.Context, stream io.Reader, content io.Writer, o Options) ([]byte, Info, error) {
	f := newFinder(o.jobs())
	if err := f.run(ctx, stream, content, o); err != nil {
		return nil, Info{}, err
	}
	f.info.Recipe, f.info.Model = len(f.recipe), most(f.models)
	if o.costs(len(f.recipe), f.info.Stream) {
		return nil, f.info, ErrHopeless
	}
	return f.recipe, f.info, nil
}

func newFinder(jobs int) *finder {
	return &finder{
		work: make(chan *part), order: make(chan *part, jobs+1), content: make(chan *part, jobs+1),
		recipe: []byte{recipeDeflate}, models: make(map[string]int64), left: searchWork,
	}
}

func (f *finder) run(ctx context.Context, stream io.Reader, content io.Writer, o Options) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(f.work)
		defer close(f.order)
		defer close(f.content)
		return newSplitter(stream, func(q *part) error { return f.hand(ctx, q) }).split()
	})
	for range o.jobs() {
		g.Go(func() error { return f.worker(ctx, o) })
	}
	g.Go(func() error { return f.writer(content) })
	g.Go(func() error { return f.collect(ctx, o) })
	return g.Wait()
}

// hand gives a part to all who work on it.
func (f *finder) hand(ctx context.Context, q *part) error {
	q.result = &verdict{tried: make(chan struct{}), done: make(chan struct{}), cost: math.MaxInt}
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
			err := o.compute(ctx, func() error {
				q.decided = d.again(q, q.origin, math.MaxInt)
				return nil
			})
			if err != nil {
				return err
			}
		}
		close(q.result.tried)
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
	for q := range f.order {
		select {
		case <-q.result.tried:
		case <-ctx.Done():
			return ctx.Err()
		}
		f.bits += q.bits
		f.info.Stream = (f.bits + 7) / 8
		if !q.decided {
			if err := o.compute(ctx, func() error { return f.decide(q, o) }); err != nil {
				return err
			}
		}
		f.left = min(f.left+q.result.work/refill, searchWork)
		if q.from < q.to {
			f.last = q.result
		}
		close(q.result.done)
		origin := f.info.Content - q.taken(q.result.spec)
		q.found.moved = origin - f.origin
		f.origin = origin
		f.recipe = q.found.append(f.recipe)
		f.info.Content += int64(q.to - q.from)
		f.models[q.result.spec.Name] += int64(q.to - q.from)
		if len(f.recipe) > f.most(o) {
			return ErrHopeless
		}
	}
	return nil
}

// most is how long the recipe may be so far. It may be longer at the beginning.
func (f *finder) most(o Options) int {
	if o.spend() < 0 {
		return MaxRecipe
	}
	n := max(f.info.Stream, min(2*f.info.Stream, 2<<20))
	return int(min(n/o.spend()+4<<10, MaxRecipe))
}

// decide finds the model of a part if that of one before will not do: perhaps
// the stream has another from the part before on. All of this is done in order,
// so that what may still be spent on it does not depend on how fast workers are.
func (f *finder) decide(q *part, o Options) error {
	most := f.most(o) - len(f.recipe)
	if f.last != nil && f.decider.again(q, f.last, most) {
		return nil
	}
	spent, err := f.decider.search(q, most, f.left)
	f.left -= spent
	return err
}

// costs tells whether a recipe is too long for a stream.
func (o Options) costs(recipe int, stream int64) bool {
	return o.spend() > 0 && int64(recipe) > stream/o.spend()
}

func (o Options) spend() int64 {
	if o.Spend == 0 {
		return 10
	}
	return int64(o.Spend)
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
