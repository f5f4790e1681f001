package goflate

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// The only file with unsafe code: what the search for matches loads, without
// bounds checks, which cost it a fifth of its time. p is the first byte of
// Input.Data. The callers hold to
//
//	load32(p, i): 0 <= i, i+4 <= len(Data)
//	common(p, a, b, n): 0 <= a < b, b+n <= len(Data)
//
// because chains has none but positions q with q+4 <= len(Data), candidates are
// checked to be in front of the position that is searched for and not in front
// of the window, and lengths never to reach over the end of Data.

func load32(p unsafe.Pointer, i int) uint32 {
	return binary.LittleEndian.Uint32((*[4]byte)(unsafe.Add(p, i))[:])
}

func load64(p unsafe.Pointer, i int) uint64 {
	return binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(p, i))[:])
}

func load8(p unsafe.Pointer, i int) byte { return *(*byte)(unsafe.Add(p, i)) }

// common counts equal bytes at a and b, up to n.
func common(p unsafe.Pointer, a, b, n int) int {
	k := 0
	for k+8 <= n {
		if x := load64(p, a+k) ^ load64(p, b+k); x != 0 {
			return k + bits.TrailingZeros64(x)>>3
		}
		k += 8
	}
	for k < n && load8(p, a+k) == load8(p, b+k) {
		k++
	}
	return k
}
