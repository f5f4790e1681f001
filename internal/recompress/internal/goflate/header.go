package goflate

import "github.com/imgpack/imgpack/internal/deflate"

// writer decides how blocks are written.
type writer struct {
	huffman
	counts deflate.Histogram
}

var fixedLit = deflate.FixedLit()

// smallest is the header of the smallest form of a block. content is its
// length; it may be stored if it is held still.
func (w *writer) smallest(h *deflate.Header, tokens []deflate.Token, content int, held bool) {
	w.tally(tokens)
	dynamic := w.trees(&h.Trees)
	fixed := 3
	for s, n := range w.counts.Lit {
		fixed += int(n) * int(fixedLit[s])
	}
	for _, n := range w.counts.Dist {
		fixed += int(n) * 5
	}
	h.Type = deflate.Dynamic
	size := dynamic
	if fixed <= dynamic {
		h.Type, size = deflate.Fixed, fixed
	}
	if held && content <= deflate.MaxStored && (content+5)*8 < size+w.extra() {
		h.Type = deflate.Stored
	}
	if h.Type != deflate.Dynamic {
		h.Trees = deflate.Trees{}
	}
}

// dynamic is the header of a block that is dynamic, unless it is hardly smaller
// than if it is stored. Bits that codes are followed by do not count.
func (w *writer) dynamic(h *deflate.Header, tokens []deflate.Token, content int) {
	w.tally(tokens)
	size := w.trees(&h.Trees)
	h.Type = deflate.Dynamic
	if content <= deflate.MaxStored && (content+5)*8 < size+size>>4 {
		h.Type, h.Trees = deflate.Stored, deflate.Trees{}
	}
}

// tally makes the histogram of a block.
func (w *writer) tally(tokens []deflate.Token) {
	w.counts = deflate.Histogram{}
	w.counts.Count(tokens)
	w.counts.Lit[deflate.EndSymbol] = 1
}

// extra counts the bits that codes are followed by.
func (w *writer) extra() (bits int) {
	for s, n := range deflate.LengthExtra {
		bits += int(w.counts.Lit[deflate.FirstMatch+s]) * int(n)
	}
	for s, n := range deflate.DistExtra {
		bits += int(w.counts.Dist[s]) * int(n)
	}
	return bits
}

// trees makes the codes of a dynamic block, and returns its size in bits
// without what codes are followed by. A block without matches has the code of
// one distance.
func (w *writer) trees(t *deflate.Trees) int {
	lit, dist := w.counts.Lit[:deflate.MaxLit], w.counts.Dist[:deflate.MaxDist]
	if t.NumDist = used(dist); t.NumDist == 0 {
		dist[0], t.NumDist = 1, 1
	}
	t.NumLit = used(lit)
	w.lengths(t.Lit[:deflate.MaxLit], lit, deflate.MaxBits)
	w.lengths(t.Dist[:deflate.MaxDist], dist, deflate.MaxBits)

	var often [deflate.NumCode]uint32
	var all [deflate.NumLit + deflate.NumDist]uint8
	n := copy(all[:], t.Lit[:t.NumLit])
	n += copy(all[n:], t.Dist[:t.NumDist])
	t.NumRuns = 0
	t.AddLongestRuns(all[:n])
	for _, r := range t.Runs[:t.NumRuns] {
		often[uint8(r)]++
	}
	w.lengths(t.Code[:], often[:], deflate.MaxCode)
	t.CutCode()

	size := 3 + 5 + 5 + 4 + 3*t.NumCode
	for s, n := range often {
		size += int(n) * (int(t.Code[s]) + int(deflate.RunExtra(uint8(s))))
	}
	for s, n := range lit {
		size += int(n) * int(t.Lit[s])
	}
	for s, n := range dist {
		size += int(n) * int(t.Dist[s])
	}
	return size
}

// used counts symbols up to the last that is used.
func used(often []uint32) int {
	n := len(often)
	for n > 0 && often[n-1] == 0 {
		n--
	}
	return n
}
