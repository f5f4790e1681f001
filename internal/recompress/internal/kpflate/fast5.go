package kpflate

import "github.com/imgpack/imgpack/internal/deflate"

// fast5 finds matches as level 5 does: by tables of positions by the next four
// bytes, the last one, and by the next seven, the last two.
type fast5 struct {
	// skip is how many bytes need not be the same where a match is looked for by
	// its end: 2 since 1.15.10, none before.
	skip  int
	short [1 << 15]spot
	long  [1 << 15]spots
	bias  bias
	size  int // of the run
}

func (f *fast5) reset(size int) {
	if f.bias.move(f.size, size) {
		clear(f.short[:])
		clear(f.long[:])
	}
	f.size = size
}

func (f *fast5) parse(q *draft, data []byte, base, from int) {
	if len(data)-from < 2+margin {
		return
	}
	limit := len(data) - margin
	s, emit := from, from
	cv := load64(data, s)
	for {
		m, ok := f.find(data, s, emit, limit, cv)
		if !ok {
			break
		}
		f.improve(data, &m, base, limit)
		m.backwards(data, base, emit)
		q.literals(data[emit:m.s])
		q.match(m.l, m.s-m.t)
		s = m.s + m.l
		emit = s
		if m.next >= s {
			s = m.next + 1
		}
		if s >= limit {
			break
		}
		cv = f.index(data, s-m.l+1, s)
	}
	if emit > from {
		q.literals(data[emit:])
	}
}

// find looks for a match from s on. cv is what is there.
func (f *fast5) find(data []byte, s, emit, limit int, cv uint64) (m found, ok bool) {
	b := uint32(f.bias)
	next := s
	hs, hl := short4(cv), long7(cv)
	for {
		s = next
		next = s + 1 + (s-emit)>>6
		if next > limit {
			return m, false
		}
		nv := load64(data, next)
		e := uint32(s) + b
		short, long := f.short[hs], f.long[hl]
		here := at(cv, e)
		f.short[hs] = here
		f.long[hl] = spots{here, long.last}
		hs, hl = short4(nv), long7(nv)

		if last, before := long.last.is(cv), long.before.is(cv); last || before {
			if d, ok := near(e, long.last); ok {
				second, ok := near(e, long.before)
				ok = ok && before
				if last {
					f.put(hs, hl, at(nv, uint32(next)+b))
					m = found{s, s - d, 0, next}
					if ok {
						f.farther(data, &m, s-second)
					}
					return m, true
				}
				if ok {
					f.put(hs, hl, at(nv, uint32(next)+b))
					return found{s, s - second, 0, next}, true
				}
			}
		}
		if short.is(cv) {
			if d, ok := near(e, short); ok {
				m = found{s, s - d, 0, next}
				long := f.long[hl]
				f.put(hs, hl, at(nv, uint32(next)+b))
				f.later(data, &m, nv, long)
				return m, true
			}
		}
		cv = nv
	}
}

func (f *fast5) put(hs, hl uint32, s spot) {
	f.short[hs] = s
	f.long[hl].put(s)
}

// farther takes the match at t if it is longer.
func (f *fast5) farther(data []byte, m *found, t int) {
	m.l = upTo258(data, m.s, m.t)
	if n := upTo258(data, m.s, t); n > m.l {
		m.t, m.l = t, n
	}
}

// later takes a match at the next position if there is a longer one. v is what
// is there, long who began so.
func (f *fast5) later(data []byte, m *found, v uint64, long spots) {
	m.l = upTo258(data, m.s, m.t)
	e := uint32(m.next) + uint32(f.bias)
	d, ok := near(e, long.last)
	if !ok {
		return
	}
	if long.last.is(v) {
		if n := upTo258(data, m.next, m.next-d); n > m.l {
			m.s, m.t, m.l = m.next, m.next-d, n
			return
		}
	}
	if d, ok = near(e, long.before); ok && long.before.is(v) {
		if n := upTo258(data, m.next, m.next-d); n > m.l {
			m.s, m.t, m.l = m.next, m.next-d, n
		}
	}
}

// improve makes a match as long as it gets, and looks for a longer one that ends
// behind it.
func (f *fast5) improve(data []byte, m *found, base, limit int) {
	if m.l == 0 {
		m.l = 4 + common(data, m.s+4, m.t+4)
	} else if m.l == deflate.MaxLength {
		m.l += common(data, m.s+m.l, m.t+m.l)
	}
	end := m.s + m.l
	if m.l >= 30 || end >= limit {
		return
	}
	d, ok := near(uint32(end)+uint32(f.bias), f.long[long7(load64(data, end))].last)
	t := end - d - m.l + f.skip
	if !ok || t < base {
		return
	}
	if n := common(data, m.s+f.skip, t); n > m.l {
		m.s, m.t, m.l = m.s+f.skip, t, n
	}
}

// index puts what a match covers, from i to s, into the tables: every third
// position, and the one before s. It returns what is at s.
func (f *fast5) index(data []byte, i, s int) uint64 {
	b := uint32(f.bias)
	if i < s-1 {
		v := load64(data, i)
		e := uint32(i) + b
		f.put(short4(v), long7(v), at(v, e))
		f.long[long7(v>>8)].put(at(v>>8, e+1))
		f.short[short4(v>>16)] = at(v>>16, e+2)
		for i += 4; i < s-1; i += 3 {
			v := load64(data, i)
			e := uint32(i) + b
			f.long[long7(v)].put(at(v, e))
			f.short[short4(v>>8)] = at(v>>8, e+1)
		}
	}
	v := load64(data, s-1)
	f.put(short4(v), long7(v), at(v, uint32(s-1)+b))
	return v >> 8
}
