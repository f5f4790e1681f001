package recompress

import (
	"hash/crc32"
	"math/rand/v2"

	"github.com/imgpack/imgpack/internal/deflate"
)

// gen writes valid gzip streams at random: whatever the format allows.
type gen struct {
	*rand.Rand
	w       deflate.Writer
	content []byte
	member  int // where it begins in content
	most    int // tokens in a block
}

// stream returns a stream of about so many blocks, and its content.
func generate(seed uint64, blocks, most int) (stream, content []byte) {
	g := gen{Rand: seeded(seed), most: most}
	for blocks > 0 {
		n := 1 + g.IntN(blocks)
		blocks -= n
		g.gzip(n)
	}
	switch g.IntN(4) {
	case 0:
		g.w.Out = append(g.w.Out, make([]byte, g.IntN(100_000))...)
	case 1:
		g.w.Out = append(g.w.Out, "\x1f\x8brubbish"[:1+g.IntN(8)]...)
	}
	return g.w.Out, g.content
}

func (g *gen) gzip(blocks int) {
	g.member = len(g.content)
	flags := byte(0)
	if g.IntN(3) == 0 {
		flags = byte(g.IntN(32))
	}
	g.w.Out = append(g.w.Out, 0x1f, 0x8b, 8, flags, byte(g.IntN(2)), 0, 0, 0, byte(2*g.IntN(3)), 0xff)
	if flags&4 != 0 {
		n := g.IntN(400)
		g.w.Out = append(append(g.w.Out, byte(n), byte(n>>8)), make([]byte, n)...)
	}
	for f := flags & (8 | 16); f != 0; f &= f - 1 {
		g.w.Out = append(g.w.Out, "a name\x00"...)
	}
	if flags&2 != 0 {
		g.w.Out = append(g.w.Out, 1, 2)
	}
	for i := range blocks {
		g.block(i == blocks-1)
	}
	if g.w.Count > 0 {
		g.w.Out = append(g.w.Out, byte(g.w.Bits)|byte(g.IntN(2)*g.IntN(256))<<g.w.Count)
		g.w.Bits, g.w.Count = 0, 0
	}
	member := g.content[g.member:]
	trailer := deflate.GzipTrailer(crc32.ChecksumIEEE(member), uint32(len(member)))
	if g.IntN(10) == 0 {
		trailer[g.IntN(8)]++
	}
	g.w.Out = append(g.w.Out, trailer[:]...)
}

func (g *gen) block(final bool) {
	h := deflate.Header{Type: deflate.Type(g.IntN(3)), Final: final}
	had := len(g.content)
	if h.Type == deflate.Stored {
		if h.Padding = uint8(g.IntN(256) * g.IntN(2)); g.IntN(3) > 0 {
			for range g.IntN(min(3*g.most, deflate.MaxStored)) {
				g.content = append(g.content, byte(g.IntN(256)))
			}
		}
		g.w.Stored(&h, g.content[had:])
		return
	}
	var tokens []deflate.Token
	if g.IntN(4) > 0 {
		for range g.IntN(g.most) {
			tokens = append(tokens, g.token())
		}
	}
	if h.Type == deflate.Dynamic {
		g.trees(&h.Trees, tokens)
	}
	if !g.w.Block(&h, tokens) {
		panic("no code")
	}
}

func (g *gen) token() deflate.Token {
	back := min(len(g.content)-g.member, deflate.Window)
	if back == 0 || g.IntN(3) == 0 {
		c := "abcdefgh\x00\xff"[g.IntN(10)]
		g.content = append(g.content, c)
		return deflate.Literal(c)
	}
	length, distance := 3+g.IntN(1+g.IntN(256)), 1+g.IntN(1+g.IntN(back))
	for range length {
		g.content = append(g.content, g.content[len(g.content)-distance])
	}
	t := deflate.Match(length, distance)
	if length == deflate.MaxLength && g.IntN(2) == 0 {
		t |= deflate.LongForm
	}
	return t
}

// trees makes codes that have all that the tokens need, and more.
func (g *gen) trees(t *deflate.Trees, tokens []deflate.Token) {
	var h deflate.Histogram
	h.Count(tokens)
	for _, k := range tokens {
		if k&deflate.LongForm != 0 {
			h.Lit[deflate.FirstMatch+27]++
		}
	}
	h.Lit[deflate.EndSymbol]++
	for range g.IntN(5) {
		h.Lit[g.IntN(deflate.MaxLit)]++
		h.Dist[g.IntN(deflate.MaxDist)]++
	}
	g.code(t.Lit[:], h.Lit[:], deflate.MaxBits)
	g.code(t.Dist[:], h.Dist[:], deflate.MaxBits)
	t.NumLit, t.NumDist = g.span(t.Lit[:deflate.MaxLit], 257), g.span(t.Dist[:deflate.MaxDist], 1)
	g.runs(t)
	var count [deflate.NumCode]uint32
	for _, r := range t.Runs[:t.NumRuns] {
		count[uint8(r)]++
	}
	for i := range 2 { // that code must be complete
		count[i+g.IntN(4)]++
	}
	g.code(t.Code[:], count[:], deflate.MaxCode)
	for i, s := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		if t.Code[s] > 0 {
			t.NumCode = max(i+1, 4)
		}
	}
	t.NumCode += g.IntN(deflate.NumCode - t.NumCode + 1)
}

// span is how many lengths to write, at least least.
func (g *gen) span(lengths []uint8, least int) int {
	n := least
	for i, l := range lengths {
		if l > 0 {
			n = max(n, i+1)
		}
	}
	return n + g.IntN(len(lengths)-n+1)
}

// code makes a complete code of all symbols that are counted; a single one has
// one bit.
func (g *gen) code(lengths []uint8, count []uint32, longest uint8) {
	var symbols []int
	for s, n := range count {
		if n > 0 {
			symbols = append(symbols, s)
		}
	}
	leaves := []uint8{1, 1}
	for len(leaves) < len(symbols) {
		i := g.IntN(len(leaves))
		for leaves[i] == longest {
			i = g.IntN(len(leaves))
		}
		leaves[i]++
		leaves = append(leaves, leaves[i])
	}
	g.Shuffle(len(symbols), func(i, j int) { symbols[i], symbols[j] = symbols[j], symbols[i] })
	for i, s := range symbols {
		lengths[s] = leaves[i]
	}
}

// runs writes lengths in one of all ways.
func (g *gen) runs(t *deflate.Trees) {
	if rule := g.IntN(3); rule < runsOwn {
		usualRuns(t, rule == runsSeparate)
		return
	}
	all := allLengths(t)
	for n := 0; n < len(all); {
		same := 1
		for n+same < len(all) && all[n+same] == all[n] {
			same++
		}
		k, run := 1, uint16(all[n])
		switch {
		case g.IntN(3) == 0:
		case n > 0 && all[n-1] == all[n] && same >= 3 && g.IntN(2) == 0:
			k = 3 + g.IntN(min(same, 6)-2)
			run = 16 | uint16(k-3)<<8
		case all[n] == 0 && same >= 11:
			k = 11 + g.IntN(min(same, 138)-10)
			run = 18 | uint16(k-11)<<8
		case all[n] == 0 && same >= 3:
			k = 3 + g.IntN(min(same, 10)-2)
			run = 17 | uint16(k-3)<<8
		}
		t.Runs[t.NumRuns] = run
		t.NumRuns++
		n += k
	}
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 3)) }

// aimless compresses with matches of any length at any distance.
func aimless(content []byte) []byte {
	g := gen{Rand: seeded(1)}
	g.w.Out = append(g.w.Out, usualHead...)
	earlier := make(map[string][]int)
	for at := 0; at < len(content); {
		h := deflate.Header{Type: deflate.Dynamic}
		var tokens []deflate.Token
		for len(tokens) < 10_000 && at < len(content) {
			next := content[at:min(at+3, len(content))]
			list := earlier[string(next)]
			earlier[string(next)] = append(list, at)
			n, d := 1, 0
			if len(list) > 0 && len(next) == 3 {
				if d = at - list[g.IntN(len(list))]; d <= deflate.Window && g.IntN(2) == 0 {
					for n = 3; n < 3+g.IntN(20) && at+n < len(content) && content[at+n] == content[at+n-d]; n++ {
					}
				}
			}
			if n == 1 {
				tokens = append(tokens, deflate.Literal(content[at]))
			} else {
				tokens = append(tokens, deflate.Match(n, d))
			}
			at += n
		}
		h.Final = at == len(content)
		g.trees(&h.Trees, tokens)
		g.w.Block(&h, tokens)
	}
	if g.w.Count > 0 {
		g.w.Out = append(g.w.Out, byte(g.w.Bits))
	}
	trailer := deflate.GzipTrailer(crc32.ChecksumIEEE(content), uint32(len(content)))
	return append(g.w.Out, trailer[:]...)
}
