package deflate

import (
	"encoding/binary"
	"math/bits"
)

// Writer appends blocks to Out. The zero value is ready; a stream that goes on
// in the midst of a byte sets Bits and Count first.
type Writer struct {
	Out   []byte
	Bits  uint64 // that do not fill a byte yet, the first in bit 0
	Count uint   // of Bits, 0 to 7 between calls

	lit  [NumLit]code
	dist [NumDist]code
}

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

// Block writes a fixed or dynamic block. Every token must have a code.
func (w *Writer) Block(h *Header, tokens []Token) {
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
	w.tokens(tokens)
	end := w.lit[EndSymbol]
	w.put(uint64(end.bits), uint(end.n))
	w.flush()
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

func (w *Writer) tokens(tokens []Token) {
	for _, t := range tokens {
		if !t.IsMatch() {
			c := w.lit[uint8(t)]
			w.put(uint64(c.bits), uint(c.n))
		} else {
			s := t.LengthSymbol()
			c := w.lit[s]
			w.put(uint64(c.bits), uint(c.n))
			w.put(uint64(t.Length())-uint64(LengthBase[s-FirstMatch]), uint(LengthExtra[s-FirstMatch]))
			d := t.DistSymbol()
			c = w.dist[d]
			w.put(uint64(c.bits), uint(c.n))
			w.put(uint64(t&0x7fff)-uint64(DistBase[d]), uint(DistExtra[d]))
		}
		w.flush()
	}
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
