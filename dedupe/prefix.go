package dedupe

import (
	"cmp"
	"context"
	"slices"
	"sort"

	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/segment"
	"github.com/imgpack/imgpack/manifests"
)

// maxPackPrefix bounds the prefix that a segment is given, in bytes, and the
// content of a segment that may be given one: as much old as new.
const maxPackPrefix = 64 << 20

// segmentSize is how much content a segment holds.
func (p *chunkPlan) segmentSize() int {
	if p.readsBases() {
		return min(p.level.Size(), maxPackPrefix)
	}
	return p.level.Size()
}

// readsBases reports whether there are old files to compress new ones against.
func (p *chunkPlan) readsBases() bool {
	return p.level != segment.Fast && // which looks for no matches
		slices.ContainsFunc(p.bases, func(b *Base) bool { return b.content != nil })
}

// prefixes are the files of bases that changed ones are compressed against:
// which, where in the spool they lie, and the spool.
type prefixes struct {
	spool  spool
	layers []prefixLayer
	at     map[int]int       // in layers, by source
	lists  [][]recipe.Extent // by segment
}

// prefixLayer is a layer of a base, and what is wanted of it.
type prefixLayer struct {
	graph  *manifests.Graph
	layer  manifests.Layer
	source int
	ranges ranges
}

// choosePrefixes finds, for each segment of a window, the files of the bases
// that resemble its own.
func (k *packer) choosePrefixes(cuts [][]uint32, files []file) *prefixes {
	p := &prefixes{lists: make([][]recipe.Extent, len(cuts)), at: map[int]int{}}
	if !k.plan.readsBases() {
		return p
	}
	from := 0
	for i, cut := range cuts {
		to := from + len(cut)
		first := sort.Search(len(files), func(j int) bool { return files[j].to > from })
		last := sort.Search(len(files), func(j int) bool { return files[j].from >= to })
		p.lists[i] = k.prefix(p, files[first:max(first, last)])
		from = to
	}
	return p
}

// prefix chooses for one segment.
func (k *packer) prefix(p *prefixes, files []file) (out []recipe.Extent) {
	type key struct{ source, offset int64 }
	seen := map[key]bool{}
	left := int64(maxPackPrefix)
	for _, f := range files {
		for _, b := range k.plan.bases {
			if b.content == nil {
				continue
			}
			old, ok := b.content.like(f.name, k.sources.used)
			if !ok || old.length > left || old.length == 0 || len(out) == recipe.MaxPrefixExtents {
				continue
			}
			l := p.layer(k, b, int(old.layer))
			if at := (key{int64(l.source), old.offset}); !seen[at] {
				seen[at] = true
				left -= old.length
				l.ranges.add(old.offset, old.offset+old.length, maxRanges)
				out = append(out, recipe.Extent{Source: l.source, Offset: old.offset, Length: old.length})
			}
			break
		}
	}
	return out
}

// layer returns the i-th layer of a base, which is needed from now on.
func (p *prefixes) layer(k *packer, b *Base, i int) *prefixLayer {
	l := b.content.layers[i]
	source := int(k.sources.use(k.sources.number[l.DiffID]))
	at, ok := p.at[source]
	if !ok {
		at = len(p.layers)
		p.at[source] = at
		p.layers = append(p.layers, prefixLayer{graph: b.content.graph, layer: l, source: source})
	}
	return &p.layers[at]
}

// fetch reads what is wanted of the bases into the spool.
func (p *prefixes) fetch(ctx context.Context, dir string, jobs int) error {
	p.spool.dir, p.spool.name = cmp.Or(dir, "."), "the base"
	var at int64
	for i := range p.layers {
		at = p.layers[i].ranges.place(at)
	}
	p.spool.need.Store(at)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	for i := range p.layers {
		group.Go(func() error {
			l := &p.layers[i]
			tar, err := openLayerTar(gctx, l.graph, l.layer, nil)
			if err != nil {
				return err
			}
			defer tar.Close()
			_, err = l.ranges.copy(tar, func(b []byte, at int64) error { return p.spool.write(gctx, b, at) })
			return err
		})
	}
	return group.Wait()
}

// read returns the prefix of the window's i-th segment, in buf if it is large
// enough.
func (p *prefixes) read(buf []byte, i int) ([]byte, error) {
	buf = buf[:0]
	for _, e := range p.lists[i] {
		n := len(buf)
		buf = slices.Grow(buf, int(e.Length))[:n+int(e.Length)]
		if err := p.spool.read(buf[n:], p.layers[p.at[e.Source]].ranges.locate(e.Offset)); err != nil {
			return nil, err
		}
	}
	return buf, nil
}
