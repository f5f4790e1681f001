package dedupe

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/split"
)

// spoolWriter appends to the file that holds contents until their order is
// known.
type spoolWriter struct {
	file *os.File
	need int64 // what it holds at most, in bytes
	buf  []byte
	end  int64 // of what is in the file
}

// spoolBuffer is how much is written to the spool at a time.
const spoolBuffer = 1 << 20

// append returns where p will lie.
func (s *spoolWriter) append(p []byte) (at int64, err error) {
	at = s.end + int64(len(s.buf))
	if s.buf = append(s.buf, p...); len(s.buf) >= spoolBuffer {
		err = s.flush()
	}
	return at, err
}

// flush writes what is in memory; the spool can then be read.
func (s *spoolWriter) flush() error {
	n, err := s.file.WriteAt(s.buf, s.end)
	s.end += int64(n)
	s.buf = s.buf[:0]
	if err != nil {
		return fmt.Errorf("write temporary data, of up to %d bytes: %w", s.need, err)
	}
	return nil
}

// reset empties the spool and gives its space back.
func (s *spoolWriter) reset() error {
	s.buf, s.end = s.buf[:0], 0
	return s.file.Truncate(0)
}

// places finds the chunks of a window by where they lie in a source.
type places struct {
	chunks *chunkList
	ids    []uint32 // by source and offset
}

func (g *gatherer) places(l layout) *places {
	p := &places{chunks: &g.chunks}
	for id := range uint32(g.chunks.n) {
		if g.chunks.at(id).spool >= 0 {
			p.ids = append(p.ids, id)
		}
	}
	slices.SortFunc(p.ids, func(a, b uint32) int {
		x, y := g.chunks.at(a), g.chunks.at(b)
		return cmp.Or(cmp.Compare(x.source, y.source), cmp.Compare(x.offset, y.offset))
	})
	return p
}

// find returns the chunk that holds a byte of a source.
func (p *places) find(source int, offset int64) (uint32, bool) {
	after := sort.Search(len(p.ids), func(i int) bool {
		c := p.chunks.at(p.ids[i])
		return int(c.source) > source || int(c.source) == source && c.offset > offset
	})
	if after == 0 {
		return 0, false
	}
	id := p.ids[after-1]
	c := p.chunks.at(id)
	return id, int(c.source) == source && offset < c.offset+int64(c.key.length)
}

// spoolReader gives ranges of sources out of the spool. It keeps the chunk of
// which it gave a part: heads are asked for a few bytes at a time.
type spoolReader struct {
	*places
	spool io.ReaderAt
	buf   [split.MaxChunk]byte
	last  uint32
	part  []byte // content of last; nil if there is none
}

func (s *spoolReader) copy(w io.Writer, e recipe.Extent) error {
	for e.Length > 0 {
		id, ok := s.find(e.Source, e.Offset)
		if !ok {
			return fmt.Errorf("source %d has nothing at %d", e.Source, e.Offset)
		}
		p, err := s.read(id, e)
		if err != nil {
			return err
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
		e.Offset += int64(len(p))
		e.Length -= int64(len(p))
	}
	return nil
}

// read gives as much of an extent as lies in a chunk.
func (s *spoolReader) read(id uint32, e recipe.Extent) ([]byte, error) {
	c := s.chunks.at(id)
	from := e.Offset - c.offset
	to := min(from+e.Length, int64(c.key.length))
	if s.part != nil && s.last == id {
		return s.part[from:to], nil
	}
	p := s.buf[:c.key.length]
	if to-from < int64(len(p)) {
		s.part, s.last = append(s.part[:0], p...), id
		p = s.part
	}
	if _, err := s.spool.ReadAt(p, c.spool); err != nil {
		s.part = nil
		return nil, fmt.Errorf("read temporary data: %w", err)
	}
	return p[from:to], nil
}
