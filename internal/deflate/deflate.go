// Package deflate has the facts of the deflate format (RFC 1951): what a stream
// is made of, a parser that takes one apart without losing a bit, and a writer
// that puts the parts together again. It knows nothing of how an encoder finds
// matches, and nothing of images.
package deflate

import "errors"

// Bounds of the format (RFC 1951, sections 3.2.5 to 3.2.7).
const (
	Window    = 32768 // how far back a match reaches
	MinLength = 3     // of a match
	MaxLength = 258   // of a match
	MaxStored = 65535 // content of a stored block

	MaxLit     = 286 // literal and length symbols in use
	MaxDist    = 30  // distance symbols in use
	NumLit     = 288 // symbols that have a code in a fixed block
	NumDist    = 32
	NumCode    = 19 // symbols of the code for code lengths
	MaxBits    = 15 // length of a code
	MaxCode    = 7  // length of a code for code lengths
	EndSymbol  = 256
	FirstMatch = 257 // symbol of the shortest lengths
)

// Bounds of this package. Known encoders end a block after at most 65536
// tokens, zopfli and libdeflate after a megabyte or so of content; more in one
// block is ErrTooLarge.
const (
	MaxBlockTokens  = 1 << 21
	MaxBlockContent = 16 << 20
)

var (
	// ErrFormat is that the bytes are no deflate stream.
	ErrFormat = errors.New("invalid deflate stream")
	// ErrTooLarge is a block beyond the bounds of this package.
	ErrTooLarge = errors.New("deflate block too large")
)

// Token is a literal, a match, or the end of a block.
//
// A literal is its byte. A match is matchBit, its length less 3 in bits 15 to
// 22, and its distance less 1 in bits 0 to 14. LongForm is set in a match of
// 258 bytes that is written as symbol 284 and not 285.
type Token uint32

const (
	matchBit = 1 << 23
	// LongForm marks a match of 258 bytes written as symbol 284 with extra
	// bits 31.
	LongForm Token = 1 << 24
	// EndOfBlock is what follows the last literal or match of a block.
	EndOfBlock Token = 1 << 25
)

// Literal is the token of a byte.
func Literal(b byte) Token { return Token(b) }

// Match is the token of length bytes, 3 to 258, from distance bytes back, 1 to
// 32768.
func Match(length, distance int) Token {
	return matchBit | Token(length-MinLength)<<15 | Token(distance-1)
}

// IsMatch tells a match from a literal and the end of a block.
func (t Token) IsMatch() bool { return t&matchBit != 0 }

// Length is the number of bytes that a literal or match stands for; 0 for
// EndOfBlock.
func (t Token) Length() int {
	switch {
	case t.IsMatch():
		return int(t>>15&0xff) + MinLength
	case t == EndOfBlock:
		return 0
	}
	return 1
}

// Length is the number of bytes that literals and matches stand for; none is
// EndOfBlock.
func Length(tokens []Token) int {
	n := len(tokens)
	for _, t := range tokens {
		v := t >> 15 & 0x1ff // 0 of a literal
		n += int(v&0xff + v>>8<<1)
	}
	return n
}

// Distance of a match.
func (t Token) Distance() int { return int(t&0x7fff) + 1 }

// Type is the kind of a block, as its header has it.
type Type uint8

const (
	Stored  Type = 0
	Fixed   Type = 1
	Dynamic Type = 2
)

// Header is all of a block but its tokens or stored bytes. The zero values of
// what the type does not use are required, so that headers compare with ==.
type Header struct {
	Type  Type
	Final bool
	// Padding holds the bits, 0 to 7, that fill the last byte before the length
	// of a stored block. Encoders write zeros.
	Padding uint8
	Trees   Trees // of a dynamic block
}

// Trees are the codes of a dynamic block (RFC 1951, section 3.2.7): what they
// are, and how they are written down.
type Trees struct {
	Lit  [NumLit]uint8  // lengths of the codes of literals and lengths
	Dist [NumDist]uint8 // lengths of the codes of distances

	NumLit  int            // of Lit that are written, HLIT + 257
	NumDist int            // of Dist, HDIST + 1
	NumCode int            // of Code in the order of codeOrder, HCLEN + 4
	Code    [NumCode]uint8 // lengths of the codes for code lengths

	// Runs is how the lengths are written: NumRuns symbols of the code for code
	// lengths, the extra bits of 16, 17 and 18 in bits 8 and up.
	Runs    [NumLit + NumDist]uint16
	NumRuns int
}

// Block is a block taken apart. Tokens do not include the end of the block.
type Block struct {
	Header
	Length int // bytes of content
}

var codeOrder = [NumCode]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// RunExtra is the number of extra bits of a symbol of the code for code
// lengths.
func RunExtra(symbol uint8) uint {
	switch symbol {
	case Repeat:
		return 2
	case Zeros:
		return 3
	case ManyZeros:
		return 7
	}
	return 0
}

// LengthBase and LengthExtra give the shortest length and the number of extra
// bits of the symbols from FirstMatch on; DistBase and DistExtra those of
// distance symbols.
var (
	LengthBase  = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	LengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	DistBase    [MaxDist]uint16 // less 1
	DistExtra   [MaxDist]uint8
)

var (
	lengthSymbols [256]uint8 // of length-3, less FirstMatch
	distSymbols   [512]uint8 // of distance-1 below 256; above, of (distance-1)>>7 at 256+
)

func init() {
	for s := range LengthBase {
		for x := range 1 << LengthExtra[s] {
			if l := int(LengthBase[s]) + x - MinLength; l < 255 {
				lengthSymbols[l] = uint8(s)
			}
		}
	}
	lengthSymbols[255] = 28
	base := 0
	for s := range DistBase {
		DistExtra[s] = uint8(max(s/2-1, 0))
		DistBase[s] = uint16(base)
		for d := base; d < base+1<<DistExtra[s]; {
			if d < 256 {
				distSymbols[d] = uint8(s)
				d++
			} else {
				distSymbols[256+d>>7] = uint8(s)
				d += 1 << 7
			}
		}
		base += 1 << DistExtra[s]
	}
	initTables()
}

// LengthSymbol is the symbol of a match's length, from FirstMatch on. A LongForm
// match has 284.
func (t Token) LengthSymbol() int {
	if t&LongForm != 0 {
		return FirstMatch + 27
	}
	return FirstMatch + int(lengthSymbols[t>>15&0xff])
}

// DistSymbol is the symbol of a match's distance.
func (t Token) DistSymbol() int {
	d := t & 0x7fff
	if d >= 256 {
		d = 256 + d>>7
	}
	return int(distSymbols[d])
}

// Histogram counts the symbols of tokens, without the end of the block.
type Histogram struct {
	Lit  [NumLit]uint32
	Dist [NumDist]uint32
}

// Count adds tokens to the histogram.
func (h *Histogram) Count(tokens []Token) {
	if len(tokens) > manyTokens {
		h.countMany(tokens)
		return
	}
	for _, t := range tokens {
		if !t.IsMatch() {
			h.Lit[uint8(t)]++
			continue
		}
		h.Lit[t.LengthSymbol()]++
		h.Dist[t.DistSymbol()]++
	}
}

const manyTokens = 512 // for which countMany is faster

// countMany is Count without asking of each token what it is.
func (h *Histogram) countMany(tokens []Token) {
	var all [1 << 10]uint32 // literals, then lengths, from 3<<8 on those in long form
	var dist [2][NumDist]uint32
	for _, t := range tokens {
		v := t >> 15 & 0x3ff // 0 of a literal
		all[v|t&(v>>8&1-1)&0xff]++
		d := t & 0x7fff
		if d >= 256 {
			d = 256 + d>>7
		}
		dist[v>>8&1][distSymbols[d]&31]++
	}
	for c := range 256 {
		h.Lit[c] += all[c]
		h.Lit[FirstMatch+int(lengthSymbols[c])] += all[1<<8+c]
		h.Lit[FirstMatch+27] += all[3<<8+c]
	}
	for s, n := range dist[1] {
		h.Dist[s] += n
	}
}

// FixedLit gives the lengths of the codes of a fixed block's literals and
// lengths; all distances have 5 bits (RFC 1951, section 3.2.6).
func FixedLit() (l [NumLit]uint8) {
	for i := range l {
		switch {
		case i < 144:
			l[i] = 8
		case i < 256:
			l[i] = 9
		case i < 280:
			l[i] = 7
		default:
			l[i] = 8
		}
	}
	return l
}
