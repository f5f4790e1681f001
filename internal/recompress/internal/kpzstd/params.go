package kpzstd

import (
	"errors"
	"fmt"
	"math/bits"
)

// Level is one of the encoder's levels.
type Level uint8

// The levels that are modelled.
const (
	Fastest Level = 1 + iota
	Default
	Better
	Best
)

// Class is a range of versions that write the same bytes. Numbers are stored in
// recipes and never change their meaning.
type Class uint8

// The classes, each named after its first version.
const (
	V1_11  Class = iota // to 1.13.6, and 1.14.0 and 1.14.1 but for level "fastest"
	V1_14               // 1.14.2 to 1.15.9, "fastest" from 1.14.3
	V1_15               // 1.15.10 to 1.16.3
	V1_16               // 1.16.4 to 1.16.7
	V1_17               // 1.17.0 to 1.17.2
	V1_173              // 1.17.3 and 1.17.4
	V1_175              // 1.17.5 to 1.17.7, "best" from 1.17.6
	V1_178              // 1.17.8 to 1.20.2
	V1_203              // from 1.20.3
	numClasses
)

var classNames = [numClasses]string{
	"1.11 to 1.13", "1.14 to 1.15.9", "1.15.10 to 1.16.3", "1.16.4 to 1.16.7", "1.17.0 to 1.17.2",
	"1.17.3 and 1.17.4", "1.17.5 to 1.17.7", "1.17.8 to 1.20.2", "1.20.3",
}

// Bounds of Params. Windows above 16 MiB exist at level "best" alone, before
// V1_175, which is not modelled; tools that cut the first block do so once, after what they read
// to learn what the content is.
const (
	minWindowLog = 10
	maxWindowLog = 24
	maxCuts      = 4
)

// Params is all that the bytes of a frame depend on beside its content.
type Params struct {
	Class     Class
	Level     Level
	WindowLog uint8 // of the window, 10 to 24
	Checksum  bool
	// Size is that a frame of several blocks says how long its content is.
	// Frames of one block always do.
	Size uint64
	// Cuts are the lengths of the first blocks, if they are shorter than
	// blocks are: what was written before the rest was read. Without any, a
	// content that fits a block becomes a frame of one block.
	Cuts []uint32
	// Flush is that the encoder was flushed before the end: the last block with
	// content is not the last of the frame.
	Flush bool
}

// ErrUnknown is parameters of a later version.
var ErrUnknown = errors.New("unknown model of a zstd encoder")

var errParams = errors.New("invalid parameters of a zstd frame")

// blockSize is how long a block is.
func (p Params) blockSize() int {
	size := 128 << 10
	if p.Class == V1_11 || p.Level == Fastest {
		size = 64 << 10
	}
	return min(size, 1<<p.WindowLog)
}

func (p Params) check() error {
	switch {
	case p.Class >= numClasses || p.Level < Fastest || p.Level > Best || p.Level == Best && p.Class < V1_175:
		return ErrUnknown
	case p.WindowLog < minWindowLog || p.WindowLog > maxWindowLog || len(p.Cuts) > maxCuts:
		return errParams
	}
	for _, n := range p.Cuts {
		if n == 0 || int64(n) >= int64(p.blockSize()) {
			return errParams
		}
	}
	return nil
}

// String names the encoder for people.
func (p Params) String() string {
	name := "unknown"
	if p.Class < numClasses {
		name = classNames[p.Class]
	}
	level := "unknown"
	switch p.Level {
	case Fastest:
		level = "fastest"
	case Default:
		level = "default"
	case Better:
		level = "better"
	case Best:
		level = "best"
	}
	return fmt.Sprintf("klauspost zstd %s, %s", level, name)
}

const (
	flagChecksum = 1 << iota
	flagSize
	flagFlush
)

// AppendBinary appends the parameters in the form that ParseParams reads.
func (p Params) AppendBinary(b []byte) []byte {
	flags := byte(0)
	if p.Checksum {
		flags |= flagChecksum
	}
	if p.Size > 0 {
		flags |= flagSize
	}
	if p.Flush {
		flags |= flagFlush
	}
	b = append(b, byte(p.Class), byte(p.Level), p.WindowLog, flags)
	if p.Size > 0 {
		b = appendUvarint(b, p.Size)
	}
	b = append(b, byte(len(p.Cuts)))
	for _, n := range p.Cuts {
		b = appendUvarint(b, uint64(n))
	}
	return b
}

// ParseParams reads what AppendBinary wrote, and nothing else: b ends where the
// parameters do. An unknown class or level is an error.
func ParseParams(b []byte) (Params, error) {
	if len(b) < 5 {
		return Params{}, errParams
	}
	p := Params{Class: Class(b[0]), Level: Level(b[1]), WindowLog: b[2], Checksum: b[3]&flagChecksum != 0, Flush: b[3]&flagFlush != 0}
	flags, b := b[3], b[4:]
	if flags&^(flagChecksum|flagSize|flagFlush) != 0 {
		return Params{}, ErrUnknown
	}
	ok := true
	if flags&flagSize != 0 {
		if p.Size, b, ok = cutUvarint(b); !ok || p.Size == 0 {
			return Params{}, errParams
		}
	}
	if len(b) == 0 || b[0] > maxCuts {
		return Params{}, errParams
	}
	n, b := int(b[0]), b[1:]
	for range n {
		var v uint64
		if v, b, ok = cutUvarint(b); !ok || v > 128<<10 {
			return Params{}, errParams
		}
		p.Cuts = append(p.Cuts, uint32(v))
	}
	if len(b) > 0 {
		return Params{}, errParams
	}
	return p, p.check()
}

func appendUvarint(b []byte, v uint64) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// cutUvarint reads a number in its only form, the shortest.
func cutUvarint(b []byte) (v uint64, rest []byte, ok bool) {
	for i, c := range b {
		if i == 9 && c > 1 {
			return 0, nil, false
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, b[i+1:], i == 0 || c != 0
		}
		if i == 9 {
			break
		}
	}
	return 0, nil, false
}

// classSet has a bit for each class.
type classSet uint16

const allClasses classSet = 1<<numClasses - 1

func (s classSet) has(c Class) bool { return s>>c&1 != 0 }

// highest is the newest class of a set that is not empty.
func (s classSet) highest() Class { return Class(bits.Len16(uint16(s)) - 1) }

// sameSide is the classes that are, as c is, before first or from first on.
func sameSide(c, first Class) classSet {
	old := classSet(1)<<first - 1
	if c < first {
		return old
	}
	return allClasses &^ old
}
