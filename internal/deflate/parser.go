package deflate

import (
	"encoding/binary"
	"io"
	"slices"
)

// Parser takes deflate streams apart, and gives the bytes between them. It
// reads ahead, so it must be the only reader of its source. It is used from one
// goroutine. At the end of the source its error is io.ErrUnexpectedEOF.
type Parser struct {
	r    io.Reader
	room []byte // what the input lies in
	err  error  // of r
	read int64  // bytes before the input

	input
	codes
}

const parserBuffer = 128 << 10

// NewParser returns a parser at the first byte of r.
func NewParser(r io.Reader) *Parser {
	return &Parser{r: r, room: make([]byte, parserBuffer)}
}

// Offset is the number of bits that were taken so far.
func (p *Parser) Offset() int64 { return (p.read+int64(p.pos))*8 - int64(p.n) }

// more reads on, keeping what is not taken. It returns nil if there is more.
func (p *Parser) more() error {
	p.unread()
	p.read += int64(p.pos)
	kept := copy(p.room, p.in[p.pos:])
	p.in, p.pos = p.room[:kept], 0
	for tries := 0; len(p.in) == kept; tries++ {
		if p.err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if p.err != nil {
			return p.err
		}
		var n int
		n, p.err = p.r.Read(p.room[kept:])
		if p.in = p.room[:kept+n]; n == 0 && p.err == nil && tries == 100 {
			p.err = io.ErrNoProgress
		}
	}
	return nil
}

// Align drops the bits up to the next byte, and returns them.
func (p *Parser) Align() uint8 {
	v, _ := p.take(p.n & 7)
	return uint8(v)
}

// Byte returns the next byte; the parser must be at the beginning of one. Its
// error is io.EOF if the source ends there.
func (p *Parser) Byte() (byte, error) {
	for p.pos == len(p.in) {
		if err := p.more(); err == io.ErrUnexpectedEOF {
			return 0, io.EOF
		} else if err != nil {
			return 0, err
		}
	}
	p.pos++
	return p.in[p.pos-1], nil
}

// Next takes the next block apart. It appends the content to content, which
// must hold all that came before in this stream or the last Window bytes of
// it, and the tokens of a block that is not stored to tokens. What lies behind
// them, within the capacity of either, may be overwritten.
func (p *Parser) Next(b *Block, content []byte, tokens []Token) ([]byte, []Token, error) {
	*b = Block{}
	had := len(content)
	left, err := p.header(&p.input, &b.Header)
	for reads := 1; err == errShort; reads *= 2 { // the more the less each gives
		var end error
		for i := 0; i < reads && end == nil; i++ {
			end = p.more()
		}
		if left, err = p.header(&p.input, &b.Header); err == errShort && end != nil {
			err = end
		}
	}
	p.unread()
	switch {
	case err != nil:
	case b.Type == Stored:
		content, err = p.stored(content, left)
	default:
		content, tokens, err = p.tokens(content, tokens)
		p.unread()
	}
	b.Length = len(content) - had
	return content, tokens, err
}

func (p *Parser) stored(content []byte, n int) ([]byte, error) {
	for n > 0 {
		if p.pos == len(p.in) {
			if err := p.more(); err != nil {
				return content, err
			}
		}
		k := min(n, len(p.in)-p.pos)
		content = append(content, p.in[p.pos:p.pos+k]...)
		p.pos += k
		n -= k
	}
	return content, nil
}

// What tokens grows its slices by, and what one round of fastTokens needs of
// room for tokens.
const (
	contentStep = 64 << 10
	tokenStep   = 16 << 10
	tokenRoom   = 4
)

func (p *Parser) tokens(content []byte, tokens []Token) ([]byte, []Token, error) {
	start, first := len(content), len(tokens)
	for {
		if cap(content)-len(content) < MinRoom {
			content = slices.Grow(content, contentStep)
		}
		if cap(tokens)-len(tokens) < tokenRoom {
			tokens = slices.Grow(tokens, tokenStep)
		}
		at, n, ended, err := p.fastTokens(content[:cap(content)], tokens[:cap(tokens)], len(content), len(tokens))
		content, tokens = content[:at], tokens[:n]
		for err == nil && !ended && cap(content)-len(content) >= MinRoom && cap(tokens)-len(tokens) >= tokenRoom && len(p.in)-p.pos < enterRoom {
			content, tokens, ended, err = p.slowToken(content, tokens)
		}
		if len(tokens)-first > MaxBlockTokens || len(content)-start > MaxBlockContent {
			return content, tokens, ErrTooLarge
		}
		if ended || err != nil {
			return content, tokens, err
		}
	}
}

// slowToken appends one token, or reads on.
func (p *Parser) slowToken(content []byte, tokens []Token) ([]byte, []Token, bool, error) {
	t, err := p.token(&p.input)
	switch {
	case err == errShort:
		return content, tokens, false, p.more()
	case err != nil:
		return content, tokens, false, err
	case t == EndOfBlock:
		return content, tokens, true, nil
	case !t.IsMatch():
		content = append(content, byte(t))
	default:
		d := t.Distance()
		if d > len(content) {
			return content, tokens, false, errFar
		}
		for range t.Length() {
			content = append(content, content[len(content)-d])
		}
	}
	p.unread()
	return content, append(tokens, t), false, nil
}

// GzipTrailer is the end of a gzip member (RFC 1952, section 2.3.1).
func GzipTrailer(crc, size uint32) (b [8]byte) {
	binary.LittleEndian.PutUint32(b[:], crc)
	binary.LittleEndian.PutUint32(b[4:], size)
	return b
}
