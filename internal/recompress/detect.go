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
	rankContent  = 16 << 10 // to find the best of those that are wrong
	trialBlocks  = 64       // of either
	dearShare    = 8        // one byte in so many of the stream is dear
	trialTokens  = 2000     // a model that is right about so many is not doubted
	smallContent = 4 << 10  // of parts that are not worth trying more than
	smallModels  = 8        // on
	denseShare   = 64       // one correction in fewer tokens are many
	finalists    = 3        // models that are tried on a whole part
	smallCost    = 64       // bytes for which no better model of a part is looked for
	smallShare   = 1000     // or one in so many of the stream
	settledShare = 64       // that a model may cost which soon makes no more mistakes
)

// Bounds of the work of finding models, in the units of player.work.
const (
	searchWork = 300e6 // of searches, for a stream
	trialShare = 4     // one unit in so many of what is left may be spent on a trial
	refill     = 8     // one unit in so many of other work may be spent on more searches
	partWork   = 500e6 // of playing a part, and
	byteWork   = 1000  // for each byte of its content
)

// verdict is which model a part was found to be made by.
type verdict struct {
	tried   chan struct{} // closed when that of a part before was
	done    chan struct{} // closed when the rest is valid
	spec    model.Spec
	dense   bool
	settled bool // the model made no mistake in the second half
	cost    int  // bytes of code
	bits    int64
	work    int64   // of finding
	usual   float64 // bytes of code for a bit, where the model was last searched for
}

// enough is what a part of so many bits may cost without being looked into:
// about as much as where the model of the one that v is the verdict on was found.
func (v *verdict) enough(bits int64) int {
	n := smallCost + bits/8/smallShare
	if v != nil {
		n += int64(2 * v.usual * float64(bits))
	}
	return int(n)
}

// willDo tells whether no better model than that of a part before is looked for.
func (v *verdict) willDo(before *verdict) bool {
	return v.cost <= before.enough(v.bits) || v.settled && int64(v.cost) <= v.bits/8/settledShare
}

// detective finds models. It is used from one goroutine.
type detective struct {
	player player
	work   int64 // all that was done
}

// again takes the model of a part before, and tells whether that will do.
func (d *detective) again(q *part, before *verdict, most int) bool {
	d.try(q, before.spec, before.dense, most)
	q.result.usual = before.usual
	return q.result.willDo(before)
}

// search finds the model of a part, of whose recipe no more than most bytes are
// of use, and returns the work of the search besides playing the model that is
// taken. Its error is ErrHopeless, if there is none.
func (d *detective) search(q *part, most int, left int64) (spent int64, err error) {
	began := d.work
	if q.from == q.to {
		d.try(q, known()[0], false, most)
	} else if left > 0 {
		d.choose(q, most, left)
	}
	if q.result.cost == math.MaxInt {
		d.try(q, nothingSpec, false, most)
	}
	if q.result.cost == math.MaxInt {
		return 0, ErrHopeless
	}
	q.result.usual = float64(q.result.cost) / float64(max(q.bits, 1))
	return d.work - began - q.result.work, nil
}

// choose tries models on the beginning of a part, and then the best of them on
// all of it.
func (d *detective) choose(q *part, most int, left int64) {
	end := d.work + left
	enough := (*verdict)(nil).enough(q.bits)
	if spec, ok := d.surely(q, end); ok {
		if d.try(q, spec, false, most); q.result.cost <= enough {
			return
		}
	}
	for _, e := range d.rank(q, end) {
		if d.try(q, e.Spec, e.dense, most); q.result.cost <= enough {
			break
		}
	}
}

// try takes a model for a part if it costs less than the one that it has, and no
// more than most.
func (d *detective) try(q *part, spec model.Spec, dense bool, most int) {
	if q.result.cost < math.MaxInt && q.result.spec.ID == spec.ID {
		return
	}
	began := d.work
	r, ok := d.pack(q, spec, limits{
		cost: min(q.result.cost-1, most), dense: dense, work: partWork + byteWork*int64(q.to-q.from),
	})
	if !ok {
		return
	}
	q.found = r
	v := q.result
	v.spec, v.dense, v.cost, v.bits = spec, r.dense, r.cost(), q.bits
	v.settled, v.work = d.player.missed-q.from <= (q.to-q.from)/2, d.work-began
}

// pack packs a part in the better way.
func (d *detective) pack(q *part, spec model.Spec, l limits) (r record, ok bool) {
	s, c, _, err := d.player.pack(q, spec, l)
	d.work += d.player.work()
	if ok = err == nil; ok {
		r = q.record(spec.ID, l.dense, bytes.Clone(s), bytes.Clone(c))
	}
	if l.dense || err == errWork || d.player.misses*denseShare < d.player.played {
		return r, ok
	}
	if l.dense = true; ok {
		l.cost = r.cost() - 1
	}
	s, c, _, err = d.player.pack(q, spec, l)
	d.work += d.player.work()
	if err != nil {
		return r, ok
	}
	r = q.record(spec.ID, true, bytes.Clone(s), bytes.Clone(c))
	return r, true
}

// surely returns the first model that is right about all of the beginning of a
// part.
func (d *detective) surely(q *part, end int64) (model.Spec, bool) {
	if len(q.tokens) < trialTokens && q.to-q.from > trialContent {
		return model.Spec{}, false
	}
	for _, spec := range candidates(q) {
		if end-d.work < trialShare {
			break
		}
		_, _, misses, err := d.player.pack(q, spec, limits{content: trialContent, blocks: trialBlocks, misses: 1, work: (end - d.work) / trialShare})
		d.work += d.player.work()
		if err == nil && misses == 0 {
			return spec, true
		}
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
func (d *detective) rank(q *part, end int64) []entry {
	all := candidates(q)
	if q.to-q.from < smallContent {
		all = append(all[:smallModels:smallModels], nothingSpec)
	}
	var ranking []entry
	worst := math.MaxInt
	for _, spec := range all {
		if end-d.work < trialShare {
			break
		}
		r, ok := d.pack(q, spec, limits{content: rankContent, blocks: trialBlocks, cost: worst, work: (end - d.work) / trialShare})
		if !ok {
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

// candidates orders all models by how likely they are to have made a part.
func candidates(q *part) []model.Spec {
	all := specs()
	order, level := likely(q)
	flushes := slices.ContainsFunc(q.pieces, func(p piece) bool { return p.kind == kindEmpty && !p.final })
	slices.SortStableFunc(all, func(a, b model.Spec) int {
		return cmp.Or(
			cmp.Compare(slow(a, level), slow(b, level)),
			cmp.Compare(rankOf(a, order, flushes), rankOf(b, order, flushes)),
			cmp.Compare(distance(levelOf(a.ID), level), distance(levelOf(b.ID), level)))
	})
	return all
}

// slow is 1 for levels that take long, where the header says that it is another.
func slow(s model.Spec, level int) int {
	if levelOf(s.ID) > 7 && level < 9 {
		return 1
	}
	return 0
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
	case goFamily:
		if id > 9 {
			return 0
		}
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
