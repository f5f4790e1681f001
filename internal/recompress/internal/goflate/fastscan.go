package goflate

import "github.com/imgpack/imgpack/internal/deflate"

// away is added to positions in the table, so that nothing is far away.
const away = 1 << 16

func fastHash(v uint32) uint32 { return v * hashMul >> (32 - fastBits) }

// scan plans on, until a match ends at limit or behind it or the block does.
func (m *fast) scan(limit int) {
	s, last := m.planned, m.end-fastMargin
	for s < limit && s < last {
		distance := 0
		if m.after {
			m.put(s-1, load32(m.p, s-1))
			v := load32(m.p, s)
			distance = m.near(s, v, m.put(s, v))
			if distance == 0 {
				s++
			}
		}
		if distance == 0 {
			if s, distance = m.seek(s, last); distance == 0 {
				break
			}
		}
		n := min(maxMatch, m.end-s) - minMatch
		n = minMatch + common(m.p, s+minMatch-distance, s+minMatch, n)
		m.matches = append(m.matches, match{s, deflate.Match(n, distance)})
		s += n
		m.after = true
	}
	if m.planned = s; s < limit || s >= last {
		m.planned = m.end
	}
}

// seek finds the next match. Without one positions are left out, the more the
// longer.
func (m *fast) seek(s, last int) (at, distance int) {
	if s >= last {
		return 0, 0
	}
	p, table, log := m.p, &m.table, m.log
	v := load32(p, s)
	for skip, next := fastStep, s; ; {
		s = next
		step := skip >> 5
		next += step
		skip += step
		if next > last {
			m.log = log
			return 0, 0
		}
		slot := fastHash(v)
		old := table[slot]
		table[slot] = uint32(s) + away
		log = append(log, change{slot, old})
		if d := uint32(s) + away - old; d <= window && load32(p, int(old)-away) == v {
			m.log = log
			return s, int(d)
		}
		v = load32(p, next)
	}
}

// put puts position s into the table, and returns what it is put in place of.
func (m *fast) put(s int, v uint32) uint32 {
	slot := fastHash(v)
	old := m.table[slot]
	m.table[slot] = uint32(s) + away
	m.log = append(m.log, change{slot, old})
	return old
}

// near is the distance to what was put into the table for the same bytes, 0 if
// that is not the same or too far away.
func (m *fast) near(s int, v, old uint32) int {
	if d := uint32(s) + away - old; d <= window && load32(m.p, int(old)-away) == v {
		return int(d)
	}
	return 0
}
