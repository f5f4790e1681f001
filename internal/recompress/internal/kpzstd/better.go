package kpzstd

const (
	betterLongBits  = 19
	betterShortBits = 13
	betterSkip      = 3 // bytes that may differ where a match that ends better begins
)

// pair is two positions of the same hash: the last in the lower half, the one
// before in the upper.
type pair uint64

func (p pair) last() uint32   { return uint32(p) }
func (p pair) before() uint32 { return uint32(p >> 32) }

// with puts a position before the two.
func (p pair) with(pos uint32) pair { return p<<32 | pair(pos) }

// betterFinder is level "better": two places in the table for eight bytes, and a
// look at what ends better.
type betterFinder struct {
	long  [1 << betterLongBits]pair
	short [1 << betterShortBits]entry

	skip    int  // betterSkip, or 0 in old classes
	indexed bool // what the search has put into the tables stays out of the second pass
	sameAll bool // a block of one byte is looked for first
}

func newBetterFinder(c Class) *betterFinder {
	f := &betterFinder{indexed: c >= V1_173, sameAll: c >= V1_178}
	if c >= V1_15 {
		f.skip = betterSkip
	}
	return f
}

func betterLong(v uint64) uint64  { return v * prime8 >> (64 - betterLongBits) }
func betterShort(v uint64) uint64 { return v << 24 * prime5 >> (64 - betterShortBits) }

func (f *betterFinder) rebase(less uint32) {
	rebasePairs(f.long[:], less)
	rebaseEntries(f.short[:], less)
}

func rebasePairs(t []pair, less uint32) {
	for i, p := range t {
		t[i] = pair(rebased(p.before(), less))<<32 | pair(rebased(p.last(), less))
	}
}

// noMatches takes a block apart that is too short for matches, or of one byte if
// sameAll.
func noMatches(src []byte, from int, b *parsed, sameAll bool) bool {
	n := len(src) - from
	if sameAll && n > minMatch && matchLen(src, from+1, from) == n-1 {
		b.lits = append(b.lits, src[from])
		b.seqs = append(b.seqs, sequence{lits: 1, match: uint32(n - 1 - minMatch), offset: 1 + minMatch})
		return true
	}
	if n < leastBlock {
		b.lits = append(b.lits, src[from:]...)
		return true
	}
	return false
}

// index puts every second place from i on, until end, into the tables.
func (f *betterFinder) index(src []byte, base uint32, i, end int) {
	for ; i < end; i += 2 {
		v := load64(src, i)
		pos := uint32(i) + base
		long := &f.long[betterLong(v)]
		*long = long.with(pos)
		f.short[betterShort(v>>8)] = makeEntry(v>>8, pos+1)
	}
}

// match is one that search found: s and t, and its length without what may be
// before them.
type match struct {
	s, t, n int
	from    int // where the second pass begins
}

// state is what search goes on from.
type betterState struct {
	src          []byte
	base, window uint32
	limit        int
	s, emit      int
	off1         int
	cv           uint64
}

func (f *betterFinder) parse(h *history, from int, b *parsed, _ bool) {
	src := h.buf
	if noMatches(src, from, b, f.sameAll) {
		return
	}
	st := betterState{src: src, base: h.base, window: uint32(h.window), limit: len(src) - doubleMargin, s: from, emit: from, off1: 1, cv: load64(src, from)}
	off2 := 1
	for {
		repeats := len(b.seqs) > 2
		m, ok := f.search(&st, b, repeats)
		if !ok {
			break
		}
		f.endsBetter(&st, &m)
		st.off1, off2 = m.s-m.t, st.off1
		s, t, end := m.s, m.t, m.s+m.n
		for low := max(s-h.window, 0); t > low && s > st.emit && src[t-1] == src[s-1]; {
			s--
			t--
		}
		b.lits = append(b.lits, src[st.emit:s]...)
		b.seqs = append(b.seqs, sequence{lits: uint32(s - st.emit), match: uint32(end - s - minMatch), offset: uint32(s-t) + minMatch})
		st.s, st.emit = end, end
		if end >= st.limit {
			break
		}
		if !f.indexed {
			m.from = s + 1
		}
		f.index(src, st.base, m.from, end-1)
		st.cv = load64(src, end)
		if repeats && !f.again(&st, b, &off2) {
			break
		}
	}
	b.lits = append(b.lits, src[st.emit:]...)
}

// again takes matches at the distance before the last, as long as there are any;
// false is that the block ends.
func (f *betterFinder) again(st *betterState, b *parsed, off2 *int) bool {
	for r := st.s - *off2; load32(st.src, r) == uint32(st.cv); r = st.s - *off2 {
		n := 4 + matchLen(st.src, st.s+4, r+4)
		pos := uint32(st.s) + st.base
		long := &f.long[betterLong(st.cv)]
		*long = long.with(pos)
		f.short[betterShort(st.cv)] = makeEntry(st.cv, pos)
		b.seqs = append(b.seqs, sequence{match: uint32(n - minMatch), offset: 1})
		st.s += n
		st.emit = st.s
		st.off1, *off2 = *off2, st.off1
		if st.s >= st.limit {
			return false
		}
		st.cv = load64(st.src, st.s)
	}
	return true
}

// search goes on to the next match that is not a repeat; false is that the block
// ends.
func (f *betterFinder) search(st *betterState, b *parsed, repeats bool) (match, bool) {
	src, base, window := st.src, st.base, st.window
	s, cv := st.s, st.cv
	for {
		hl, hs := betterLong(cv), betterShort(cv)
		long, short := f.long[hl], f.short[hs]
		pos := uint32(s) + base
		f.long[hl] = long.with(pos)
		f.short[hs] = makeEntry(cv, pos)
		if r := s - st.off1 + 1; repeats && load32(src, r) == uint32(cv>>8) {
			st.s = s
			if !f.repeat(st, b, r, int(window)) {
				return match{}, false
			}
			s, cv = st.s, st.cv
			continue
		}
		m := match{s: s, from: s + 1}
		if d := pos - long.last(); d < window && load64(src, s-int(d)) == cv {
			m.t = s - int(d)
			m.n = matchLen(src, s+8, m.t+8) + 8
		}
		if d := pos - long.before(); d < window && load64(src, s-int(d)) == cv {
			m.longer(src, s-int(d), 0)
		}
		if m.n > 0 {
			return m, true
		}
		if d := pos - short.pos(); d < window && short.bytes() == uint32(cv) {
			m.t = s - int(d)
			m.n = matchLen(src, s+4, m.t+4) + 4
			next := load64(src, s+1)
			p := &f.long[betterLong(next)]
			long = *p
			*p = long.with(pos + 1)
			// Distances are checked as from s.
			for _, d := range [...]uint32{pos - long.last(), pos - long.before()} {
				if d < window && load64(src, s-int(d)) == next && m.longer(src, s-int(d), 1) {
					break
				}
			}
			return m, true
		}
		s += 1 + (s-st.emit)>>8
		if s >= st.limit {
			st.s = s
			return match{}, false
		}
		cv = load64(src, s)
	}
}

// longer makes t, where eight bytes are the same, the match if that is longer;
// with on 1, as a match that begins one byte behind m.s.
func (m *match) longer(src []byte, t, on int) bool {
	n := matchLen(src, m.s+8+on, t+8) + 8
	if n <= m.n {
		return false
	}
	m.s += on
	m.t, m.n = t, n
	return true
}

// repeat takes a match at the last distance, r for one byte behind st.s.
func (f *betterFinder) repeat(st *betterState, b *parsed, r, window int) bool {
	src := st.src
	start := st.s + 1
	end := start + 4 + matchLen(src, start+4, r+4)
	for low := max(st.s-window, 0); r > low && start > st.emit+1 && src[r-1] == src[start-1]; {
		r--
		start--
	}
	b.lits = append(b.lits, src[st.emit:start]...)
	b.seqs = append(b.seqs, sequence{lits: uint32(start - st.emit), match: uint32(end - start - minMatch), offset: 1})
	from := st.s + 1
	st.s, st.emit = end, end
	if end >= st.limit {
		return false
	}
	f.index(src, st.base, from, end-1)
	st.cv = load64(src, end)
	return true
}

// endsBetter looks for a match that goes on where m ends.
func (f *betterFinder) endsBetter(st *betterState, m *match) {
	end := m.s + m.n
	if end >= st.limit {
		return
	}
	long := f.long[betterLong(load64(st.src, end))]
	s := m.s + f.skip
	want := load32(st.src, s)
	n := m.n
	for _, p := range [...]uint32{long.last(), long.before()} {
		t := int(int64(p)-int64(st.base)) - n + f.skip
		if t < 0 || t >= s || uint32(s-t) >= st.window || load32(st.src, t) != want {
			continue
		}
		if k := matchLen(st.src, s+4, t+4) + 4; k > m.n {
			m.s, m.t, m.n = s, t, k
			n = k
		}
	}
}
