// Package recipe writes and reads the recipes of a bundle in chunk mode: how
// each tar is put together from ranges of bytes, and which ranges the segments
// of contents are compressed behind.
//
// docs/bundle-format.md specifies the bytes in its chapters Numbers, Extents
// and Recipes. In its terms: a tar is heads and bodies in turn; a run is one
// head and the body after it; heads and bodies are each a list of extents,
// ranges of a source. Source 0 is the contents of the bundle's segments;
// source k, from 1, is a tar that the reader has from elsewhere.
//
// Nothing here reads a source: a Set is bytes that have been unpacked, and its
// recipes are walked when they are needed, in memory that does not grow with
// them. All input is taken for hostile; what breaks a rule of the format is a
// *FormatError.
package recipe

import "fmt"

// Extent is a range of bytes of a source.
type Extent struct {
	Source         int
	Offset, Length int64
}

// Run is the lengths of a head and of the body after it; either may be 0.
type Run struct{ Head, Body int64 }

// Tar is how one tar is put together: the extents of Heads, one after the
// other, are as long as all heads together, those of Bodies as all bodies.
type Tar struct {
	Runs          []Run
	Heads, Bodies []Extent
}

// Bounds of the format.
const (
	MaxUnpacked      = 256 << 20 // of all recipes; they stay in memory while a bundle is open
	MaxPrefix        = 256 << 20 // bytes of a prefix
	MaxPrefixExtents = 1 << 20   // of a prefix, which is read whole: 24 MiB
	maxOffset        = 1 << 40   // of a source that is not the contents; no tar is larger
)

// FormatError reports recipes that are not what the format says.
type FormatError struct{ Err error }

func (e *FormatError) Error() string { return e.Err.Error() }
func (e *FormatError) Unwrap() error { return e.Err }

func bad(format string, args ...any) error {
	return &FormatError{fmt.Errorf(format, args...)}
}

// blockSize is that of a tar, on which the expected length of a head rests.
const blockSize = 512

// expectedHead is how long a head is expected to be behind a body: its padding
// and one header. Before the first head there is a body of 0.
func expectedHead(body int64) int64 { return blockSize + -body&(blockSize-1) }
