package segment

import (
	"encoding/binary"
	"math/bits"
)

// fineness says how small a match is found: of 2^rate positions one is looked
// up, by the hash of the window bytes before it.
type fineness struct {
	window   int // at most 64
	minMatch int // shortest copy
	rate     int
}

// Within a segment a match only spares zstd the distance. What is not in a
// prefix has to be written, and a changed program resembles its older self in
// small pieces.
var (
	coarse = fineness{window: 64, minMatch: 64, rate: 6}
	fine   = fineness{window: 32, minMatch: 32, rate: 4}
)

// block is how many bytes are scanned before their samples are looked up.
const block = 2 << 10

// gear drives the rolling hash. The format does not depend on it.
var gear = func() (g [256]uint64) {
	x := uint64(0x1a6f7c4b3d5e2980)
	for i := range g { // splitmix64
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		g[i] = z ^ z>>31
	}
	return g
}()

type sample struct {
	pos  int // after the window
	hash uint64
	slot uint32 // what the table held
}

// matcher finds copies. It keeps its table between calls.
type matcher struct {
	fineness
	slots   []uint32 // position<<tagBits | tag of the newest sample with that hash; 0 is none
	shift   int      // of a mixed hash, to the number of its slot
	tagBits int
	samples [block]sample

	content, prefix []byte
	copied          int // bytes
	anchor          int // end of the last copy in content
	distance        int // of the last copy
}

// find looks for copies from prefix and content in content, and adds them to
// cols. It returns how many bytes they copy.
func (m *matcher) find(content, prefix []byte, cols *columns) int {
	m.reset(content, prefix)
	for pos, hash := 0, uint64(0); pos < len(prefix); pos += block {
		var n int
		n, hash = m.scan(prefix, pos, hash, 0)
		m.exchange(n)
	}
	pos, hash := 0, uint64(0)
	for pos < len(content) {
		var n int
		n, hash = m.scan(content, pos, hash, len(prefix))
		m.exchange(n)
		pos = min(pos+block, len(content))
		for _, s := range m.samples[:n] {
			if s.pos -= len(prefix); s.pos > m.anchor {
				m.try(s, cols)
			}
		}
		if m.anchor > pos { // the copied need not be scanned: its samples are known
			pos = m.anchor
			hash = warm(content[max(0, pos-m.window):pos])
		}
	}
	m.content, m.prefix = nil, nil
	return m.copied
}

func (m *matcher) reset(content, prefix []byte) {
	m.content, m.prefix = content, prefix
	m.copied, m.anchor, m.distance = 0, 0, 0
	m.fineness = coarse
	if len(prefix) > 0 {
		m.fineness = fine
	}
	total := len(content) + len(prefix)
	slotBits := max(10, bits.Len(uint(total>>m.rate)))
	m.shift, m.tagBits = 64-slotBits, 32-bits.Len(uint(total))
	if n := 1 << slotBits; cap(m.slots) >= n {
		m.slots = m.slots[:n]
		clear(m.slots)
	} else {
		m.slots = make([]uint32, n)
	}
}

func warm(p []byte) (hash uint64) {
	for _, b := range p {
		hash = hash<<1 + gear[b]
	}
	return hash
}

// scan samples the block of p at pos. base is added to positions.
func (m *matcher) scan(p []byte, pos int, hash uint64, base int) (n int, _ uint64) {
	p = p[pos:min(pos+block, len(p))]
	base += pos + 1
	older := (64 - m.window) & 63 // what came before the window is shifted out
	sampled := (64 - m.rate) & 63
	for i, b := range p {
		hash = hash<<1 + gear[b]
		if h := hash << older; h>>sampled == 0 {
			s := &m.samples[n&(block-1)]
			s.pos, s.hash = base+i, h
			n++
		}
	}
	return n, hash
}

// exchange puts n samples into the table and notes what was there.
func (m *matcher) exchange(n int) {
	samples := m.samples[:n]
	for i := range samples {
		s := &samples[i]
		mixed := s.hash * 0x9fb21c651e98df25
		tag := uint32(mixed) >> (32 - m.tagBits)
		slot := &m.slots[mixed>>m.shift]
		s.slot = 0
		if *slot&(1<<m.tagBits-1) == tag {
			s.slot = *slot >> m.tagBits
		}
		*slot = uint32(s.pos)<<m.tagBits | tag
	}
}

// try adds a copy around the position of s if there is one. One that goes on
// at the distance of the last is preferred: it costs next to nothing.
func (m *matcher) try(s sample, cols *columns) {
	pos := s.pos + len(m.prefix)
	if m.distance > 0 && m.distance < pos && m.extend(s.pos, pos-m.distance, cols) {
		return
	}
	if s.slot != 0 {
		m.extend(s.pos, int(s.slot), cols)
	}
}

// extend adds the copy that has content's position pos at position src, if it
// is long enough.
func (m *matcher) extend(pos, src int, cols *columns) bool {
	from, at := m.prefix, src
	if src > len(m.prefix) {
		from, at = m.content, src-len(m.prefix)
	}
	back := commonSuffix(m.content[m.anchor:pos], from[:at])
	n := back + commonPrefix(m.content[pos:], from[at:])
	if n < m.minMatch {
		return false
	}
	start := pos - back
	cols.add(start-m.anchor, n, src-back)
	m.anchor = start + n
	m.distance = pos + len(m.prefix) - src
	m.copied += n
	return true
}

func commonPrefix(a, b []byte) int {
	n := 0
	for len(a) >= 8 && len(b) >= 8 {
		if x := binary.LittleEndian.Uint64(a) ^ binary.LittleEndian.Uint64(b); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
		a, b = a[8:], b[8:]
		n += 8
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			break
		}
		n++
	}
	return n
}

func commonSuffix(a, b []byte) int {
	n := 0
	for len(a) >= 8 && len(b) >= 8 {
		if x := binary.LittleEndian.Uint64(a[len(a)-8:]) ^ binary.LittleEndian.Uint64(b[len(b)-8:]); x != 0 {
			return n + bits.LeadingZeros64(x)/8
		}
		a, b = a[:len(a)-8], b[:len(b)-8]
		n += 8
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
		n++
	}
	return n
}
