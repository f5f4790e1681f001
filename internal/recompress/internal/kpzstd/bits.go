package kpzstd

import "encoding/binary"

// bitWriter packs bits, first ones lowest. It keeps less than 8 bits after a
// flush and needs 8 bytes of room in buf behind pos.
type bitWriter struct {
	buf []byte
	pos int
	acc uint64
	n   uint // bits in acc
}

// add appends the lowest n bits of v, which has no others.
func (w *bitWriter) add(v uint64, n uint) {
	w.acc |= v << (w.n & 63)
	w.n += n
}

func (w *bitWriter) flush() {
	binary.LittleEndian.PutUint64(w.buf[w.pos:], w.acc)
	w.pos += int(w.n >> 3)
	w.acc >>= w.n & 56
	w.n &= 7
}

// end appends the bit that marks the end, and fills up the byte.
func (w *bitWriter) end() {
	w.add(1, 1)
	w.flush()
	if w.n > 0 {
		w.pos++
	}
	w.acc, w.n = 0, 0
}
