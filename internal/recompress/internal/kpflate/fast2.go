package kpflate

// fast2 finds matches as level 2 does: as level 1, by a greater table, in which
// it puts more of what matches cover.
type fast2 struct {
	table [1 << 17]spot
	bias  bias
	size  int
}

func (f *fast2) reset(size int) {
	if f.bias.move(f.size, size) {
		clear(f.table[:])
	}
	f.size = size
}

func (f *fast2) put(v uint64, i int) {
	f.table[hash5by17(v)] = at(v, uint32(i)+uint32(f.bias))
}

func (f *fast2) parse(q *draft, data []byte, base, from int) {
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
					f.put(load64(data, s), s)
				}
				q.literals(data[emit:])
				return
			}
			for i := s - m.l + 2; i < s-5; i += 7 {
				v := load64(data, i)
				f.put(v, i)
				f.put(v>>16, i+2)
				f.put(v>>32, i+4)
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
func (f *fast2) find(data []byte, s, emit, limit int, cv uint64) (m found, ok bool) {
	b := uint32(f.bias)
	next := s
	for {
		h := hash5by17(cv)
		s = next
		next = s + 2 + (s-emit)>>5
		if next > limit {
			return m, false
		}
		candidate := f.table[h]
		nv := load64(data, next)
		f.table[h] = at(cv, uint32(s)+b)
		h = hash5by17(nv)
		if candidate.is(cv) {
			if d, ok := near(uint32(s)+b, candidate); ok {
				f.table[h] = at(nv, uint32(next)+b)
				return found{s, s - d, 0, next}, true
			}
		}
		cv, s = nv, next
		next++
		candidate = f.table[h]
		f.table[h] = at(cv, uint32(s)+b)
		if candidate.is(cv) {
			if d, ok := near(uint32(s)+b, candidate); ok {
				return found{s, s - d, 0, next}, true
			}
		}
		cv >>= 8
	}
}

// again looks for a match right behind one that ended at s. If there is none,
// cv is what is at the position after s.
func (f *fast2) again(data []byte, s, next int) (m found, cv uint64, ok bool) {
	v := load64(data, s-2)
	f.put(v, s-2)
	f.put(v>>8, s-1)
	v >>= 16
	candidate := f.table[hash5by17(v)]
	f.put(v, s)
	if candidate.is(v) {
		if d := uint32(s) + uint32(f.bias) - uint32(candidate); d-1 < window {
			return found{s, s - int(d), 0, next}, 0, true
		}
	}
	return m, v >> 8, false
}
