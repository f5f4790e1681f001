package kpzstd

const (
	bestLongBits  = 22
	bestShortBits = 18
	bestMargin    = 12
	bestSkip      = 2   // as betterSkip
	bestEnough    = 250 // of such matches no better are looked for
	bestQuick     = 16  // of such matches, ends are compared first
	bestWorst     = 131074 * 8
	prime4        = 2654435761

	noRepeat = -1
	// noLits marks the repeats of a match without literals before it, whose codes
	// mean other distances.
	noLits = 4
)

// bestFinder is level "best": two places each for eight bytes and for four, all
// places are put into the tables, and matches are weighed by the bits they take.
type bestFinder struct {
	long  [1 << bestLongBits]pair
	short [1 << bestShortBits]pair

	sameAll bool // a block of one byte is looked for first
}

func bestLong(v uint64) uint64  { return v * prime8 >> (64 - bestLongBits) }
func bestShort(v uint64) uint32 { return uint32(v) * prime4 >> (32 - bestShortBits) }

func (f *bestFinder) rebase(less uint32) {
	rebasePairs(f.long[:], less)
	rebasePairs(f.short[:], less)
}

// weighed is a match and what it costs more than literals would, in bits. kind is
// noRepeat or the code of a repeated distance; it is 0 if there is no match yet.
type weighed struct {
	s, t, n int
	kind    int
	cost    int32
}

// bestState is what bestFinder goes on from in a block.
type bestState struct {
	src     []byte
	base    uint32
	window  int
	emit    int
	perByte int32 // bits of a literal, times 1024
	best    weighed
}

// weigh is the cost of a match by the tables that are predefined.
func (st *bestState) weigh(m *weighed) {
	code := matchCode(uint32(m.n - minMatch))
	offset := uint32(m.kind & 3)
	if m.kind < 0 {
		offset = uint32(m.s-m.t) + minMatch
	}
	off := highBit(offset)
	m.cost = int32(off+matchBits[code]) + int32(predefined[kindOffset].steps[off].bits>>16+predefined[kindMatch].steps[code].bits>>16)
	m.cost -= int32(m.n) * st.perByte >> 10
	if m.cost > 0 {
		m.n, m.cost = 0, bestWorst
	}
}

// improve takes the place t for s, where want must be, if that is better.
func (st *bestState) improve(t, s int, want uint32, kind int) {
	src, m := st.src, &st.best
	if d := s - t; d >= st.window || d <= 0 || load32(src, t) != want {
		return
	}
	if m.n > bestQuick {
		left := len(src) - m.s - m.n
		if left <= 0 {
			return
		}
		if i := m.n - (s - m.s) - 8; left > 2 && i > 4 && load32(src, t+i) != load32(src, s+i) {
			return
		}
	}
	n := 4 + matchLen(src, s+4, t+4)
	if m.kind <= 0 {
		for low := max(s-st.window, 0); t > low && s > st.emit && src[t-1] == src[s-1]; {
			s--
			t--
			n++
		}
	}
	c := weighed{s: s, t: t, n: n, kind: kind}
	st.weigh(&c)
	if m.cost >= bestWorst || c.cost-m.cost+int32(c.s-m.s)*st.perByte>>10 < 0 {
		*m = c
	}
}

// improvePair does so for the two places of an entry.
func (st *bestState) improvePair(p pair, s int, want uint32) {
	st.improve(st.at(p.last()), s, want, noRepeat)
	st.improve(st.at(p.before()), s, want, noRepeat)
}

// at is the index of a position; less than 0 if it is no longer there.
func (st *bestState) at(pos uint32) int { return int(int64(pos) - int64(st.base)) }

// index puts the places from i on, until end, into the tables.
func (f *bestFinder) index(st *bestState, i, end int) {
	for ; i < end; i++ {
		v := load64(st.src, i)
		pos := uint32(i) + st.base
		long, short := &f.long[bestLong(v)], &f.short[bestShort(v)]
		*long, *short = long.with(pos), short.with(pos)
	}
}

func (f *bestFinder) parse(h *history, from int, b *parsed, _ bool) {
	if noMatches(h.buf, from, b, f.sameAll) {
		return
	}
	st := bestState{src: h.buf, base: h.base, window: h.window, emit: from, perByte: bitsPerByte(h.buf[from:])}
	limit := len(st.src) - bestMargin
	off := [3]int{1, 1, 1}
	for s := from; s < limit; {
		if !f.search(&st, s, limit, &off, len(b.seqs) > 2) {
			s += 1 + (s-st.emit)>>9
			continue
		}
		m := &st.best
		q := sequence{lits: uint32(m.s - st.emit), match: uint32(m.n - minMatch), offset: uint32(m.kind & 3)}
		b.lits = append(b.lits, st.src[st.emit:m.s]...)
		end := m.s + m.n
		st.emit = end
		if m.kind > 0 {
			f.index(&st, s+1, min(end, limit+4))
			off = repeated(off, m.kind)
		} else {
			f.index(&st, s+1, min(end, limit-4))
			off = [3]int{m.s - m.t, off[0], off[1]}
			q.offset = uint32(m.s-m.t) + minMatch
		}
		b.seqs = append(b.seqs, q)
		s = end
	}
	b.lits = append(b.lits, st.src[st.emit:]...)
}

// repeated is the last distances after a repeat.
func repeated(off [3]int, kind int) [3]int {
	switch kind {
	case 2, 1 | noLits:
		return [3]int{off[1], off[0], off[2]}
	case 3, 2 | noLits:
		return [3]int{off[2], off[0], off[1]}
	case 3 | noLits:
		return [3]int{off[0] - 1, off[0], off[1]}
	}
	return off
}

// search makes st.best the match to take at s or a little behind; false is that
// there is none.
func (f *bestFinder) search(st *bestState, s, limit int, off *[3]int, repeats bool) bool {
	cv := load64(st.src, s)
	pl, ps := &f.long[bestLong(cv)], &f.short[bestShort(cv)]
	m := &st.best
	*m = weighed{s: s, cost: bestWorst}
	st.improvePair(*pl, s, uint32(cv))
	st.improvePair(*ps, s, uint32(cv))
	if repeats && m.n < bestEnough {
		st.searchRepeats(s, cv, off)
	}
	pos := uint32(s) + st.base
	*pl, *ps = pl.with(pos), ps.with(pos)
	if m.n >= bestEnough {
		return true
	}
	if m.n < 4 {
		return false
	}
	f.searchAhead(st, s, limit, cv)
	return true
}

func (st *bestState) searchRepeats(s int, cv uint64, off *[3]int) {
	if s == st.emit {
		st.improve(s-off[1], s, uint32(cv), 1|noLits)
		st.improve(s-off[2], s, uint32(cv), 2|noLits)
		if off[0] > 1 {
			st.improve(s-(off[0]-1), s, uint32(cv), 3|noLits)
		}
	}
	if st.best.kind > 0 {
		return
	}
	for i, d := range off {
		st.improve(s+1-d, s+1, uint32(cv>>8), i+1)
	}
	if st.best.kind < 0 {
		for i, d := range off {
			st.improve(s+3-d, s+3, uint32(cv>>24), i+1)
		}
	}
}

// searchAhead looks one and two bytes behind s, and where the match ends.
func (f *bestFinder) searchAhead(st *bestState, s, limit int, cv uint64) {
	short := f.short[bestShort(cv>>8)]
	one, two := load64(st.src, s+1), load64(st.src, s+2)
	longOne, longTwo := f.long[bestLong(one)], f.long[bestLong(two)]
	st.improve(st.at(short.last()), s+1, uint32(one), noRepeat)
	st.improvePair(longOne, s+1, uint32(one))
	st.improvePair(longTwo, s+2, uint32(two))
	m := &st.best
	if m.s <= s-bestSkip || m.s+m.n >= limit {
		return
	}
	ends := f.long[bestLong(load64(st.src, m.s+m.n))]
	for _, pos := range [...]uint32{ends.last(), ends.before()} {
		t := st.at(pos) - m.n + bestSkip
		if t < 0 {
			return
		}
		st.improve(t, m.s+bestSkip, load32(st.src, m.s+bestSkip), noRepeat)
	}
}
