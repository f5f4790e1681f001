package dedupe

import (
	"cmp"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/manifests"
)

// summary says what is known once all windows are done.
func (k *packer) summary() *Summary {
	p := k.plan
	s := &Summary{Temp: p.tempWith(k.o.SpoolLimit), Rows: slices.Clone(p.counts.rows), Totals: p.counts.totals}
	row := p.tarRows()
	for i, t := range p.open {
		s.Rows[row[t.DiffID]].NewContent += k.fresh[i]
	}
	t := &s.Totals
	t.SavedByBase = k.fromBases
	for _, d := range p.need {
		t.SavedByBase += d.Size
	}
	t.GrownByOpening = p.grown()
	t.SavedByChunks = p.openBytes() - k.fromBases - k.contents
	t.SavedByCompression = k.contents - k.packed
	t.Models, t.Reasons = p.models(), p.reasonTotals()
	return s
}

// tarRows tells which row first needs each open tar, by whatever blob.
func (p *chunkPlan) tarRows() map[digest.Digest]int {
	rows := map[digest.Digest]int{}
	note := func(tar digest.Digest, row int) {
		if first, ok := rows[tar]; !ok || row < first {
			rows[tar] = row
		}
	}
	for _, t := range p.open {
		note(t.DiffID, p.counts.row[t.Blob.Digest])
	}
	for _, s := range p.streams {
		note(s.tar, p.counts.row[s.blob.Digest])
	}
	return rows
}

// grown is how much more the open tars and the recipes are than the blobs that
// they stand for.
func (p *chunkPlan) grown() int64 {
	n := p.openBytes()
	for _, t := range p.open {
		if t.Compression == manifests.Uncompressed {
			n -= t.Blob.Size
		}
	}
	for _, s := range p.streams {
		n += s.recipe.length - s.blob.Size
	}
	return n
}

// models sums up what is held open, the encoder with most bytes first.
func (p *chunkPlan) models() (list []ModelTotal) {
	for _, s := range slices.Concat(p.streams, p.unread) {
		i := slices.IndexFunc(list, func(m ModelTotal) bool { return m.Model == s.model })
		if i < 0 {
			i = len(list)
			list = append(list, ModelTotal{Model: s.model})
		}
		list[i].Layers++
		list[i].Bytes += s.blob.Size
		list[i].Recipes += s.recipe.length
	}
	slices.SortFunc(list, func(a, b ModelTotal) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Model, b.Model))
	})
	return list
}

// reasonTotals sums up the layers that are carried, the reason for most bytes
// first.
func (p *chunkPlan) reasonTotals() (list []ReasonTotal) {
	for _, d := range p.carried {
		reason, ok := p.reasons[d.Digest]
		if !ok {
			continue // it is no layer
		}
		i := slices.IndexFunc(list, func(r ReasonTotal) bool { return r.Reason == reason })
		if i < 0 {
			i = len(list)
			list = append(list, ReasonTotal{Reason: reason})
		}
		list[i].Layers++
		list[i].Bytes += d.Size
	}
	slices.SortFunc(list, func(a, b ReasonTotal) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Reason, b.Reason))
	})
	return list
}

// collect notes the chunks of a layer's bodies for a receipt.
func (k *packer) collect(p pieces) (out []chunkAt) {
	var at int64
	ids := p.bodies
	for _, r := range p.runs {
		at += r.Head
		for end := at + r.Body; at < end; ids = ids[1:] {
			key := k.gatherer.chunks.at(ids[0]).key
			out = append(out, chunkAt{sum: key.sum, offset: at, length: int32(key.length)})
			at += int64(key.length)
		}
	}
	return out
}

// receipt says what the other side has once it has the bundle. A carried layer
// is known as a blob alone, unless a base knew its chunks.
func (k *packer) receipt(d digest.Digest) *Base {
	b := newBaseBuilder(BaseID{Digest: d}, k.plan.graph)
	chunks := map[digest.Digest][]chunkAt{}
	for i, l := range k.plan.open {
		chunks[l.DiffID] = k.chunks[i]
	}
	for _, l := range layersOf(k.plan.graph) {
		if list, ok := chunks[l.DiffID]; ok {
			b.addLayer(l, list)
			continue
		}
		k.carryOver(b, l)
	}
	return b.base()
}

func (k *packer) carryOver(to *baseBuilder, l manifests.Layer) {
	for _, b := range k.plan.bases {
		if to.carryOver(b, l) {
			return
		}
	}
}
