package kpzstd

const (
	doubleLongBits  = 17
	doubleShortBits = 15
	doubleMargin    = 10 // bytes at the end of a block where no match begins
	leastBlock      = 16 // shorter blocks have no matches
)

// doubleFinder is level "default": a table for eight bytes and one for five,
// each with the last place only.
type doubleFinder struct {
	long  [1 << doubleLongBits]entry
	short [1 << doubleShortBits]entry
}

func doubleLong(v uint64) uint64  { return v * prime8 >> (64 - doubleLongBits) }
func doubleShort(v uint64) uint64 { return v << 24 * prime5 >> (64 - doubleShortBits) }

func (f *doubleFinder) rebase(less uint32) {
	rebaseEntries(f.long[:], less)
	rebaseEntries(f.short[:], less)
}

// parse is one long function: calls in its loops cost a fifth of the speed.
func (f *doubleFinder) parse(h *history, from int, b *parsed, alone bool) {
	src := h.buf
	if len(src)-from < leastBlock {
		b.lits = append(b.lits, src[from:]...)
		return
	}
	base, window := h.base, uint32(h.window)
	limit := len(src) - doubleMargin
	s, emit := from, from
	off1, off2 := 1, 1
	lits, seqs := b.lits, b.seqs
	cv := load64(src, s)
search:
	for {
		repeats := len(seqs) > 2
		var t int
		for {
			hl, hs := doubleLong(cv), doubleShort(cv)
			long, short := f.long[hl], f.short[hs]
			pos := uint32(s) + base
			e := makeEntry(cv, pos)
			f.long[hl], f.short[hs] = e, e

			if repeats {
				if r := s - off1 + 1; load32(src, r) == uint32(cv>>8) {
					n := matchLen(src, s+5, r+4) + 4
					start := s + 1
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
			if d := pos - long.pos(); d < window && long.bytes() == uint32(cv) {
				t = s - int(d)
				break
			}
			if d := pos - short.pos(); d < window && short.bytes() == uint32(cv) {
				// A long match one byte on is better.
				t = s - int(d)
				next := load64(src, s+1)
				hl = doubleLong(next)
				long = f.long[hl]
				f.long[hl] = makeEntry(next, pos+1)
				if d := pos + 1 - long.pos(); d < window && long.bytes() == uint32(next) {
					s++
					t = s - int(d)
				}
				break
			}
			s += 1 + (s-emit)>>7
			if s >= limit {
				break search
			}
			cv = load64(src, s)
		}

		off1, off2 = s-t, off1
		end := s + 4 + matchLen(src, s+4, t+4)
		for low := max(s-h.window, 0); t > low && s > emit && src[t-1] == src[s-1]; {
			s--
			t--
		}
		lits = append(lits, src[emit:s]...)
		seqs = append(seqs, sequence{lits: uint32(s - emit), match: uint32(end - s - minMatch), offset: uint32(s-t) + minMatch})
		begin := s
		s, emit = end, end
		if s >= limit {
			break search
		}

		head, tail := load64(src, begin+1), load64(src, s-2)
		first, last := uint32(begin+1)+base, uint32(s-2)+base
		f.long[doubleLong(head)] = makeEntry(head, first)
		f.long[doubleLong(tail)] = makeEntry(tail, last)
		f.short[doubleShort(head>>8)] = makeEntry(head>>8, first+1)
		f.short[doubleShort(tail>>8)] = makeEntry(tail>>8, last+1)
		cv = load64(src, s)
		if !repeats && !(alone && len(seqs) > 2) {
			continue
		}
		for r := s - off2; load32(src, r) == uint32(cv); r = s - off2 {
			n := 4 + matchLen(src, s+4, r+4)
			e := makeEntry(cv, uint32(s)+base)
			f.long[doubleLong(cv)] = e
			if alone {
				// The hash of what followed the last match, not of what is here.
				f.short[doubleShort(tail>>16)] = e
			} else {
				f.short[doubleShort(cv)] = e
			}
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
