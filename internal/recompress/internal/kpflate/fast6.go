package kpflate

import "github.com/imgpack/imgpack/internal/deflate"

// fast6 finds matches as level 6 does: as level 5, and at the distance of the
// last match.
type fast6 struct{ fast5 }

func (f *fast6) parse(q *draft, data []byte, base, from int) {
	if len(data)-from < 2+margin {
		return
	}
	limit := len(data) - margin
	s, emit, repeat := from, from, 1
	for {
		m, ok := f.find(data, s, emit, limit, repeat)
		if !ok {
			break
		}
		f.improve(data, &m, base, limit)
		m.backwards(data, base, emit)
		q.literals(data[emit:m.s])
		repeat = m.s - m.t
		q.match(m.l, repeat)
		s = m.s + m.l
		emit = s
		if m.next >= s {
			s = m.next + 1
		}
		if s >= limit {
			for i := m.next + 1; i < len(data)-8; i += 2 {
				v := load64(data, i)
				f.put(short4(v), long7(v), at(v, uint32(i)+uint32(f.bias)))
			}
			break
		}
		for i := m.next + 1; i < s-1; i += 2 {
			v := load64(data, i)
			e := uint32(i) + uint32(f.bias)
			f.put(short4(v), long7(v), at(v, e))
			f.long[long7(v>>8)].put(at(v>>8, e+1))
		}
	}
	if emit > from {
		q.literals(data[emit:])
	}
}

// find looks for a match from s on.
func (f *fast6) find(data []byte, s, emit, limit, repeat int) (m found, ok bool) {
	b := uint32(f.bias)
	next := s
	cv := load64(data, s)
	hs, hl := short4(cv), long7(cv)
	for {
		s = next
		next = s + 1 + (s-emit)>>7
		if next > limit {
			return m, false
		}
		nv := load64(data, next)
		e := uint32(s) + b
		short, long := f.short[hs], f.long[hl]
		f.short[hs] = at(cv, e)
		f.long[hl] = spots{at(cv, e), long.last}
		hs, hl = short4(nv), long7(nv)
		if long.last.is(cv) || long.before.is(cv) {
			if f.longer(data, &m, s, next, cv, long) {
				f.put(hs, hl, at(nv, uint32(next)+b))
				return m, true
			}
		}
		if short.is(cv) {
			if d, ok := near(e, short); ok {
				m = found{s, s - d, 0, next}
				long := f.long[hl]
				f.put(hs, hl, at(nv, uint32(next)+b))
				m.l = upTo258(data, m.s, m.t)
				if !f.repeated(data, &m, cv, repeat) {
					f.later(data, &m, nv, long)
				}
				return m, true
			}
		}
		cv = nv
	}
}

// longer looks for a match at the positions of the next seven bytes.
func (f *fast6) longer(data []byte, m *found, s, next int, cv uint64, long spots) bool {
	e := uint32(s) + uint32(f.bias)
	d, ok := near(e, long.last)
	if !ok {
		return false
	}
	second, ok := near(e, long.before)
	ok = ok && long.before.is(cv)
	if long.last.is(cv) {
		*m = found{s, s - d, 0, next}
		if ok {
			f.farther(data, m, s-second)
		}
		return true
	}
	*m = found{s, s - second, 0, next}
	return ok
}

// repeated takes a match one byte later at the distance of the last one if it is
// longer.
func (f *fast6) repeated(data []byte, m *found, cv uint64, repeat int) bool {
	t := m.s - repeat + 1
	if load32(data, t) != uint32(cv>>8) {
		return false
	}
	if n := upTo258(data, m.s+1, t); n > m.l {
		m.s, m.t, m.l = m.s+1, t, n
		return true
	}
	return false
}

// later takes a match at the next position if there is a longer one. v is what
// is there, long who began so.
func (f *fast6) later(data []byte, m *found, v uint64, long spots) {
	e := uint32(m.next) + uint32(f.bias)
	if _, ok := near(e, long.last); !ok {
		return
	}
	for _, c := range [2]spot{long.last, long.before} {
		if d, ok := near(e, c); ok && c.is(v) {
			if n := upTo258(data, m.next, m.next-d); n > m.l {
				m.s, m.t, m.l = m.next, m.next-d, n
			}
		}
	}
}

// improve makes a match as long as it gets, and looks for a longer one that ends
// behind it.
func (f *fast6) improve(data []byte, m *found, base, limit int) {
	if m.l == 0 {
		m.l = 4 + common(data, m.s+4, m.t+4)
	} else if m.l == deflate.MaxLength {
		m.l += common(data, m.s+m.l, m.t+m.l)
	}
	end, s := m.s+m.l, m.s+f.skip
	if end >= limit {
		return
	}
	e := uint32(end) + uint32(f.bias)
	long := f.long[long7(load64(data, end))]
	if int32(e-uint32(long.last)) >= window {
		return
	}
	for _, c := range [2]spot{long.last, long.before} {
		// The position is that of the end less the length as it is by now.
		t := end - int(int32(e-uint32(c))) - m.l + f.skip
		if s-t <= 0 || s-t >= window || t < base {
			continue
		}
		if n := common(data, s, t); n > m.l {
			m.s, m.t, m.l = s, t, n
		}
	}
}
