package recompress

import (
	"math/bits"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/internal/rangecoder"
)

// coder packs values, or unpacks them: the same calls in the same order do
// both. When it packs, a call returns the value it was given; when it unpacks,
// the value given does not matter.
type coder struct {
	packing bool
	enc     rangecoder.Encoder
	dec     rangecoder.Decoder
}

func (c *coder) pack() {
	c.packing = true
	c.enc.Reset()
}

func (c *coder) unpack(code []byte) {
	c.packing = false
	c.dec.Reset(code)
}

func (c *coder) bit(p *rangecoder.Prob, v int) int {
	if !c.packing {
		return c.dec.Bit(p)
	}
	c.enc.Bit(p, v)
	return v
}

func (c *coder) flag(p *rangecoder.Prob, v bool) bool {
	i := 0
	if v {
		i = 1
	}
	return c.bit(p, i) != 0
}

// direct takes n bits, at most 32, that nothing is known of.
func (c *coder) direct(v uint32, n int) uint32 {
	if !c.packing {
		return c.dec.Direct(n)
	}
	c.enc.Direct(v, n)
	return v
}

// tree takes a value of n bits, the highest first, each in the context of those
// before; probs has 1<<n elements.
func (c *coder) tree(probs []rangecoder.Prob, v, n int) int {
	at := 1
	for n--; n >= 0; n-- {
		at = at<<1 | c.bit(&probs[at], v>>n&1)
	}
	return at &^ len(probs)
}

// none is a number that is not there.
const none = -1

// number learns how large numbers are.
type number struct {
	size [32]rangecoder.Prob
	top  [31][4]rangecoder.Prob
}

// number takes a number from 0 to 1<<31-2, or none: the length of v+1 in bits as
// a tree, then its bits but the first, two of them in context.
func (c *coder) number(m *number, v int) int {
	size := bits.Len(uint(v + 1))
	if size = c.tree(m.size[:], size, 5); size == 0 {
		return none
	}
	n := size - 1
	low := uint32(v+1) & (1<<n - 1)
	k := min(n, 2)
	high := uint32(c.tree(m.top[n][:1<<k], int(low>>(n-k)), k))
	low = high<<(n-k) | c.direct(low&(1<<(n-k)-1), n-k)
	return int(1<<n|low) - 1
}

// structure is what is learnt of all but tokens.
type structure struct {
	outside [2][kinds]rangecoder.Prob // 0 a member, 1 anything else
	inside  [2][kinds]rangecoder.Prob // 0 as usual (a run; an empty block), 1 not

	sameHead   rangecoder.Prob
	headLength number
	headByte   [32]rangecoder.Prob
	zeros      rangecoder.Prob
	bytes      number

	toEnd    rangecoder.Prob
	open     rangecoder.Prob
	sameRun  rangecoder.Prob
	run      number
	explicit rangecoder.Prob // a stored block that is not predicted
	sameSize rangecoder.Prob
	stored   number
	final    [2]rangecoder.Prob // of a block with content; of one without
	padding  [2]rangecoder.Prob // before a stored block; at the end
	trailer  rangecoder.Prob
	empty    [4]rangecoder.Prob // type of a block without content

	header    rangecoder.Prob
	blockType [3][4]rangecoder.Prob
	trees     treesModel
}

// corrections is what is learnt of tokens.
type corrections struct {
	gap      [4]number
	class    [4][4][4]rangecoder.Prob
	full     [2]rangecoder.Prob
	shorter  [2]number
	longForm rangecoder.Prob
	dist     [32]rangecoder.Prob
	dense    denseModel
}

// class of a token that corrects a prediction.
const (
	classLiteral = iota
	classSame    // match of the distance predicted
	classMatch
	classEnd
)

func classOf(t, predicted deflate.Token) int {
	switch {
	case t == deflate.EndOfBlock:
		return classEnd
	case !t.IsMatch():
		return classLiteral
	case predicted.IsMatch() && t.Distance() == predicted.Distance():
		return classSame
	}
	return classMatch
}

// classBefore is the class of a prediction.
func classBefore(t deflate.Token) int {
	switch {
	case t == deflate.EndOfBlock:
		return classEnd
	case !t.IsMatch():
		return classLiteral
	}
	return classMatch
}
