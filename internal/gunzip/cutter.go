package gunzip

import (
	"bytes"
	"sync"
	"sync/atomic"
)

// Segments that may be cut are wide enough that starting a goroutine for each
// costs little, and hold a block of 1 MiB that does not compress. If there is
// nothing to cut at they need not be so long.
const (
	segmentMin = 256 << 10
	segmentMax = segmentMin + 1200<<10
)

// patience is how many segments in a row may be without a border, or with a
// wrong one, until no more borders are looked for.
const patience = 4

var segments = sync.Pool{New: func() any { return &segment{room: make([]byte, headroom+segmentMax)} }}

// cutter cuts the input into segments.
type cutter struct {
	min     int          // length of a segment that may be cut: segmentMin, less in tests
	spec    *spec        // for the next segment
	failed  atomic.Int32 // speculations in a row
	without int          // segments in a row
	tail    []byte       // read, for the next segment
}

// judge counts failures.
func (c *cutter) judge(good bool) {
	if good {
		c.failed.Store(0)
	} else {
		c.failed.Add(1)
	}
}

// searches tells that borders are still looked for.
func (c *cutter) searches() bool { return c.without < patience && c.failed.Load() < patience }

// next reads the next segment. If the decoder waits for it, it may be short.
func (c *cutter) next(src *source, waits bool) *segment {
	g := segments.Get().(*segment).reset()
	g.spec, c.spec = c.spec, nil
	g.data = append(g.data, c.tail...)
	c.tail = c.tail[:0]
	want := c.min
	if waits {
		want = 1
	}
	if !src.fill(g, want, c.min) {
		g.last, g.err, g.spec = true, src.err, nil
		return g
	}
	if c.searches() && len(g.data) >= c.min {
		c.find(src, g)
	}
	return g
}

// find reads on to where the segment may end, step by step: what is behind that is
// copied.
func (c *cutter) find(src *source, g *segment) {
	for from := c.min; from < segmentMax-borderSize; {
		to := min(from+c.min/4, segmentMax)
		src.fill(g, to, to)
		at, member := border(g.data, from)
		if len(g.data) == to && to < segmentMax && (at < 0 || at > to-borderSize) {
			from = to - borderSize // what is there may be the beginning of more
			continue
		}
		if at < 0 {
			break
		}
		c.without = 0
		c.tail = append(c.tail, g.data[at:]...)
		g.data = g.data[:at]
		c.spec = newSpec(member)
		return
	}
	c.without++
}

// borderSize is within how many bytes a border can be told: a flush, the rest of
// a member's trailer, a magic number.
const borderSize = 16

// border finds where a block or member seems to begin, at least from on: behind
// an empty stored block, which is how encoders flush, or at the magic number of a
// member behind a trailer. It returns -1 if there is none.
func border(data []byte, from int) (at int, member bool) {
	at = -1
	if i := bytes.Index(data[from:], []byte{0, 0, 0xff, 0xff}); i >= 0 && from+i+4 < len(data) {
		at = from + i + 4
	}
	end := len(data)
	if at >= 0 {
		end = min(end, at+8+len(magic))
	}
	if i := bytes.Index(data[from:end], magic[:]); i >= 0 {
		return from + i, true
	}
	return at, false
}
