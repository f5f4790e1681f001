package recompress

import (
	"math/bits"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/internal/rangecoder"
)

// treesModel is what is learnt of the codes of dynamic blocks.
type treesModel struct {
	same    [2]rangecoder.Prob // literals, distances: 0 as predicted, 1 not
	counts  [3][32]rangecoder.Prob
	length  [2][16][16]rangecoder.Prob // literals, distances: by what is expected
	rule    [4]rangecoder.Prob
	symbol  [2][4]rangecoder.Prob
	code    [8][8]rangecoder.Prob
	repeats [3][128]rangecoder.Prob
}

// How the lengths of codes are written.
const (
	runsJoint    = iota // as runs over literals and distances together
	runsSeparate        // as runs over the literals, then over the distances
	runsOwn             // otherwise
)

// header takes the header of a block that is not as predicted.
func (p *player) header(predicted, h *deflate.Header, tokens []deflate.Token) error {
	h.Type = deflate.Type(p.s.tree(p.structure.blockType[min(predicted.Type, 2)][:], int(h.Type), 2))
	switch h.Type {
	case deflate.Stored, deflate.Fixed:
		return nil
	case deflate.Dynamic:
	default:
		return errRecipe("block of type %d", h.Type)
	}
	var base *deflate.Trees
	if predicted.Type == deflate.Dynamic {
		base = &predicted.Trees
	}
	return p.trees(base, &h.Trees, tokens)
}

// trees takes the codes of a block of tokens; base are those predicted, or nil.
func (p *player) trees(base, t *deflate.Trees, tokens []deflate.Token) error {
	m := &p.structure.trees
	var expect deflate.Trees
	if base == nil {
		estimate(&expect, tokens)
	} else {
		expect = *base
	}
	if base == nil || p.s.flag(&m.same[0], t.NumLit != base.NumLit || t.Lit != base.Lit) {
		t.NumLit = 257 + p.s.tree(m.counts[0][:], t.NumLit-257, 5)
		p.lengths(&m.length[0], t.Lit[:t.NumLit], expect.Lit[:])
	} else {
		t.NumLit, t.Lit = base.NumLit, base.Lit
	}
	if base == nil || p.s.flag(&m.same[1], t.NumDist != base.NumDist || t.Dist != base.Dist) {
		t.NumDist = 1 + p.s.tree(m.counts[1][:], t.NumDist-1, 5)
		p.lengths(&m.length[1], t.Dist[:t.NumDist], expect.Dist[:])
	} else {
		t.NumDist, t.Dist = base.NumDist, base.Dist
	}
	if t.Lit[deflate.EndSymbol] == 0 {
		return errRecipe("no code for the end of a block")
	}
	p.runs(t)
	p.code(t)
	return nil
}

// lengths takes lengths of codes.
func (p *player) lengths(m *[16][16]rangecoder.Prob, lengths, expect []uint8) {
	for i := range lengths {
		lengths[i] = uint8(p.s.tree(m[expect[i]&15][:], int(lengths[i]), 4))
	}
}

// runs takes how the lengths are written.
func (p *player) runs(t *deflate.Trees) {
	m := &p.structure.trees
	rule := runsOwn
	var usual [2]deflate.Trees
	for i := range usual {
		usual[i] = *t
		usualRuns(&usual[i], i == runsSeparate)
	}
	for i := 1; i >= 0; i-- {
		if t.NumRuns == usual[i].NumRuns && t.Runs == usual[i].Runs {
			rule = i
		}
	}
	if rule = p.s.tree(m.rule[:], rule, 2); rule < runsOwn {
		t.Runs, t.NumRuns = usual[rule].Runs, usual[rule].NumRuns
		return
	}
	p.ownRuns(t)
}

// ownRuns takes runs one by one, until they cover all lengths.
func (p *player) ownRuns(t *deflate.Trees) {
	m := &p.structure.trees
	lengths := allLengths(t)
	n := 0
	for i := 0; n < len(lengths); i++ {
		symbol, extra := uint8(t.Runs[i]), int(t.Runs[i]>>8)
		zero := 0
		if lengths[n] == 0 {
			zero = 1
		}
		kind := p.s.tree(m.symbol[zero][:], int(max(symbol, 15))-15, 2)
		if kind == 0 {
			t.Runs[i] = uint16(lengths[n])
			n++
		} else {
			symbol = uint8(15 + kind)
			size := int(deflate.RunExtra(symbol))
			extra = p.s.tree(m.repeats[kind-1][:1<<size], extra, size)
			t.Runs[i] = uint16(symbol) | uint16(extra)<<8
			n += runLength(symbol, extra)
		}
		t.NumRuns = i + 1
	}
}

// runLength is how many lengths a symbol of the code for code lengths gives.
func runLength(symbol uint8, extra int) int {
	switch symbol {
	case 16, 17:
		return 3 + extra
	case 18:
		return 11 + extra
	}
	return 1
}

// code takes the code for code lengths.
func (p *player) code(t *deflate.Trees) {
	m := &p.structure.trees
	var count [deflate.NumCode]int
	for _, r := range t.Runs[:t.NumRuns] {
		count[uint8(r)%deflate.NumCode]++
	}
	t.NumCode = 4 + p.s.tree(m.counts[2][:16], t.NumCode-4, 4)
	for i := range t.Code {
		t.Code[i] = uint8(p.s.tree(m.code[expected(count[i], t.NumRuns, deflate.MaxCode)][:], int(t.Code[i]), 3))
	}
}

// allLengths are the lengths of the codes that are written.
func allLengths(t *deflate.Trees) []uint8 {
	all := make([]uint8, 0, len(t.Runs))
	return append(append(all, t.Lit[:t.NumLit]...), t.Dist[:t.NumDist]...)
}

// usualRuns writes the lengths as most encoders do: as many in a run as there
// are.
func usualRuns(t *deflate.Trees, separate bool) {
	t.NumRuns = 0
	clear(t.Runs[:])
	all := allLengths(t)
	if !separate {
		appendRuns(t, all)
		return
	}
	appendRuns(t, all[:t.NumLit])
	appendRuns(t, all[t.NumLit:])
}

func appendRuns(t *deflate.Trees, lengths []uint8) {
	add := func(symbol uint8, extra int) {
		t.Runs[t.NumRuns] = uint16(symbol) | uint16(extra)<<8
		t.NumRuns++
	}
	for len(lengths) > 0 {
		v, n := lengths[0], 1
		for n < len(lengths) && lengths[n] == v {
			n++
		}
		lengths = lengths[n:]
		if v != 0 {
			add(v, 0)
			n--
		}
		for n > 0 {
			k := 1
			switch {
			case v != 0 && n >= 3:
				k = min(n, 6)
				add(16, k-3)
			case v == 0 && n >= 11:
				k = min(n, 138)
				add(18, k-11)
			case v == 0 && n >= 3:
				k = n
				add(17, k-3)
			default:
				add(v, 0)
			}
			n -= k
		}
	}
}

// estimate guesses lengths of codes from how often symbols are there.
func estimate(t *deflate.Trees, tokens []deflate.Token) {
	var h deflate.Histogram
	h.Count(tokens)
	h.Lit[deflate.EndSymbol]++
	guess(t.Lit[:], h.Lit[:])
	guess(t.Dist[:], h.Dist[:])
}

func guess(lengths []uint8, counts []uint32) {
	total := 0
	for _, n := range counts {
		total += int(n)
	}
	for i, n := range counts {
		lengths[i] = uint8(expected(int(n), total, deflate.MaxBits))
	}
}

// expected is the length of the code of a symbol that is there count times of
// total, at most longest; 0 if it is not there.
func expected(count, total, longest int) int {
	if count == 0 {
		return 0
	}
	return min(max(bits.Len(uint(total/count))-1, 1), longest)
}
