//go:build amd64 || arm64

package deflate

import "unsafe"

// Loads and stores without bounds checks, for the inner loops alone: they make
// those a third faster.
//
// Why they stay inside: a loop is entered, and gone round again, only with
// tailRoom bytes of input and MinRoom elements of output left (the tests of pos
// and op at its head). One round refills twice, each time by 7 bytes at most,
// and loads 8 bytes at each: 15 of the input. It stores at most 3 pairs of
// literals, or 2 pairs and a match of MaxLength that may write 16 elements too
// many: 4 + 258 + 16 are less than MinRoom. A match loads from between low and
// op, tested against both, and from there on to what it has just stored.
// Positions are ints that only these tests let grow, so none wraps around.

func load64(b []byte, i int) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))
}

func store64(b []byte, i int, v uint64) {
	*(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i)) = v
}

func store16(b []byte, i int, v uint16) {
	*(*uint16)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i)) = v
}
