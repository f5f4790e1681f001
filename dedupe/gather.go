package dedupe

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/dedupe/internal/split"
	"github.com/imgpack/imgpack/manifests"
)

// packLimits bound what is remembered while layers are taken apart. A chunk
// costs about 100 bytes, a file 50.
type packLimits struct {
	// known bounds the chunks that are remembered from window to window; those
	// of later windows are then found in their own window alone.
	known int
	// pieces bounds the chunks of all layers of a window, each counted as often
	// as it occurs. A window with more is cut in two and read again.
	pieces int
	// runs bounds the files of one layer. What comes after is cut into chunks
	// as if it were no tar.
	runs int
}

var defaultLimits = packLimits{known: 1 << 20, pieces: 1 << 21, runs: 1 << 20}

// chunk is a piece of content that occurs in a window.
type chunk struct {
	key    chunkKey
	source int32 // 0: the contents; k: a layer of a base; see unplaced and inBase
	offset int64 // in the source
	spool  int64 // in the spool; -1 if it is not there
}

type chunkKey struct {
	sum    split.Sum
	length uint32
}

// chunkList is a list that grows without being copied.
type chunkList struct {
	pages [][]chunk
	n     int
}

const chunkPage = 1 << 12

func (l *chunkList) at(id uint32) *chunk { return &l.pages[id/chunkPage][id%chunkPage] }

func (l *chunkList) add(c chunk) (id uint32) {
	if l.n == len(l.pages)*chunkPage {
		l.pages = append(l.pages, make([]chunk, chunkPage))
	}
	id = uint32(l.n)
	l.n++
	*l.at(id) = c
	return id
}

// cut keeps the first n.
func (l *chunkList) cut(n int) {
	l.n = n
	l.pages = l.pages[:(n+chunkPage-1)/chunkPage]
}

// A chunk that is unplaced is to be given a place in the contents, one inBase
// in a layer of a base; then inBase-1-k stands for the layer of that number.
const (
	unplaced = -1
	inBase   = -2
)

// gatherer takes layers apart, several at a time, and knows every chunk once.
// The numbers it gives to chunks depend on the order of arrival; nothing that
// is written may.
type gatherer struct {
	plan    *chunkPlan
	limits  packLimits
	spool   *spoolWriter // nil: contents are not kept
	sample  *sample      // nil: none is taken
	sources sources

	mu     sync.Mutex
	known  map[chunkKey]uint32
	chunks chunkList
	pieces int // of the window
	before int // chunks known before the window
}

var errTooManyPieces = errors.New("the window has too many chunks")

// scan takes the layers of a window apart. It returns errTooManyPieces for more
// than fit into memory, unless there is only one.
func (g *gatherer) scan(ctx context.Context, window []openTar, jobs int, progress manifests.Progress) ([]pieces, error) {
	out := make([]pieces, len(window))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	for _, i := range largestFirst(len(window), func(i int) int64 { return window[i].size }) {
		group.Go(func() error {
			s := &sink{gatherer: g, layer: i, alone: len(window) == 1}
			if err := g.layer(gctx, window[i], s, progress); err != nil {
				return err
			}
			out[i] = s.pieces
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if g.spool == nil {
		return out, nil
	}
	return out, g.spool.flush()
}

// largestFirst is the order in which to work on n things of some size.
func largestFirst(n int, size func(i int) int64) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(size(b), size(a)) })
	return order
}

// layer reads one layer to its end, which is proven unless it is spooled.
func (g *gatherer) layer(ctx context.Context, t openTar, s *sink, progress manifests.Progress) error {
	tar, err := openLayerTar(ctx, g.plan.source, t.Layer, progress)
	if err != nil {
		return err
	}
	defer tar.Close()
	if g.spool != nil {
		tar.unproven() // what is put together from the spool will be
	}
	if t.size == unknownSize {
		if err := split.Tar(tar, s); err != nil {
			return err
		}
		return s.end()
	}
	in := &boundedReader{in: tar, left: t.size, over: func() error {
		return manifests.Bad(manifests.KindSize, "blob "+string(t.DiffID), "longer than the %d bytes it should have", t.size)
	}}
	if err := split.Tar(in, s); err != nil {
		return err
	}
	if in.left > 0 {
		return manifests.Bad(manifests.KindTruncated, "blob "+string(t.DiffID), "%d of %d bytes are missing", in.left, t.size)
	}
	return s.end()
}

// take gives a chunk its number, and keeps its content if it is new.
func (g *gatherer) take(p []byte, sum split.Sum, alone bool) (id uint32, fresh bool, err error) {
	key := chunkKey{sum, uint32(len(p))}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pieces++; g.pieces > g.limits.pieces && !alone {
		return 0, false, errTooManyPieces
	}
	id, ok := g.known[key]
	if ok && g.chunks.at(id).spool >= 0 {
		return id, false, nil
	}
	if !ok {
		c := chunk{key: key, source: unplaced}
		if g.sources.has(key) {
			c.source = inBase
		}
		id = g.chunks.add(c)
		if len(g.known) < g.limits.known+g.limits.pieces {
			g.known[key] = id
		}
	}
	c := g.chunks.at(id)
	c.spool = 0
	if g.spool != nil {
		c.spool, err = g.spool.append(p)
	}
	return id, c.source == unplaced, err
}

// begin makes ready for a window: what is known is in no spool.
func (g *gatherer) begin() error {
	if g.known == nil {
		g.known = make(map[chunkKey]uint32)
	}
	for id := range uint32(g.chunks.n) {
		c := g.chunks.at(id)
		c.spool = -1
		g.known[c.key] = id
	}
	g.pieces, g.before = 0, g.chunks.n
	if g.spool == nil {
		return nil
	}
	return g.spool.reset()
}

// forget drops the window's chunks.
func (g *gatherer) forget() {
	g.chunks.cut(g.before)
	g.known = nil
}
