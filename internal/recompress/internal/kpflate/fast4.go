package kpflate

// fast4 finds matches as level 4 does: by tables of positions by the next four
// and by the next seven bytes.
type fast4 struct {
	short, long [1 << 15]spot
	bias        bias
	size        int
	// astray: the length of the match that is compared with another is taken
	// where its distance, not its position, is in the encoder's buffer. Since
	// 1.18.0.
	astray bool
	buffer *buffer
}

func (f *fast4) reset(size int) {
	if f.bias.move(f.size, size) {
		clear(f.short[:])
		clear(f.long[:])
	}
	f.size = size
}

func (f *fast4) put(v uint64, i int) {
	s := at(v, uint32(i)+uint32(f.bias))
	f.short[short4(v)] = s
	f.long[long7(v)] = s
}

func (f *fast4) parse(q *draft, data []byte, base, from int) {
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
		m.l = 4 + common(data, m.s+4, m.t+4)
		m.backwards(data, base, emit)
		q.literals(data[emit:m.s])
		q.match(m.l, m.s-m.t)
		s = m.s + m.l
		emit = s
		if m.next >= s {
			s = m.next + 1
		}
		if s >= limit {
			if s+8 < len(data) {
				f.put(load64(data, s), s)
			}
			break
		}
		for i := m.next; i < s-1; i += 3 {
			v := load64(data, i)
			f.long[long7(v)] = at(v, uint32(i)+uint32(f.bias))
			f.put(v>>8, i+1)
		}
		v := load64(data, s-1)
		f.put(v, s-1)
		cv = v >> 8
	}
	if emit > from {
		q.literals(data[emit:])
	}
}

// find looks for a match from s on. cv is what is there.
func (f *fast4) find(data []byte, s, emit, limit int, cv uint64) (m found, ok bool) {
	b := uint32(f.bias)
	next := s
	for {
		s = next
		next = s + 1 + (s-emit)>>6
		if next > limit {
			return m, false
		}
		nv := load64(data, next)
		hs, hl := short4(cv), long7(cv)
		short, long := f.short[hs], f.long[hl]
		e := uint32(s) + b
		f.short[hs], f.long[hl] = at(cv, e), at(cv, e)
		if long.is(cv) {
			if d, ok := near(e, long); ok {
				return found{s, s - d, 0, next}, true
			}
		}
		if short.is(cv) {
			if d, ok := near(e, short); ok {
				m = found{s, s - d, 0, next}
				f.later(data, &m, nv)
				return m, true
			}
		}
		cv = nv
	}
}

// later takes a match at the next position if there is a longer one. v is what
// is there.
func (f *fast4) later(data []byte, m *found, v uint64) {
	long := f.long[long7(v)]
	d, ok := near(uint32(m.next)+uint32(f.bias), long)
	if !ok || !long.is(v) {
		return
	}
	t := m.next - d
	with := t + 4
	if f.astray {
		if with = f.buffer.start + d + 4; with < 0 || with > m.next {
			return // before the data
		}
	}
	if common(data, m.next+4, with) > common(data, m.s+4, m.t+4) {
		m.s, m.t = m.next, t
	}
}
