package kpflate

import "github.com/imgpack/imgpack/internal/deflate"

const (
	window = deflate.Window // a match is nearer than this
	margin = 11             // bytes at the end of a chunk where no match begins
)

// bias turns positions into table entries: it grows from run to run so that what
// is left of the last is out of reach.
type bias uint32

// move makes room for another run over n bytes. It tells that tables must be
// cleared.
func (b *bias) move(last, n int) bool {
	v := uint64(*b) + uint64(last) + 2*window
	clear := *b == 0 || v+uint64(n) > 1<<31
	if clear {
		v = 2 * window
	}
	*b = bias(v)
	return clear
}

// spot is a position, as a table entry, and the four bytes there: most of those
// that have other bytes than they should are told by it alone.
type spot uint64

func at(v uint64, e uint32) spot { return spot(e) | spot(v<<32) }

func (s spot) is(v uint64) bool { return uint32(s>>32) == uint32(v) }

// spots are the last one, and the one before.
type spots struct{ last, before spot }

func (s *spots) put(v spot) { s.last, s.before = v, s.last }

// found is a match: l bytes at s are those at t. If l is 0, it is at least 4.
// next is what would have been looked at after s.
type found struct{ s, t, l, next int }

// near is how far s is before e, and whether that is near enough for a match.
func near(e uint32, s spot) (distance int, ok bool) {
	d := e - uint32(s)
	return int(d), d-1 < window-1
}

// upTo258 is the length of a match of at least 4 bytes, but not more than a
// match may have.
func upTo258(data []byte, s, t int) int {
	return 4 + common(data[:min(s+deflate.MaxLength, len(data))], s+4, t+4)
}

// Hashes of the next bytes, to 15 bits or as many as the name tells.

func short4(v uint64) uint32    { return uint32(v) * prime4 >> (32 - 15) }
func hash5(v uint64) uint32     { return uint32(v << 24 * prime5 >> (64 - 15)) }
func hash5by16(v uint64) uint32 { return uint32(v << 24 * prime5 >> (64 - 16)) }
func hash5by17(v uint64) uint32 { return uint32(v << 24 * prime5 >> (64 - 17)) }
func long7(v uint64) uint32     { return uint32(v << 8 * prime7 >> (64 - 15)) }

// backwards makes a match longer to the left.
func (m *found) backwards(data []byte, base, emit int) {
	for m.t > base && m.s > emit && data[m.t-1] == data[m.s-1] {
		m.s--
		m.t--
		m.l++
	}
}
