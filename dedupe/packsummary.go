package dedupe

import (
	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/manifests"
)

// summary says what is known once all windows are done.
func (k *packer) summary() *Summary {
	c := k.plan.counts
	s := &Summary{Temp: k.plan.tempWith(k.o.SpoolLimit), Rows: append([]Row(nil), c.rows...), Totals: c.totals}
	for i, l := range k.plan.open {
		s.Rows[c.row[l.Blob.Digest]].NewContent += k.fresh[i]
	}
	t := &s.Totals
	t.SavedByBase = k.fromBases
	for _, d := range k.plan.need {
		t.SavedByBase += d.Size
	}
	t.SavedByChunks = k.plan.openBytes() - k.fromBases - k.contents
	t.SavedByCompression = k.contents - k.packed
	return s
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

// receipt says what the other side has once it has the bundle. A compressed
// layer is known as a blob alone, unless a base knew its chunks.
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
