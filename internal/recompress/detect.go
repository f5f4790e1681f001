package recompress

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/imgpack/imgpack/internal/recompress/model"
)

// Bounds of the search for a model.
const (
	trialContent = 32 << 10 // that every model is tried on, up to the end of a block
	kinTokens    = 256      // a model that is wrong sooner is far off
	rankContent  = 16 << 10 // to find the best of those that are wrong
	dearShare    = 8        // one byte in so many of the stream is dear
	trialTokens  = 2000     // a model that is right about so many is not doubted
	smallContent = 4 << 10  // of parts that are not worth trying more than
	smallModels  = 8        // on
	denseShare   = 64       // one correction in fewer tokens are many
	finalists    = 3        // models that are tried on a whole part
	smallCost    = 64       // bytes for which no better model of a part is looked for
	smallShare   = 1000     // or one in so many of the stream
)

// verdict is which model a part was found to be made by.
type verdict struct {
	done  chan struct{} // closed when the rest is valid
	spec  model.Spec
	dense bool
	cost  int // bytes of code
	bits  int64
}

// enough is what a part of so many bits may cost without being looked into:
// about as much as the one that v is the verdict on.
func (v *verdict) enough(bits int64) int {
	n := smallCost + bits/8/smallShare
	if v != nil {
		n += int64(float64(2*v.cost) / float64(max(v.bits, 1)) * float64(bits))
	}
	return int(n)
}

// detective finds models. It is used from one goroutine.
type detective struct {
	player player
}

// solve finds the recipe of a part. Its error is ErrHopeless, if it has none.
func (d *detective) solve(q *part) error {
	q.result.cost = math.MaxInt
	if q.from == q.to {
		d.try(q, known()[0], false)
		return nil
	}
	if q.origin != nil {
		d.try(q, q.origin.spec, q.origin.dense)
		if q.result.cost <= q.origin.enough(q.bits) {
			return nil
		}
	}
	enough := (*verdict)(nil).enough(q.bits)
	if spec, ok := d.surely(q); ok {
		if d.try(q, spec, false); q.result.cost <= enough {
			return nil
		}
	}
	for _, e := range d.rank(q) {
		if d.try(q, e.Spec, e.dense); q.result.cost <= enough {
			break
		}
	}
	if q.result.cost == math.MaxInt {
		return ErrHopeless
	}
	return nil
}

// try takes a model for a part if it costs less than the one that it has.
func (d *detective) try(q *part, spec model.Spec, dense bool) {
	if q.result.cost < math.MaxInt && q.result.spec.ID == spec.ID {
		return
	}
	r, ok := d.pack(q, spec, limits{cost: q.result.cost - 1, dense: dense})
	if !ok {
		return
	}
	q.found = r
	q.result.spec, q.result.dense, q.result.cost, q.result.bits = spec, r.dense, r.cost(), q.bits
}

// pack packs a part in the better way.
func (d *detective) pack(q *part, spec model.Spec, l limits) (r record, ok bool) {
	s, c, _, err := d.player.pack(q, spec, l)
	if ok = err == nil; ok {
		r = q.record(spec.ID, l.dense, bytes.Clone(s), bytes.Clone(c))
	}
	if l.dense || d.player.misses*denseShare < d.player.played {
		return r, ok
	}
	if l.dense = true; ok {
		l.cost = r.cost() - 1
	}
	if s, c, _, err = d.player.pack(q, spec, l); err != nil {
		return r, ok
	}
	r = q.record(spec.ID, true, bytes.Clone(s), bytes.Clone(c))
	return r, true
}

// surely returns the first model that is right about all of the beginning of a
// part.
func (d *detective) surely(q *part) (model.Spec, bool) {
	if len(q.tokens) < trialTokens && q.to-q.from > trialContent {
		return model.Spec{}, false
	}
	far := make(map[kin]bool)
	for _, spec := range candidates(q) {
		if far[kinOf(spec)] {
			continue
		}
		_, _, misses, err := d.player.pack(q, spec, limits{content: trialContent, misses: 1})
		if err == nil && misses == 0 {
			return spec, true
		}
		far[kinOf(spec)] = d.player.played < kinTokens
	}
	return model.Spec{}, false
}

// entry is a model and what it cost in a trial.
type entry struct {
	model.Spec
	dense bool
	cost  int
}

// rank returns the models that cost the least on the beginning of a part, in
// order: one alone if even that is dear.
func (d *detective) rank(q *part) []entry {
	all := candidates(q)
	if q.to-q.from < smallContent {
		all = append(all[:smallModels:smallModels], nothingSpec)
	}
	var ranking []entry
	worst := math.MaxInt
	far := make(map[kin]bool)
	for _, spec := range all {
		if far[kinOf(spec)] {
			continue
		}
		r, ok := d.pack(q, spec, limits{content: rankContent, cost: worst})
		if far[kinOf(spec)] = !ok; !ok {
			continue
		}
		ranking = append(ranking, entry{spec, r.dense, r.cost()})
		slices.SortStableFunc(ranking, func(a, b entry) int { return cmp.Compare(a.cost, b.cost) })
		worst = smallCost + 2*ranking[0].cost
		if len(ranking) >= finalists {
			ranking = ranking[:finalists]
			worst = min(worst, ranking[finalists-1].cost-1)
		}
	}
	if len(ranking) == 0 {
		return nil
	}
	if dear := int64(ranking[0].cost) * int64(q.to-q.from) / rankContent; dear > q.bits/8/dearShare {
		return ranking[:1]
	}
	return slices.DeleteFunc(ranking, func(e entry) bool { return e.cost > worst+1 })
}

// family of encoders.
type family int

const (
	noFamily family = iota
	goFamily
	klauspostFamily
	zlibFamily
	otherFamily
)

func familyOf(id uint16) family {
	switch {
	case id == 0:
		return noFamily
	case id < firstKlauspost:
		return goFamily
	case id < firstZlib:
		return klauspostFamily
	case id < firstOther:
		return zlibFamily
	}
	return otherFamily
}

// kin are models of versions of an encoder: where one is far off, all are.
type kin struct {
	family
	level    int
	restarts bool
}

func kinOf(s model.Spec) kin { return kin{familyOf(s.ID), levelOf(s.ID), s.Restarts} }

// candidates orders all models by how likely they are to have made a part.
func candidates(q *part) []model.Spec {
	all := specs()
	order, level := likely(q)
	flushes := slices.ContainsFunc(q.pieces, func(p piece) bool { return p.kind == kindEmpty && !p.final })
	slices.SortStableFunc(all, func(a, b model.Spec) int {
		return cmp.Or(
			cmp.Compare(rankOf(a, order, flushes), rankOf(b, order, flushes)),
			cmp.Compare(distance(levelOf(a.ID), level), distance(levelOf(b.ID), level)))
	})
	return all
}

func rankOf(s model.Spec, order []family, flushes bool) int {
	rank := 2 * slices.Index(order, familyOf(s.ID))
	if s.Restarts != flushes {
		rank++
	}
	return rank
}

// levelOf is the level that the number of a model tells.
func levelOf(id uint16) int {
	switch familyOf(id) {
	case klauspostFamily:
		id -= firstKlauspost
	case zlibFamily:
		id -= firstZlib
	}
	return int(id % 10)
}

func distance(a, b int) int { return max(a-b, b-a) }

// likely orders families, and guesses the level, by the header of the first
// member that begins in a part.
func likely(q *part) (order []family, level int) {
	order = []family{goFamily, klauspostFamily, zlibFamily, otherFamily, noFamily}
	first := func(f family) {
		i := slices.Index(order, f)
		copy(order[1:i+1], order[:i])
		order[0] = f
	}
	level = 6
	i := slices.IndexFunc(q.pieces, func(p piece) bool { return p.kind == kindHead })
	if i < 0 {
		return order, level
	}
	const pgzip = "\x00\x09\x6e\x88" // modification time that pgzip writes for none
	head := q.pieces[i].raw
	switch {
	case string(head[4:8]) == pgzip:
		first(klauspostFamily)
		level = 5
	case head[9] != 0xff: // operating system, which Go's encoders do not know
		first(zlibFamily)
	}
	switch head[8] { // extra flags
	case 2:
		level = 9
	case 4:
		level = 1
	}
	return order, level
}
