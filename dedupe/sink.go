package dedupe

import (
	"encoding/binary"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/split"
)

// pieces is what the tar of a layer is made of: chunks, by their number.
type pieces struct {
	runs   []recipe.Run
	heads  []uint32
	bodies []uint32
	files  fileList // one for each run with a body
}

// fileList holds the names of files in the order of their tar, each as what
// differs from the one before.
type fileList struct {
	packed []byte
	last   string
}

func (f *fileList) add(name string) {
	shared := 0
	for shared < min(len(name), len(f.last)) && name[shared] == f.last[shared] {
		shared++
	}
	f.packed = binary.AppendUvarint(f.packed, uint64(shared))
	f.packed = binary.AppendUvarint(f.packed, uint64(len(name)-shared))
	f.packed = append(f.packed, name[shared:]...)
	f.last = name
}

// names reads the names back, one at a time; each is valid until the next.
type names struct {
	packed, name []byte
}

func (n *names) next() []byte {
	shared, a := binary.Uvarint(n.packed)
	more, b := binary.Uvarint(n.packed[a:])
	n.packed = n.packed[a+b:]
	n.name = append(n.name[:shared], n.packed[:more]...)
	n.packed = n.packed[more:]
	return n.name
}

// sink collects the pieces of one layer. Heads are cut like bodies, all in a
// row.
type sink struct {
	*gatherer
	pieces
	layer int
	alone bool // the only layer of its window
	buf   []byte
	raw   bool   // too many files: all that comes is one body
	name  string // of the body at hand
}

// Head takes the next bytes of the heads.
func (s *sink) Head(p []byte) error {
	if !s.raw {
		if err := s.run(); err != nil {
			return err
		}
	}
	return s.stream(p)
}

// Body begins a body.
func (s *sink) Body(name string) error {
	if s.raw {
		return nil
	}
	if err := s.run(); err != nil || s.raw {
		return err
	}
	s.name = name
	s.files.add(name)
	return nil
}

// Chunk takes the next chunk of the body.
func (s *sink) Chunk(p []byte, sum split.Sum) error {
	if s.raw {
		return s.stream(p)
	}
	s.runs[len(s.runs)-1].Body += int64(len(p))
	at := s.runs[len(s.runs)-1].Body - int64(len(p))
	return s.keep(&s.bodies, p, sum, s.name, at)
}

// run makes sure that the last run is one that has no body yet.
func (s *sink) run() error {
	n := len(s.runs)
	if n > 0 && s.runs[n-1].Body == 0 {
		return nil
	}
	s.runs = append(s.runs, recipe.Run{})
	if n < s.limits.runs {
		return nil
	}
	if err := s.end(); err != nil {
		return err
	}
	s.raw, s.name = true, ""
	s.files.add("")
	return nil
}

// stream takes bytes that nothing has cut yet.
func (s *sink) stream(p []byte) error {
	r := &s.runs[len(s.runs)-1]
	if s.raw {
		r.Body += int64(len(p))
	} else {
		r.Head += int64(len(p))
	}
	for s.buf = append(s.buf, p...); len(s.buf) >= split.MaxChunk; {
		if err := s.cut(); err != nil {
			return err
		}
	}
	return nil
}

// end cuts what is left.
func (s *sink) end() error {
	for len(s.buf) > 0 {
		if err := s.cut(); err != nil {
			return err
		}
	}
	return nil
}

func (s *sink) cut() error {
	p := s.buf[:split.Cut(s.buf)]
	list := &s.heads
	if s.raw {
		list = &s.bodies
	}
	err := s.keep(list, p, split.SumOf(p), "", 0)
	s.buf = s.buf[:copy(s.buf, s.buf[len(p):])]
	return err
}

// keep takes a chunk that begins at a byte of a body; the heads have no name.
func (s *sink) keep(list *[]uint32, p []byte, sum split.Sum, name string, at int64) error {
	id, fresh, err := s.take(p, sum, s.alone)
	*list = append(*list, id)
	if fresh && s.sample != nil {
		s.sample.add(sampled{name: name, at: at, layer: s.layer, sum: sum}, p)
	}
	return err
}
