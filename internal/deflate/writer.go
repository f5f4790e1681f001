package deflate

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// Writer appends blocks to Out. The zero value is ready; a stream that goes on
// in the midst of a byte sets Bits and Count first.
type Writer struct {
	Out   []byte
	Bits  uint64 // that do not fill a byte yet, the first in bit 0
	Count uint   // of Bits, 0 to 7 between calls

	lit  [NumLit]code
	dist [NumDist]code

	literals [256]bitString
	lengths  [256]bitString // by length - MinLength
	longForm bitString
}

// bitString is a code and what follows it: how many bits there are in bits 0 to
// 7, and from bit 8 on they are, the first in bit 8. It is 0 if there is no code.
type bitString uint64

// code is a Huffman code as it is written, its first bit in bit 0.
type code struct {
	bits uint16
	n    uint8
}

// put takes up to 48 bits while less than 16 are pending.
func (w *Writer) put(v uint64, n uint) {
	w.Bits |= v << w.Count
	w.Count += n
}

func (w *Writer) flush() {
	for w.Count >= 8 {
		w.Out = append(w.Out, byte(w.Bits))
		w.Bits >>= 8
		w.Count -= 8
	}
}

// Stored writes a stored block; content is at most MaxStored bytes.
func (w *Writer) Stored(h *Header, content []byte) {
	w.start(h)
	if w.Count > 0 {
		w.put(uint64(h.Padding)&(1<<(8-w.Count)-1), 8-w.Count)
	}
	w.flush()
	w.Out = binary.LittleEndian.AppendUint16(w.Out, uint16(len(content)))
	w.Out = binary.LittleEndian.AppendUint16(w.Out, ^uint16(len(content)))
	w.Out = append(w.Out, content...)
}

func (w *Writer) start(h *Header) {
	v := uint64(h.Type) << 1
	if h.Final {
		v |= 1
	}
	w.put(v, 3)
	w.flush()
}

// Block writes a fixed or dynamic block. It tells whether every token has a code;
// what it wrote otherwise means nothing.
func (w *Writer) Block(h *Header, tokens []Token) bool {
	w.start(h)
	if h.Type == Fixed {
		lit := FixedLit()
		assign(w.lit[:], lit[:])
		assign(w.dist[:], fixedDist[:])
	} else {
		w.trees(&h.Trees)
		assign(w.lit[:], h.Trees.Lit[:])
		assign(w.dist[:], h.Trees.Dist[:])
	}
	w.prepare()
	ok := w.tokens(tokens)
	end := w.lit[EndSymbol]
	w.put(uint64(end.bits), uint(end.n))
	w.flush()
	return ok && end.n > 0
}

var fixedDist = func() (l [NumDist]uint8) {
	for i := range l {
		l[i] = 5
	}
	return l
}()

func (w *Writer) trees(t *Trees) {
	w.put(uint64(t.NumLit-257)|uint64(t.NumDist-1)<<5|uint64(t.NumCode-4)<<10, 14)
	w.flush()
	for _, s := range codeOrder[:t.NumCode] {
		w.put(uint64(t.Code[s]), 3)
		w.flush()
	}
	var codes [NumCode]code
	assign(codes[:], t.Code[:])
	for _, r := range t.Runs[:t.NumRuns] {
		c := codes[uint8(r)]
		w.put(uint64(c.bits), uint(c.n))
		w.put(uint64(r>>8), RunExtra(uint8(r)))
		w.flush()
	}
}

// with is the code followed by n bits.
func (c code) with(v uint64, n uint8) bitString {
	if c.n == 0 {
		return 0
	}
	return bitString(uint64(c.bits)|v<<c.n)<<8 | bitString(c.n+n)
}

// prepare makes the tables of literals and lengths.
func (w *Writer) prepare() {
	for i := range w.literals {
		w.literals[i] = w.lit[i].with(0, 0)
	}
	for i := range w.lengths {
		s := lengthSymbols[i]
		w.lengths[i] = w.lit[FirstMatch+int(s)].with(uint64(i+MinLength)-uint64(LengthBase[s]), LengthExtra[s])
	}
	w.longForm = w.lit[FirstMatch+27].with(31, 5)
}

// Tokens that are written with one look at the room there is, and the most bytes
// of one: 15 and 5 bits of length, 15 and 13 of distance.
const (
	writeTokens = 4096
	tokenBytes  = 6
)

// tokens writes tokens, and tells whether all have codes.
func (w *Writer) tokens(tokens []Token) bool {
	missing := uint(0)
	for len(tokens) > 0 {
		some := tokens[:min(len(tokens), writeTokens)]
		tokens = tokens[len(some):]
		w.Out = slices.Grow(w.Out, len(some)*tokenBytes+8)
		out, at, bits, count := w.Out[:cap(w.Out)], len(w.Out), w.Bits, w.Count
		for _, t := range some {
			if !t.IsMatch() {
				s := w.literals[uint8(t)]
				bits |= uint64(s>>8) << (count & 63)
				missing |= uint(s&0xff) - 1
				count += uint(s & 0xff)
			} else {
				s := w.lengths[t>>15&0xff]
				if t&LongForm != 0 {
					s = w.longForm
				}
				bits |= uint64(s>>8) << (count & 63)
				count += uint(s & 0xff)
				d := t.DistSymbol()
				c := w.dist[d&31]
				bits |= uint64(c.bits) << (count & 63)
				count += uint(c.n)
				missing |= (uint(s&0xff) - 1) | (uint(c.n) - 1)
				bits |= (uint64(t&0x7fff) - uint64(DistBase[d])) << (count & 63)
				count += uint(DistExtra[d])
			}
			binary.LittleEndian.PutUint64(out[at:], bits)
			at += int(count >> 3)
			bits >>= count &^ 7 & 63
			count &= 7
		}
		w.Out, w.Bits, w.Count = w.Out[:at], bits, count
	}
	return missing>>8 == 0
}

// assign gives canonical codes to lengths (RFC 1951, section 3.2.2).
func assign(codes []code, lengths []uint8) {
	var count, next [MaxBits + 2]uint16
	for _, n := range lengths {
		count[n]++
	}
	count[0] = 0
	for n := 1; n <= MaxBits; n++ {
		next[n+1] = (next[n] + count[n]) << 1
	}
	for i, n := range lengths {
		codes[i] = code{}
		if n > 0 {
			codes[i] = code{bits: bits.Reverse16(next[n]) >> (16 - n), n: n}
			next[n]++
		}
	}
}
