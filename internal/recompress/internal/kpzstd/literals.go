package kpzstd

import "encoding/binary"

// huffResult is how literals are best written.
type huffResult uint8

const (
	asTheyAre huffResult = iota
	oneByte              // all the same
	newTable
	oldTable
)

// huffCoder writes literals, with a new table or the last one.
type huffCoder struct {
	last  *huffTable
	spare *huffTable
	reuse bool // the last table may be used
	build *huffBuilder
}

func newHuffCoder() huffCoder {
	return huffCoder{last: new(huffTable), spare: new(huffTable), build: new(huffBuilder)}
}

// fewerBits: literals that do not become shorter by a part of 1<<fewerBits stay as they are.
const fewerBits = 4

// encode appends in, written in one or in four streams, to out, which has room,
// and says how that was done. Nothing is appended if it is asTheyAre or oneByte.
func (h *huffCoder) encode(out, in []byte, four bool) ([]byte, huffResult) {
	if !h.reuse {
		h.last.symbols = 0
	}
	var hist [256]uint32
	histogram(&hist, in)
	symbols, most := 0, uint32(0)
	for i, c := range hist {
		if c > 0 {
			symbols = i + 1
			most = max(most, c)
		}
	}
	count := hist[:symbols]
	if int(most) >= len(in) {
		if len(in) == 1 {
			return out, asTheyAre
		}
		return out, oneByte
	}
	if most == 1 || int(most) < len(in)>>7 {
		return out, asTheyAre
	}
	want := len(in) - len(in)>>fewerBits
	h.build.build(h.spare, count, len(in))
	if h.reuse && h.last.covers(count) {
		if h.last.size(count) <= h.spare.size(count) || 12 >= want {
			b := appendCoded(out, in, h.last, four)
			if len(b)-len(out) >= want {
				return out, asTheyAre
			}
			return b, oldTable
		}
	}
	b, ok := h.build.appendTable(out, h.spare)
	if !ok {
		return out, asTheyAre
	}
	b = appendCoded(b, in, h.spare, four)
	if len(b)-len(out) >= want {
		return out, asTheyAre
	}
	h.last, h.spare = h.spare, h.last
	return b, newTable
}

// histogram counts bytes in four tables, because equal neighbours would wait for
// each other.
func histogram(hist *[256]uint32, in []byte) {
	var a, b, c [256]uint32
	for len(in) >= 8 {
		v := binary.LittleEndian.Uint64(in)
		hist[uint8(v)]++
		a[uint8(v>>8)]++
		b[uint8(v>>16)]++
		c[uint8(v>>24)]++
		hist[uint8(v>>32)]++
		a[uint8(v>>40)]++
		b[uint8(v>>48)]++
		c[uint8(v>>56)]++
		in = in[8:]
	}
	for _, v := range in {
		hist[v]++
	}
	for i := range hist {
		hist[i] += a[i] + b[i] + c[i]
	}
}

// appendCoded appends in as one stream, or as four with their lengths before them.
func appendCoded(out, in []byte, t *huffTable, four bool) []byte {
	if !four {
		return appendStream(out, in, t)
	}
	at := len(out)
	out = append(out, 0, 0, 0, 0, 0, 0)
	part := (len(in) + 3) / 4
	for i := range 4 {
		n := min(part, len(in))
		from := len(out)
		out = appendStream(out, in[:n], t)
		in = in[n:]
		if i < 3 {
			binary.LittleEndian.PutUint16(out[at+2*i:], uint16(len(out)-from))
		}
	}
	return out
}

// appendStream writes bytes from the last to the first. out has room.
func appendStream(out, in []byte, t *huffTable) []byte {
	codes := &t.codes
	buf := out[:cap(out)]
	pos := len(out)
	var acc uint64
	var n uint
	for len(in)&3 != 0 {
		c := codes[in[len(in)-1]]
		acc |= uint64(c&0xffff) << (n & 63)
		n += uint(c >> 16)
		in = in[:len(in)-1]
	}
	for len(in) >= 4 {
		binary.LittleEndian.PutUint64(buf[pos:], acc)
		pos += int(n >> 3)
		acc >>= n & 56
		n &= 7
		v := binary.LittleEndian.Uint32(in[len(in)-4:])
		in = in[:len(in)-4]
		c3, c2, c1, c0 := codes[uint8(v>>24)], codes[uint8(v>>16)], codes[uint8(v>>8)], codes[uint8(v)]
		n3 := uint(c3 >> 16)
		n2 := n3 + uint(c2>>16)
		n1 := n2 + uint(c1>>16)
		four := uint64(c3&0xffff) | uint64(c2&0xffff)<<(n3&63) | uint64(c1&0xffff)<<(n2&63) | uint64(c0&0xffff)<<(n1&63)
		acc |= four << (n & 63)
		n += n1 + uint(c0>>16)
	}
	w := bitWriter{buf: buf, pos: pos, acc: acc, n: n}
	w.flush()
	w.end()
	return buf[:w.pos]
}
