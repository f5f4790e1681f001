package kpflate

// fast1 finds matches as level 1 does: by a table of positions by the next five
// bytes, looking at two of some positions.
type fast1 struct {
	table [1 << 15]spot
	bias  bias
	size  int
}

func (f *fast1) reset(size int) {
	if f.bias.move(f.size, size) {
		clear(f.table[:])
	}
	f.size = size
}

func (f *fast1) parse(q *draft, data []byte, base, from int) {
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
		for ok {
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
				if s+m.l+8 < len(data) {
					v := load64(data, s)
					f.table[hash5(v)] = at(v, uint32(s)+uint32(f.bias))
				}
				q.literals(data[emit:])
				return
			}
			m, cv, ok = f.again(data, s, m.next)
		}
		s++
	}
	if emit > from {
		q.literals(data[emit:])
	}
}

// find looks for a match from s on. cv is what is there.
func (f *fast1) find(data []byte, s, emit, limit int, cv uint64) (m found, ok bool) {
	b := uint32(f.bias)
	h := hash5(cv)
	for {
		candidate := f.table[h]
		next := s + 2 + (s-emit)>>5
		if next > limit {
			return m, false
		}
		nv := load64(data, next)
		f.table[h] = at(cv, uint32(s)+b)
		h = hash5(nv)
		if candidate.is(cv) {
			if d, ok := near(uint32(s)+b, candidate); ok {
				f.table[h] = at(nv, uint32(next)+b)
				return found{s, s - d, 0, next}, true
			}
		}
		cv, s = nv, next
		next++
		candidate = f.table[h]
		nv >>= 8
		f.table[h] = at(cv, uint32(s)+b)
		if candidate.is(cv) {
			if d, ok := near(uint32(s)+b, candidate); ok {
				f.table[h] = at(nv, uint32(next)+b)
				return found{s, s - d, 0, next}, true
			}
		}
		cv, s = nv, next
		h = hash5(cv)
	}
}

// again looks for a match right behind one that ended at s. If there is none,
// cv is what is at the position after s.
func (f *fast1) again(data []byte, s, next int) (m found, cv uint64, ok bool) {
	b := uint32(f.bias)
	v := load64(data, s-2)
	f.table[hash5(v)] = at(v, uint32(s-2)+b)
	v >>= 16
	h := hash5(v)
	candidate := f.table[h]
	f.table[h] = at(v, uint32(s)+b)
	if candidate.is(v) {
		if d := uint32(s) + b - uint32(candidate); d-1 < window {
			return found{s, s - int(d), 0, next}, 0, true
		}
	}
	return m, v >> 8, false
}
