// Package segment compresses the contents of a chunk-mode bundle, a piece at a
// time, and gives them back: the chapter "Segments" of docs/bundle-format.md.
//
// A segment is a skippable frame with a table and then independent zstd
// frames. Their contents are the literals. Where long matches were found, the
// table also holds copies, three columns of numbers, and the content is what
// the literals and the copies make behind the prefix: bytes that both sides
// have already. Without copies any zstd program reads a segment.
//
// The parts are: the matcher (match.go) finds copies at any distance; the
// encoder (encode.go) cuts and compresses what is left; the table (table.go)
// and the columns (copies.go) are read by one reader, that of Decode, which
// the encoder uses too, to prove every segment before it is returned. How
// segments are laid out, named and hashed is the caller's business.
package segment

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Level says how much work compression may be. The zero value is Default.
type Level string

// The levels.
const (
	Fast    Level = "fast"    // no copies, the fastest compression
	Default Level = "default" // copies over a whole segment
	Max     Level = "max"     // larger segments and frames, the best compression
)

// The bounds of the format.
const (
	MaxContent = 256 << 20 // of a segment's content
	MaxPrefix  = 256 << 20 // of a prefix
	MaxFrame   = 16 << 20  // of a frame's content
	MaxCopies  = 64 << 20  // of the three columns together
)

type settings struct {
	size, frame int
	level       zstd.EncoderLevel
	match       bool
}

func (l Level) settings() settings {
	switch l {
	case Fast:
		return settings{64 << 20, 8 << 20, zstd.SpeedFastest, false}
	case Max:
		return settings{256 << 20, MaxFrame, zstd.SpeedBestCompression, true}
	}
	return settings{128 << 20, 4 << 20, zstd.SpeedDefault, true}
}

// Size is how much content a segment of this level should hold, in bytes. The
// last segment of a bundle holds less.
func (l Level) Size() int { return l.settings().size }

// FormatError reports a segment that is not what the format says, or does not
// give the content it should.
type FormatError struct{ Err error }

func (e *FormatError) Error() string { return "segment: " + e.Err.Error() }
func (e *FormatError) Unwrap() error { return e.Err }

func badf(format string, args ...any) error {
	return &FormatError{fmt.Errorf(format, args...)}
}
