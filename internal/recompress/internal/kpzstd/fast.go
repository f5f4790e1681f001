package kpzstd

const (
	fastBits   = 15
	fastMargin = 8
	fastLeast  = 10
)

// fastFinder is level "fastest": one table for six bytes.
type fastFinder struct {
	table [1 << fastBits]entry
	old   bool // the class is V1_11
}

// whole is what the oldest class takes of n bytes that are the same from s on: at
// the end of a block, only groups of eight.
func whole(src []byte, s, n int) int { return min(n, (len(src)-s)&^7) }

// patience is how slowly steps get longer where nothing is found.
func (f *fastFinder) patience(alone bool) uint {
	switch {
	case !f.old:
		return 5
	case alone:
		return 7
	}
	return 6
}

func fastHash(v uint64) uint64 { return v << 16 * prime6 >> (64 - fastBits) }

func (f *fastFinder) rebase(less uint32) { rebaseEntries(f.table[:], less) }

// parse is one long function: calls in its loops cost a fifth of the speed.
func (f *fastFinder) parse(h *history, from int, b *parsed, alone bool) {
	src := h.buf
	if len(src)-from < fastLeast {
		b.lits = append(b.lits, src[from:]...)
		return
	}
	base, window := h.base, uint32(h.window)
	limit := len(src) - fastMargin
	s, emit := from, from
	off1, off2 := 1, 1
	lits, seqs := b.lits, b.seqs
	patience := f.patience(alone) & 7
	cv := load64(src, s)
search:
	for {
		repeats := len(seqs) > 2
		var t int
		for {
			h0, h1 := fastHash(cv), fastHash(cv>>8)
			e0, e1 := f.table[h0], f.table[h1]
			pos := uint32(s) + base
			f.table[h0] = makeEntry(cv, pos)
			f.table[h1] = makeEntry(cv>>8, pos+1)

			if repeats {
				if r := s - off1 + 2; load32(src, r) == uint32(cv>>16) {
					n := matchLen(src, s+6, r+4) + 4
					if f.old {
						n = whole(src, s+6, n-4) + 4
					}
					start := s + 2
					end := start + n
					for low := max(s-h.window, 0); r > low && start > emit+1 && src[r-1] == src[start-1]; {
						r--
						start--
					}
					lits = append(lits, src[emit:start]...)
					seqs = append(seqs, sequence{lits: uint32(start - emit), match: uint32(end - start - minMatch), offset: 1})
					s, emit = end, end
					if s >= limit {
						break search
					}
					cv = load64(src, s)
					continue
				}
			}
			if d := pos - e0.pos(); d < window && e0.bytes() == uint32(cv) {
				t = s - int(d)
				break
			}
			if d := pos + 1 - e1.pos(); d < window && e1.bytes() == uint32(cv>>8) {
				s++
				t = s - int(d)
				break
			}
			s += 2 + (s-emit)>>patience
			if s >= limit {
				break search
			}
			cv = load64(src, s)
		}

		off1, off2 = s-t, off1
		n := matchLen(src, s+4, t+4)
		if f.old {
			n = whole(src, s+4, n)
		}
		end := s + 4 + n
		for low := max(s-h.window, 0); t > low && s > emit && src[t-1] == src[s-1]; {
			s--
			t--
		}
		lits = append(lits, src[emit:s]...)
		seqs = append(seqs, sequence{lits: uint32(s - emit), match: uint32(end - s - minMatch), offset: uint32(s-t) + minMatch})
		s, emit = end, end
		if s >= limit {
			break search
		}
		cv = load64(src, s)
		if !repeats && !(alone && len(seqs) > 2) {
			continue
		}
		if r := s - off2; load32(src, r) == uint32(cv) {
			n := 4 + matchLen(src, s+4, r+4)
			if f.old {
				n = 4 + whole(src, s+4, n-4)
			}
			f.table[fastHash(cv)] = makeEntry(cv, uint32(s)+base)
			seqs = append(seqs, sequence{match: uint32(n - minMatch), offset: 1})
			s += n
			emit = s
			off1, off2 = off2, off1
			if s >= limit {
				break search
			}
			cv = load64(src, s)
		}
	}
	b.lits, b.seqs = append(lits, src[emit:]...), seqs
}
