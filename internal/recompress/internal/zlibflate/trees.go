package zlibflate

import "github.com/imgpack/imgpack/internal/deflate"

const maxNodes = 2*deflate.MaxLit + 1

// trees builds Huffman codes as these encoders do. Which of many codes of the
// same total length it is hangs on the order in which a heap gives nodes of the
// same frequency.
type trees struct {
	freq   [maxNodes]uint32
	parent [maxNodes]uint16
	length [maxNodes]uint8
	depth  [maxNodes]uint8
	heap   [maxNodes + 1]uint16 // nodes to be joined, from 1; at the end those that were, by falling frequency
	size   int                  // of the heap
	joined int                  // where those begin

	best, fixed int // bits of the block with these codes and with those of fixed blocks

	histogram deflate.Histogram
}

var (
	fixedLit  = deflate.FixedLit()
	litExtra  [deflate.MaxLit]uint8
	runExtra  [deflate.NumCode]uint8
	distExtra = deflate.DistExtra
	fixedDist [deflate.MaxDist]uint8
	noFixed   [deflate.NumCode]uint8
)

func init() {
	copy(litExtra[deflate.FirstMatch:], deflate.LengthExtra[:])
	for s := range runExtra {
		runExtra[s] = uint8(deflate.RunExtra(uint8(s)))
	}
	for s := range fixedDist {
		fixedDist[s] = 5
	}
}

// header says how a block is written. stored is the length of its content, -1 if
// the encoder cannot store it any more.
func (b *trees) header(h *deflate.Header, tokens []deflate.Token, stored int) {
	t := &h.Trees
	*t = deflate.Trees{}
	b.histogram = deflate.Histogram{}
	b.histogram.Count(tokens)
	b.histogram.Lit[deflate.EndSymbol] = 1
	b.best, b.fixed = 0, 0
	t.NumLit = 1 + b.build(t.Lit[:], b.histogram.Lit[:deflate.MaxLit], litExtra[:], fixedLit[:], deflate.MaxBits)
	t.NumDist = 1 + b.build(t.Dist[:], b.histogram.Dist[:deflate.MaxDist], distExtra[:], fixedDist[:], deflate.MaxBits)
	var counts [deflate.NumCode]uint32
	runs(t, t.Lit[:t.NumLit], &counts)
	runs(t, t.Dist[:t.NumDist], &counts)
	fixed := b.fixed
	b.build(t.Code[:], counts[:], runExtra[:], noFixed[:], deflate.MaxCode)
	t.CutCode()
	b.best += 3*t.NumCode + 5 + 5 + 4

	dynamicBytes, fixedBytes := (b.best+3+7)>>3, (fixed+3+7)>>3
	switch {
	case stored >= 0 && stored+4 <= min(dynamicBytes, fixedBytes):
		h.Type, *t = deflate.Stored, deflate.Trees{}
	case fixedBytes <= dynamicBytes:
		h.Type, *t = deflate.Fixed, deflate.Trees{}
	default:
		h.Type = deflate.Dynamic
	}
}

// build gives the symbols lengths, none longer than longest, and returns the
// last symbol that has one.
func (b *trees) build(lengths []uint8, freq []uint32, extra, fixed []uint8, longest int) int {
	last := b.leaves(freq, fixed)
	for k := b.size / 2; k >= 1; k-- {
		b.sift(k)
	}
	b.joined = len(b.heap)
	node := len(freq)
	for b.size >= 2 {
		x := b.heap[1]
		b.heap[1] = b.heap[b.size]
		b.size--
		b.sift(1)
		y := b.heap[1]
		b.joined -= 2
		b.heap[b.joined+1], b.heap[b.joined] = x, y
		b.freq[node] = b.freq[x] + b.freq[y]
		b.depth[node] = max(b.depth[x], b.depth[y]) + 1
		b.parent[x], b.parent[y] = uint16(node), uint16(node)
		b.heap[1] = uint16(node)
		b.sift(1)
		node++
	}
	b.joined--
	b.heap[b.joined] = b.heap[1]
	b.assign(len(freq), extra, fixed, longest)
	for s := range freq {
		lengths[s] = 0
		if b.freq[s] != 0 {
			lengths[s] = b.length[s]
		}
	}
	return last
}

// leaves fills the heap. At least two symbols get a code, which need not be
// counted.
func (b *trees) leaves(freq []uint32, fixed []uint8) int {
	last := -1
	b.size = 0
	for s, n := range freq {
		b.freq[s], b.depth[s] = n, 0
		if n != 0 {
			b.size++
			b.heap[b.size] = uint16(s)
			last = s
		}
	}
	for b.size < 2 {
		s := 0
		if last < 2 {
			last++
			s = last
		}
		b.size++
		b.heap[b.size] = uint16(s)
		b.freq[s] = 1
		b.best--
		b.fixed -= int(fixed[s])
	}
	return last
}

// less is the order of the heap.
func (b *trees) less(x, y uint16) bool {
	fx, fy := b.freq[x], b.freq[y]
	return fx < fy || fx == fy && b.depth[x] <= b.depth[y]
}

func (b *trees) sift(k int) {
	v := b.heap[k]
	for j := 2 * k; j <= b.size; j *= 2 {
		if j < b.size && b.less(b.heap[j+1], b.heap[j]) {
			j++
		}
		if b.less(v, b.heap[j]) {
			break
		}
		b.heap[k] = b.heap[j]
		k = j
	}
	b.heap[k] = v
}

// assign turns the tree into lengths, and counts bits.
func (b *trees) assign(symbols int, extra, fixed []uint8, longest int) {
	var count [deflate.MaxBits + 1]int
	over := 0
	b.length[b.heap[b.joined]] = 0
	for _, n := range b.heap[b.joined+1:] {
		l := int(b.length[b.parent[n]]) + 1
		if l > longest {
			l = longest
			over++
		}
		b.length[n] = uint8(l)
		if int(n) >= symbols {
			continue
		}
		count[l]++
		f := int(b.freq[n])
		b.best += f * (l + int(extra[n]))
		b.fixed += f * int(fixed[n]+extra[n])
	}
	if over == 0 {
		return
	}
	for ; over > 0; over -= 2 {
		l := longest - 1
		for count[l] == 0 {
			l--
		}
		count[l]--
		count[l+1] += 2
		count[longest]--
	}
	// Hand the lengths out again, the longest to the rarest.
	i := len(b.heap)
	for l := longest; l > 0; l-- {
		for n := count[l]; n > 0; {
			i--
			s := b.heap[i]
			if int(s) >= symbols {
				continue
			}
			b.best += (l - int(b.length[s])) * int(b.freq[s])
			b.length[s] = uint8(l)
			n--
		}
	}
}

// runs appends how lengths are written, and counts the symbols used.
func runs(t *deflate.Trees, lengths []uint8, counts *[deflate.NumCode]uint32) {
	put := func(symbol uint8, extra int) {
		t.AddRun(symbol, extra)
		counts[symbol]++
	}
	before := -1
	for i := 0; i < len(lengths); {
		l := lengths[i]
		most, least := 7, 4
		switch {
		case l == 0:
			most, least = 138, 3
		case int(l) == before:
			most, least = 6, 3
		}
		n := 1
		for n < most && i+n < len(lengths) && lengths[i+n] == l {
			n++
		}
		i += n
		switch {
		case n < least:
			for range n {
				put(l, 0)
			}
		case l != 0:
			if int(l) != before {
				put(l, 0)
				n--
			}
			put(deflate.Repeat, n-3)
		case n <= 10:
			put(deflate.Zeros, n-3)
		default:
			put(deflate.ManyZeros, n-11)
		}
		before = int(l)
	}
}
