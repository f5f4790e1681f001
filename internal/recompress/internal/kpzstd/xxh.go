package kpzstd

import (
	"encoding/binary"
	"math/bits"
)

const (
	xxhP1 uint64 = 0x9E3779B185EBCA87
	xxhP2 uint64 = 0xC2B2AE3D27D4EB4F
	xxhP3 uint64 = 0x165667B19E3779F9
	xxhP4 uint64 = 0x85EBCA77C2B2AE63
	xxhP5 uint64 = 0x27D4EB2F165667C5
)

// xxh64 is XXH64 with seed 0, the checksum of zstd frames.
type xxh64 struct {
	v     [4]uint64
	total uint64
	tail  [32]byte
	n     int // bytes in tail
}

func (h *xxh64) reset() {
	p1 := xxhP1
	*h = xxh64{v: [4]uint64{p1 + xxhP2, xxhP2, 0, -p1}}
}

func xxhRound(acc, in uint64) uint64 {
	return bits.RotateLeft64(acc+in*xxhP2, 31) * xxhP1
}

func (h *xxh64) stripes(p []byte) []byte {
	v0, v1, v2, v3 := h.v[0], h.v[1], h.v[2], h.v[3]
	for len(p) >= 32 {
		q := p[:32]
		v0 = xxhRound(v0, binary.LittleEndian.Uint64(q[0:8]))
		v1 = xxhRound(v1, binary.LittleEndian.Uint64(q[8:16]))
		v2 = xxhRound(v2, binary.LittleEndian.Uint64(q[16:24]))
		v3 = xxhRound(v3, binary.LittleEndian.Uint64(q[24:32]))
		p = p[32:]
	}
	h.v = [4]uint64{v0, v1, v2, v3}
	return p
}

func (h *xxh64) write(p []byte) {
	h.total += uint64(len(p))
	if h.n > 0 {
		k := copy(h.tail[h.n:], p)
		h.n += k
		p = p[k:]
		if h.n < len(h.tail) {
			return
		}
		h.stripes(h.tail[:])
		h.n = 0
	}
	p = h.stripes(p)
	h.n = copy(h.tail[:], p)
}

func (h *xxh64) sum() uint64 {
	s := xxhP5
	if h.total >= 32 {
		s = bits.RotateLeft64(h.v[0], 1) + bits.RotateLeft64(h.v[1], 7) + bits.RotateLeft64(h.v[2], 12) + bits.RotateLeft64(h.v[3], 18)
		for _, v := range h.v {
			s = (s^xxhRound(0, v))*xxhP1 + xxhP4
		}
	}
	s += h.total
	p := h.tail[:h.n]
	for ; len(p) >= 8; p = p[8:] {
		s = bits.RotateLeft64(s^xxhRound(0, binary.LittleEndian.Uint64(p)), 27)*xxhP1 + xxhP4
	}
	if len(p) >= 4 {
		s = bits.RotateLeft64(s^uint64(binary.LittleEndian.Uint32(p))*xxhP1, 23)*xxhP2 + xxhP3
		p = p[4:]
	}
	for _, c := range p {
		s = bits.RotateLeft64(s^uint64(c)*xxhP5, 11) * xxhP1
	}
	s = (s ^ s>>33) * xxhP2
	s = (s ^ s>>29) * xxhP3
	return s ^ s>>32
}
