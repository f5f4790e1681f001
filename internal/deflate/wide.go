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
// these steps move, so none wraps around. Bits of what is unknown: they are one
// for each byte of output and 128 more, which InflateUnknown tests. Redo: copies
// are in order, and it tests the last.

func load64(b []byte, i int) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))
}

func store64(b []byte, i int, v uint64) {
	*(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i)) = v
}

func store8(b []byte, i int, v uint8) {
	*(*uint8)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i)) = v
}
