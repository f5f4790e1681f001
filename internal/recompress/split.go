package recompress

import (
	"errors"
	"fmt"
	"io"

	"github.com/imgpack/imgpack/internal/deflate"
)

// splitter takes a gzip stream apart into parts.
type splitter struct {
	parser *deflate.Parser
	emit   func(*part) error
	now    *part
	member int   // where the member begins in now.data; may be before what is there
	prev   *part // is cut, but what follows it is not known yet
	taken  int64 // content of the member so far
	ran    int64 // of the run
	start  int64 // bit of the stream where now begins
	behind int64 // bit of the stream where the last piece ends
}

// newSplitter returns a splitter of a gzip stream.
func newSplitter(r io.Reader, emit func(*part) error) *splitter {
	s := &splitter{parser: deflate.NewParser(r), emit: emit}
	s.now = s.newPart(nil, beginOutside)
	return s
}

// split calls emit for each part, in order.
func (s *splitter) split() error {
	for members := 0; ; members++ {
		head, err := s.head()
		switch {
		case err == nil:
			err = s.memberOf(head)
		case members == 0:
			return foreign(err)
		default:
			if err = s.rest(head, err); err == io.EOF {
				return s.end()
			}
		}
		if err != nil {
			return foreign(err)
		}
	}
}

// foreign makes what the parser finds fault with errors of this package.
func foreign(err error) error {
	switch {
	case errors.Is(err, deflate.ErrTooLarge):
		return fmt.Errorf("%w: %w", ErrHopeless, err)
	case errors.Is(err, deflate.ErrFormat), errors.Is(err, io.ErrUnexpectedEOF), err == io.EOF, err == errNoHead:
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return err
}

// errNoHead is that what follows is no gzip member.
var errNoHead = errors.New("no gzip header")

// head reads the header of a member (RFC 1952, section 2.3). With errNoHead it
// returns what it read.
func (s *splitter) head() (raw []byte, err error) {
	magic := []byte{0x1f, 0x8b, 8}
	next := func() (b byte) {
		if err == nil {
			if b, err = s.parser.Byte(); err == nil {
				raw = append(raw, b)
			}
		}
		if err == nil && len(raw) > maxHead {
			err = fmt.Errorf("%w: header of a gzip member", deflate.ErrTooLarge)
		}
		return b
	}
	for i := range magic {
		if next() != magic[i] || err != nil {
			if err == nil || err == io.EOF && len(raw) > 0 {
				err = errNoHead
			}
			return raw, err
		}
	}
	flags := next()
	for range 6 {
		next()
	}
	if flags&4 != 0 { // extra field
		for n := int(next()) | int(next())<<8; n > 0; n-- {
			next()
		}
	}
	for f := flags & (8 | 16); f != 0; f &= f - 1 { // name, comment
		for next() != 0 && err == nil {
		}
	}
	if flags&2 != 0 { // checksum of the header
		next()
		next()
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return raw, err
}

// memberOf reads the rest of a member.
func (s *splitter) memberOf(head []byte) error {
	s.now.pieces = append(s.now.pieces, piece{kind: kindHead, raw: head})
	s.member, s.taken, s.ran = len(s.now.data), 0, 0
	for {
		final, err := s.block()
		if err != nil {
			return err
		}
		if final {
			if err := s.tail(); err != nil {
				return err
			}
			return s.cut(true)
		}
		if err := s.cut(false); err != nil {
			return err
		}
	}
}

// block reads a block.
func (s *splitter) block() (bool, error) {
	q := s.now
	var b deflate.Block
	had, tokens := len(q.data), len(q.tokens)
	before := max(s.member, had-deflate.Window)
	content, all, err := s.parser.Next(&b, q.data[before:], q.tokens)
	if err != nil {
		return false, err
	}
	q.tokens = all
	if end := before + len(content); end <= cap(q.data) && (len(content) == 0 || &content[0] == &q.data[:end][before]) {
		q.data = q.data[:end]
	} else {
		q.data = append(q.data[:before], content...)
	}
	p := piece{kind: kindBlock, final: b.Final, block: b.Type, pad: b.Padding, n: b.Length, tokens: len(q.tokens) - tokens}
	s.taken += int64(b.Length)
	s.ran += int64(b.Length)
	if b.Length == 0 {
		p.kind = kindEmpty
		s.ran = 0
	}
	if b.Type == deflate.Dynamic {
		p.trees = len(q.trees)
		q.trees = append(q.trees, b.Trees)
	}
	q.pieces = append(q.pieces, p)
	return b.Final, nil
}

// tail reads the trailer of a member.
func (s *splitter) tail() error {
	p := piece{kind: kindTail, raw: make([]byte, 8)}
	p.count = uint8(-s.parser.Offset() & 7)
	p.pad = s.parser.Align()
	for i := range p.raw {
		var err error
		if p.raw[i], err = s.parser.Byte(); err == io.EOF {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
	}
	s.now.pieces = append(s.now.pieces, p)
	return nil
}

// rest reads what follows the last member, of which raw was read.
func (s *splitter) rest(raw []byte, err error) error {
	for err == nil || err == errNoHead {
		var b byte
		if b, err = s.parser.Byte(); err == nil {
			raw = append(raw, b)
		}
		if len(raw) == maxBytes || err == io.EOF && len(raw) > 0 {
			s.now.pieces = append(s.now.pieces, piece{kind: kindBytes, raw: raw})
			raw = nil
			if err := s.cut(true); err != nil {
				return err
			}
		}
	}
	return err
}
