package dedupe

import (
	"cmp"
	"slices"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/split"
)

// layout is where the contents of a window come to lie.
type layout struct {
	fresh   []uint32 // new chunks, in the order of the contents
	length  int64    // of them
	byLayer []int64  // the same, by the layer in which each occurs first
	files   []file   // in the order of the contents
}

// file is a file with new chunks.
type file struct {
	name     string
	from, to int // in the list of new chunks
}

// order gives every new chunk of a window its place in the contents, from base
// on: heads first, then bodies by path, so that what is alike lies side by
// side. A chunk belongs to the layer, of those in order, in which it occurs
// first; so nothing here depends on the order of arrival.
func (g *gatherer) order(window []pieces, base int64) layout {
	l := layout{byLayer: make([]int64, len(window))}
	var bodies []uint32
	var files []file
	for i, w := range window {
		l.byLayer[i] += g.claim(w.heads, &l.fresh)
		list := names{packed: w.files.packed}
		rest := w.bodies
		for _, r := range w.runs {
			if r.Body == 0 {
				continue
			}
			name, n := list.next(), g.count(rest, r.Body)
			from := len(bodies)
			if got := g.claim(rest[:n], &bodies); got > 0 {
				l.byLayer[i] += got
				files = append(files, file{string(name), from, len(bodies)})
			}
			rest = rest[n:]
		}
	}
	slices.SortFunc(files, func(a, b file) int {
		return cmp.Or(split.Compare(a.name, b.name), cmp.Compare(a.from, b.from))
	})
	for i, f := range files {
		files[i].from = len(l.fresh)
		l.fresh = append(l.fresh, bodies[f.from:f.to]...)
		files[i].to = len(l.fresh)
	}
	l.files = files
	for _, id := range l.fresh {
		c := g.chunks.at(id)
		c.offset = base + l.length
		l.length += int64(c.key.length)
	}
	return l
}

// claim appends to list those of ids that have no place yet, each once, and
// returns their length.
func (g *gatherer) claim(ids []uint32, list *[]uint32) (n int64) {
	for _, id := range ids {
		if c := g.chunks.at(id); c.source == unplaced {
			c.source = 0
			*list = append(*list, id)
			n += int64(c.key.length)
		}
	}
	return n
}

// count is how many of ids are a body of that length.
func (g *gatherer) count(ids []uint32, body int64) (n int) {
	for ; body > 0; n++ {
		body -= int64(g.chunks.at(ids[n]).key.length)
	}
	return n
}

// recipes says how the tars of a window are put together, once all chunks have
// places. Layers of bases are given their number in the bundle here.
func (g *gatherer) recipes(window []pieces) []recipe.Tar {
	tars := make([]recipe.Tar, len(window))
	for i, p := range window {
		tars[i] = recipe.Tar{Runs: p.runs, Heads: g.extents(p.heads), Bodies: g.extents(p.bodies)}
	}
	return tars
}

func (g *gatherer) extents(ids []uint32) (out []recipe.Extent) {
	for _, id := range ids {
		c := g.chunks.at(id)
		if c.source < inBase {
			c.source = g.sources.use(inBase - 1 - c.source)
		}
		e := recipe.Extent{Source: int(c.source), Offset: c.offset, Length: int64(c.key.length)}
		if n := len(out); n > 0 && out[n-1].Source == e.Source && out[n-1].Offset+out[n-1].Length == e.Offset {
			out[n-1].Length += e.Length
			continue
		}
		out = append(out, e)
	}
	return slices.Clip(out)
}

// cuts divides the new chunks of a window into segments of at most size bytes.
func (g *gatherer) cuts(fresh []uint32, size int64) (out [][]uint32) {
	var n int64
	from := 0
	for i, id := range fresh {
		length := int64(g.chunks.at(id).key.length)
		if n += length; n > size {
			out = append(out, fresh[from:i])
			from, n = i, length
		}
	}
	if from < len(fresh) {
		out = append(out, fresh[from:])
	}
	return out
}

// keep drops, after a window, what later windows cannot use. Contents are
// remembered in their order, up to the limit.
func (g *gatherer) keep(l layout) {
	var kept chunkList
	for id := range uint32(g.before) {
		kept.add(*g.chunks.at(id))
	}
	for _, id := range l.fresh[:min(len(l.fresh), max(0, g.limits.known-kept.n))] {
		kept.add(*g.chunks.at(id))
	}
	g.chunks = kept
}
