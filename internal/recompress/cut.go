package recompress

import (
	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// newPart returns a part that begins where the parser is, after the content
// given.
func (s *splitter) newPart(prior []byte, at begin) *part {
	q := &part{}
	q.data = make([]byte, len(prior), len(prior)+partContent+partContent/4)
	q.from = copy(q.data, prior)
	if q.begin = at; at != beginOutside {
		q.member, q.run = s.taken, s.ran
	}
	s.start = s.parser.Offset()
	q.bit = uint8(s.start & 7)
	s.member = 0
	return q
}

// cut ends the part at the border of blocks where the parser is if it is long
// enough.
func (s *splitter) cut(outside bool) error {
	q := s.now
	s.behind = s.parser.Offset()
	if s.prev != nil {
		if len(q.data) == q.from && len(s.prev.pieces) < 2*partPieces {
			return s.prepend(outside)
		}
		if err := s.settle(outside); err != nil {
			return err
		}
	}
	bits := s.parser.Offset() - s.start
	if len(q.data)-q.from < partContent && bits < 8*partStream && len(q.pieces) < partPieces {
		return nil
	}
	q.bits, q.to = bits, len(q.data)
	s.prev = q
	s.next(outside)
	if outside {
		return s.release()
	}
	return nil
}

// next begins a part behind the one that was cut.
func (s *splitter) next(outside bool) {
	q := s.prev
	switch last := q.pieces[len(q.pieces)-1]; {
	case outside:
		s.now = s.newPart(nil, beginOutside)
	case last.kind == kindBlock:
		s.now = s.newPart(q.data[max(s.member, q.to-model.Prior):q.to], beginAmid)
	default:
		s.now = s.newPart(q.data[max(s.member, q.to-model.Prior):q.to], beginFlushed)
	}
	s.now.tokens = make([]deflate.Token, 0, min(len(q.tokens)+len(q.tokens)/8, partContent)) // about as many
}

// prepend moves what has no content, but ends a run or a member, to the part
// before, so that borders of parts are those of runs where there are any.
func (s *splitter) prepend(outside bool) error {
	q, prev := s.now, s.prev
	for _, p := range q.pieces {
		if p.block == deflate.Dynamic {
			prev.trees = append(prev.trees, q.trees[p.trees])
			p.trees = len(prev.trees) - 1
		}
		prev.pieces = append(prev.pieces, p)
	}
	prev.bits += s.parser.Offset() - s.start
	q.pieces, q.trees = q.pieces[:0], q.trees[:0]
	s.start = s.parser.Offset()
	q.bit = uint8(s.start & 7)
	q.begin = beginFlushed
	if outside {
		s.next(true)
		return s.release()
	}
	return nil
}

// settle lets the part before go if all is known of what follows it.
func (s *splitter) settle(outside bool) error {
	q, prev := s.now, s.prev
	n, ended := 0, outside
	for _, p := range q.pieces {
		if p.kind != kindBlock {
			ended = true
			break
		}
		n += p.n
		ended = ended || p.final
	}
	if n < model.Ahead && !ended {
		return nil
	}
	if prev.pieces[len(prev.pieces)-1].kind == kindBlock {
		prev.goesOn = true
		prev.data = append(prev.data, q.data[q.from:q.from+min(n, model.Ahead)]...)
	}
	return s.release()
}

func (s *splitter) release() error {
	q := s.prev
	s.prev = nil
	return s.emit(q)
}

// end lets go what is left at the end of the stream.
func (s *splitter) end() error {
	if q := s.now; len(q.pieces) > 0 {
		q.bits, q.to = s.parser.Offset()-s.start, len(q.data)
		return s.emit(q)
	}
	return nil
}
