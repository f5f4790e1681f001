//go:build amd64 || arm64

package deflate

import "unsafe"

// Loads and stores without bounds checks, for the inner loops alone, which are a
// sixth faster for it.
//
// Why they stay inside. A loop is gone round only with tailRoom bytes of input
// and MinRoom elements of output left (the tests of pos and op at its head).
// Input: there are at most two refills in a round; each moves pos by 7 at most
// and loads 8 bytes: 7 + 8 are less than tailRoom; and one before the loop, which
// enterRoom is for. Output: a round stores at most 3 literals, or 2 and a match of
// MaxLength, which may write 15 too many: 2 + 258 + 15 are less than MinRoom. A
// match loads from low (low <= op-distance is tested before) to what it has
// stored, and less than 16 elements beyond that. Positions are ints that only
// these steps move, so none wraps around.

func load64(b []byte, i int) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))
}

func store64(b []byte, i int, v uint64) {
	*(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i)) = v
}

func store8(b []byte, i int, v uint8) {
	*(*uint8)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i)) = v
}

// copy4 copies 4 values. They do not overlap.
func copy4(b []uint16, to, from int) {
	p := unsafe.Pointer(unsafe.SliceData(b))
	*(*uint64)(unsafe.Add(p, 2*to)) = *(*uint64)(unsafe.Add(p, 2*from))
}

func store16(b []uint16, i int, v uint16) {
	*(*uint16)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), 2*i)) = v
}
