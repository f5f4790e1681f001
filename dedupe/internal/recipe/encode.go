package recipe

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// Encode writes the recipes of all tars and the prefixes of all segments, in their
// order; the same recipes give the same bytes. Extents that follow one another
// in their source are joined, empty ones left out. Extents that are longer or
// shorter than what they make up are an error, and so is a bound of the format
// that is passed (a *FormatError).
func Encode(tars []Tar, prefixes [][]Extent) ([]byte, error) {
	raw, err := appendSet(nil, tars, prefixes)
	if err != nil {
		return nil, err
	}
	// The level's own window, or a smaller one that holds all: the same bytes.
	window := min(16<<20, max(zstd.MinWindowSize, 1<<bits.Len(uint(len(raw)))))
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return w.EncodeAll(raw, nil), nil
}

// appendSet is the content of the frame.
func appendSet(b []byte, tars []Tar, prefixes [][]Extent) ([]byte, error) {
	var one []byte
	var err error
	for i, t := range tars {
		if one, err = appendRecipe(one[:0], t); err != nil {
			return nil, fmt.Errorf("recipe %d: %w", i, err)
		}
		b = binary.AppendUvarint(b, uint64(len(one)))
		b = append(b, one...)
	}
	for i, p := range prefixes {
		length, count := int64(0), 0
		if b, length, count, err = appendExtents(b, p, 1); err != nil {
			return nil, fmt.Errorf("prefix %d: %w", i, err)
		}
		if length > MaxPrefix || count > MaxPrefixExtents {
			return nil, bad("prefix %d is of %d bytes in %d extents, more than %d in %d", i, length, count, MaxPrefix, MaxPrefixExtents)
		}
	}
	if len(b) > MaxUnpacked {
		return nil, bad("recipes of %d bytes are larger than %d", len(b), MaxUnpacked)
	}
	return b, nil
}

func appendRecipe(b []byte, t Tar) ([]byte, error) {
	var heads, bodies, body int64
	b = binary.AppendUvarint(b, uint64(len(t.Runs)))
	for _, r := range t.Runs {
		if r.Head < 0 || r.Body < 0 {
			return nil, fmt.Errorf("a run of %d and %d bytes", r.Head, r.Body)
		}
		b = binary.AppendVarint(b, r.Head-expectedHead(body))
		body = r.Body
		heads, bodies = heads+r.Head, bodies+r.Body
	}
	for _, r := range t.Runs {
		b = binary.AppendUvarint(b, uint64(r.Body))
	}
	b, inHeads, _, err := appendExtents(b, t.Heads, 0)
	if err != nil {
		return nil, fmt.Errorf("heads: %w", err)
	}
	b, inBodies, _, err := appendExtents(b, t.Bodies, 0)
	if err != nil {
		return nil, fmt.Errorf("bodies: %w", err)
	}
	if inHeads != heads || inBodies != bodies {
		return nil, fmt.Errorf("extents of %d and %d bytes for heads of %d and bodies of %d", inHeads, inBodies, heads, bodies)
	}
	return b, nil
}

// appendExtents writes a list of extents, of sources from first on, and says
// how long they are together and how many there are once they are joined.
func appendExtents(b []byte, list []Extent, first int) (_ []byte, length int64, count int, err error) {
	list = joined(list)
	b = binary.AppendUvarint(b, uint64(len(list)))
	ends := map[int]int64{}
	source := 0
	for _, e := range list {
		if e.Source < first || e.Offset < 0 || e.Length < 0 {
			return nil, 0, 0, fmt.Errorf("extent %+v", e)
		}
		if e.Source == source {
			b = binary.AppendUvarint(b, uint64(e.Length)<<1)
		} else {
			source = e.Source
			b = binary.AppendUvarint(b, uint64(e.Length)<<1|1)
			b = binary.AppendUvarint(b, uint64(source))
		}
		b = binary.AppendVarint(b, e.Offset-ends[source])
		ends[source] = e.Offset + e.Length
		length += e.Length
	}
	return b, length, len(list), nil
}

// joined makes one extent of those that follow one another in their source.
func joined(list []Extent) []Extent {
	out := make([]Extent, 0, len(list))
	for _, e := range list {
		if e.Length == 0 {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Source == e.Source && out[n-1].Offset+out[n-1].Length == e.Offset {
			out[n-1].Length += e.Length
			continue
		}
		out = append(out, e)
	}
	return out
}
