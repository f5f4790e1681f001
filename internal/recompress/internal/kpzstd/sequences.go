package kpzstd

import "math/bits"

const minMatch = 3 // what lengths of matches are counted from

// sequence is some literals and a match behind them. A distance is stored plus 3;
// 1 is the last distance again.
type sequence struct {
	lits, match, offset     uint32
	litCode, matCode, ofCod uint8
}

// kinds of codes, in the order of their tables in a block.
const (
	kindLit = iota
	kindOffset
	kindMatch
	numKinds
)

// Modes of tables (RFC 8878, 3.1.1.3.2.1).
const (
	modePredefined = iota
	modeOnly
	modeNew
	modeRepeat
)

// Extra bits of the codes of lengths.
var (
	litBits   = [36]uint8{16: 1, 17: 1, 18: 1, 19: 1, 20: 2, 21: 2, 22: 3, 23: 3, 24: 4, 25: 6, 26: 7, 27: 8, 28: 9, 29: 10, 30: 11, 31: 12, 32: 13, 33: 14, 34: 15, 35: 16}
	matchBits = [53]uint8{32: 1, 33: 1, 34: 1, 35: 1, 36: 2, 37: 2, 38: 3, 39: 3, 40: 4, 41: 4, 42: 5, 43: 7, 44: 8, 45: 9, 46: 10, 47: 11, 48: 12, 49: 13, 50: 14, 51: 15, 52: 16}
)

// Codes of short lengths, and the distributions that every decoder knows
// (RFC 8878, 3.1.1.3.2.1.1 and 3.1.1.3.2.2).
var (
	litCodes   = shortCodes[[64]uint8](64, litBits[:])
	matchCodes = shortCodes[[128]uint8](128, matchBits[:])
	predefined = [numKinds]*fseTable{
		kindLit: predefine(6, 4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
			-1, -1, -1, -1),
		kindOffset: predefine(5, 1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1),
		kindMatch: predefine(6, 1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
			1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1),
	}
)

func shortCodes[T [64]uint8 | [128]uint8](n int, extra []uint8) (t T) {
	v := 0
	for code, b := range extra {
		for i := 0; i < 1<<b && v < n; i++ {
			t[v] = uint8(code)
			v++
		}
	}
	return t
}

func predefine(log uint8, norm ...int16) *fseTable {
	t := &fseTable{log: log, n: len(norm)}
	copy(t.norm[:], norm)
	t.build()
	return t
}

func litCode(n uint32) uint8 {
	if n < 64 {
		return litCodes[n]
	}
	return highBit(n) + 19
}

func matchCode(n uint32) uint8 {
	if n < 128 {
		return matchCodes[n]
	}
	return highBit(n) + 36
}

// seqCoder writes sequences. last is the tables of the block before, without
// symbols if they cannot be used again.
type seqCoder struct {
	last, cur [numKinds]*fseTable
	count     [numKinds][maxSymbols]uint32
}

func newSeqCoder() (s seqCoder) {
	for k := range numKinds {
		s.last[k], s.cur[k] = new(fseTable), new(fseTable)
	}
	return s
}

func (s *seqCoder) reset() {
	for _, t := range s.last {
		t.n = 0
	}
}

// code sets the codes of sequences and counts them; it returns the number of
// symbols and the most frequent one's count, by kind.
func (s *seqCoder) code(seqs []sequence) (symbols [numKinds]int, most [numKinds]uint32) {
	clear(s.count[:])
	lit, off, mat := &s.count[kindLit], &s.count[kindOffset], &s.count[kindMatch]
	for i := range seqs {
		q := &seqs[i]
		q.litCode = litCode(q.lits)
		q.matCode = matchCode(q.match)
		q.ofCod = uint8(bits.Len32(q.offset) - 1)
		lit[q.litCode&(maxSymbols-1)]++
		mat[q.matCode&(maxSymbols-1)]++
		off[q.ofCod&(maxSymbols-1)]++
	}
	for k := range numKinds {
		for i, c := range s.count[k] {
			if c > 0 {
				symbols[k] = i + 1
				most[k] = max(most[k], c)
			}
		}
	}
	return symbols, most
}

// chosen is what is used in a block.
type chosen struct {
	table [numKinds]*fseTable
	mode  [numKinds]uint8
}

// keep makes what a block used the tables that the next may use again.
func (s *seqCoder) keep(c *chosen) {
	for k := range numKinds {
		switch c.table[k] {
		case s.cur[k]:
			s.cur[k], s.last[k] = s.last[k], s.cur[k]
		case s.last[k]:
		default:
			s.last[k].n = 0
		}
	}
}

// header appends the number of sequences, the modes and the tables. agree loses
// the classes that would have chosen others. It is false if there are no tables.
func (s *seqCoder) header(out []byte, seqs []sequence, class Class, agree *classSet) ([]byte, chosen, bool) {
	var c chosen
	switch n := len(seqs); {
	case n < 128:
		out = append(out, byte(n))
	case n < 0x7f00:
		out = append(out, byte(n>>8)+128, byte(n))
	default:
		n -= 0x7f00
		out = append(out, 255, byte(n), byte(n>>8))
	}
	symbols, most := s.code(seqs)
	log := highBit(uint32(len(seqs))) + 1
	for k := range numKinds {
		if int(most[k]) == len(seqs) {
			s.cur[k].setOnly(uint8(symbols[k] - 1))
			c.table[k], c.mode[k] = s.cur[k], modeOnly
			continue
		}
		t := s.cur[k]
		if !t.normalize(s.count[k][:symbols[k]], len(seqs), tableLog(seqTableLog, log, len(seqs), symbols[k])) {
			return nil, c, false
		}
		t.build()
		c.mode[k] = s.choose(k, class, agree)
		c.table[k] = [...]*fseTable{modePredefined: predefined[k], modeNew: t, modeRepeat: s.last[k]}[c.mode[k]]
	}
	out = append(out, c.mode[kindLit]<<6|c.mode[kindOffset]<<4|c.mode[kindMatch]<<2)
	for k := range numKinds {
		switch c.mode[k] {
		case modeOnly:
			out = append(out, c.table[k].only)
		case modeNew:
			out = c.table[k].appendHeader(out)
		}
	}
	return out, c, true
}

// choose says which table of a kind takes the least bits by the estimate of a class.
func (s *seqCoder) choose(k int, class Class, agree *classSet) uint8 {
	cur, last := s.cur[k], s.last[k]
	count := s.count[k][:cur.n]
	fresh, known, again := cur.cost(count), predefined[k].cost(count), last.cost(count)
	old := cheapest(cur, fresh, known, again)
	precise := cheapestPrecise(cur, last, predefined[k].log, fresh, known, again)
	if old != precise {
		*agree &= sameSide(class, V1_203)
	}
	if class < V1_203 {
		return old
	}
	return precise
}

// withHeader adds the estimate of a table's header and a penalty to its cost.
func withHeader(t *fseTable, cost uint32) uint32 {
	cost += (uint32(t.n)*uint32(t.log)>>3 + 3) * 8
	return cost + (cost+2*8*16)>>4
}

func cheapest(cur *fseTable, fresh, known, again uint32) uint8 {
	fresh = withHeader(cur, fresh)
	switch {
	case known <= again && known <= fresh:
		return modePredefined
	case again <= fresh:
		return modeRepeat
	}
	return modeNew
}

// cheapestPrecise also counts the final states, and compares the last table with
// the true size of the header.
func cheapestPrecise(cur, last *fseTable, knownLog uint8, fresh, known, again uint32) uint8 {
	exact := fresh
	fresh = withHeader(cur, fresh)
	if again == impossible {
		exact = fresh
	} else {
		var room [3 * maxSymbols]byte
		exact += uint32(len(cur.appendHeader(room[:0]))) * 8
		again += uint32(last.log)
	}
	fresh += uint32(cur.log)
	exact += uint32(cur.log)
	if known != impossible {
		known += uint32(knownLog)
	}
	switch {
	case known <= again && known <= fresh:
		return modePredefined
	case again <= exact:
		return modeRepeat
	}
	return modeNew
}

// write writes sequences from the last to the first behind out, which has room.
func (c *chosen) write(out []byte, seqs []sequence) []byte {
	w := bitWriter{buf: out[:cap(out)], pos: len(out)}
	lit, off, mat := c.table[kindLit], c.table[kindOffset], c.table[kindMatch]
	q := &seqs[len(seqs)-1]
	litState, offState, matState := lit.first(q.litCode), off.first(q.ofCod), mat.first(q.matCode)
	w.extra(q)
	for i := len(seqs) - 2; i >= 0; i-- {
		q = &seqs[i]
		o, m, l := off.steps[q.ofCod&(maxSymbols-1)], mat.steps[q.matCode&(maxSymbols-1)], lit.steps[q.litCode&(maxSymbols-1)]
		on, mn, ln := (offState+o.bits)>>16, (matState+m.bits)>>16, (litState+l.bits)>>16
		w.add(uint64(offState&(1<<(on&31)-1)), uint(on))
		w.add(uint64(matState&(1<<(mn&31)-1)), uint(mn))
		w.add(uint64(litState&(1<<(ln&31)-1)), uint(ln))
		offState = uint32(off.next[uint8(int32(offState>>(on&31))+o.find)])
		matState = uint32(mat.next[uint8(int32(matState>>(mn&31))+m.find)])
		litState = uint32(lit.next[uint8(int32(litState>>(ln&31))+l.find)])
		w.extra(q)
	}
	for _, s := range [...]struct {
		state uint32
		log   uint8
	}{{matState, mat.log}, {offState, off.log}, {litState, lit.log}} {
		w.add(uint64(s.state&(1<<s.log-1)), uint(s.log))
		w.flush()
	}
	w.end()
	return w.buf[:w.pos]
}

// extra writes the extra bits of the codes of q: at most 56, behind at most 7 and
// the 24 of three states, in two steps if need be.
func (w *bitWriter) extra(q *sequence) {
	ln, mn, on := uint(litBits[q.litCode]), uint(matchBits[q.matCode]), uint(q.ofCod)
	v := uint64(q.lits&(1<<ln-1)) | uint64(q.match&(1<<mn-1))<<ln | uint64(q.offset&(1<<on-1))<<(ln+mn)
	n := ln + mn + on
	if w.n+n > 63 {
		w.flush()
	}
	w.add(v, n)
	w.flush()
}
