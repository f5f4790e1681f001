package kpflate

// reach3 is how far back level 3 looks.
const reach3 = window - 4

// fast3 finds matches as level 3 does: by a table of the last two positions by
// the next five bytes.
type fast3 struct {
	table [1 << 16]spots
	bias  bias
	size  int
}

func (f *fast3) reset(size int) {
	if f.bias.move(f.size, size) {
		clear(f.table[:])
	}
	f.size = size
}

func (f *fast3) put(v uint64, i int) {
	f.table[hash5by16(v)].put(at(v, uint32(i)+uint32(f.bias)))
}

func (f *fast3) parse(q *draft, data []byte, base, from int) {
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
				if t := m.t + m.l; t+8 < len(data) {
					f.put(load64(data, t), t)
				}
				q.literals(data[emit:])
				return
			}
			for i := s - m.l + 2; i < s-5; i += 6 {
				f.put(load64(data, i), i)
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
func (f *fast3) find(data []byte, s, emit, limit int, cv uint64) (m found, ok bool) {
	next := s
	for {
		h := hash5by16(cv)
		s = next
		next = s + 1 + (s-emit)>>7
		if next > limit {
			return m, false
		}
		e := uint32(s) + uint32(f.bias)
		two := f.table[h]
		f.table[h] = spots{at(cv, e), two.last}
		last, before := two.last.is(cv), two.before.is(cv)
		if d := e - uint32(two.last); (last || before) && d <= reach3 {
			second := e - uint32(two.before)
			if last {
				if before && second <= reach3 &&
					common(data, s+4, s-int(second)+4) > common(data, s+4, s-int(d)+4) {
					d = second
				}
				return found{s, s - int(d), 0, next}, true
			}
			if second < reach3 {
				return found{s, s - int(second), 0, next}, true
			}
		}
		cv = load64(data, next)
	}
}

// again looks for a match right behind one that ended at s. If there is none,
// cv is what is at the position after s.
func (f *fast3) again(data []byte, s, next int) (m found, cv uint64, ok bool) {
	v := load64(data, s-2)
	f.put(v, s-2)
	f.put(v>>8, s-1)
	v >>= 16
	two := f.table[hash5by16(v)]
	f.put(v, s)
	e := uint32(s) + uint32(f.bias)
	if d := e - uint32(two.last); d < reach3 {
		if two.last.is(v) {
			return found{s, s - int(d), 0, next}, 0, true
		}
		if d = e - uint32(two.before); d < reach3 && two.before.is(v) {
			return found{s, s - int(d), 0, next}, 0, true
		}
	}
	return m, v >> 8, false
}
