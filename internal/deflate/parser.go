package deflate

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Parser takes deflate streams apart, and gives the bytes between them. It
// reads ahead, so it must be the only reader of its source. It is used from one
// goroutine. At the end of the source its error is io.ErrUnexpectedEOF.
type Parser struct {
	r    io.Reader
	buf  []byte // what is read and not taken
	room []byte // what buf lies in
	err  error  // of r
	read int64  // bytes taken from buf since the start

	bits uint64
	n    uint // of bits that are valid

	lit, dist, code table
}

const parserBuffer = 128 << 10

// NewParser returns a parser at the first byte of r.
func NewParser(r io.Reader) *Parser {
	return &Parser{r: r, room: make([]byte, parserBuffer)}
}

// Offset is the number of bits that were taken so far.
func (p *Parser) Offset() int64 { return p.read*8 - int64(p.n) }

// fill reads on if nothing is left.
func (p *Parser) fill() error {
	for tries := 0; len(p.buf) == 0; tries++ {
		if p.err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if p.err != nil {
			return p.err
		}
		var n int
		n, p.err = p.r.Read(p.room)
		if p.buf = p.room[:n]; n == 0 && p.err == nil && tries == 100 {
			p.err = io.ErrNoProgress
		}
	}
	return nil
}

// need makes n bits, at most 48, valid.
func (p *Parser) need(n uint) error {
	for p.n < n {
		if err := p.fill(); err != nil {
			return err
		}
		p.bits |= uint64(p.buf[0]) << p.n
		p.n += 8
		p.buf = p.buf[1:]
		p.read++
	}
	return nil
}

// take returns the next n bits, at most 48.
func (p *Parser) take(n uint) (uint64, error) {
	if err := p.need(n); err != nil {
		return 0, err
	}
	v := p.bits & (1<<n - 1)
	p.bits >>= n
	p.n -= n
	return v, nil
}

// Align drops the bits up to the next byte, and returns them.
func (p *Parser) Align() uint8 {
	v, _ := p.take(p.n & 7)
	return uint8(v)
}

// Byte returns the next byte; the parser must be at the beginning of one. Its
// error is io.EOF if the source ends there.
func (p *Parser) Byte() (byte, error) {
	v, err := p.take(8)
	if err == io.ErrUnexpectedEOF && p.n == 0 {
		err = io.EOF
	}
	return byte(v), err
}

// Next takes the next block apart. It appends the content to content, which
// must hold all that came before in this stream or the last Window bytes of
// it, and the tokens of a block that is not stored to tokens.
func (p *Parser) Next(b *Block, content []byte, tokens []Token) ([]byte, []Token, error) {
	*b = Block{}
	v, err := p.take(3)
	if err != nil {
		return content, tokens, err
	}
	b.Final = v&1 != 0
	b.Type = Type(v >> 1)
	had := len(content)
	switch b.Type {
	case Stored:
		content, err = p.stored(b, content)
	case Fixed:
		lit := FixedLit()
		p.lit.build(lit[:])
		p.dist.build(fixedDist[:])
		content, tokens, err = p.tokens(content, tokens)
	case Dynamic:
		if err = p.header(&b.Trees); err == nil {
			content, tokens, err = p.tokens(content, tokens)
		}
	default:
		err = fmt.Errorf("%w: block of type 3", ErrFormat)
	}
	b.Length = len(content) - had
	return content, tokens, err
}

func (p *Parser) stored(b *Block, content []byte) ([]byte, error) {
	b.Padding = p.Align()
	v, err := p.take(32)
	if err != nil {
		return content, err
	}
	n := int(v & 0xffff)
	if n != int(^v>>16&0xffff) {
		return content, fmt.Errorf("%w: length of a stored block", ErrFormat)
	}
	for ; n > 0 && p.n > 0; n-- {
		c, err := p.take(8)
		if err != nil {
			return content, err
		}
		content = append(content, byte(c))
	}
	for n > 0 {
		if err := p.fill(); err != nil {
			return content, err
		}
		k := min(n, len(p.buf))
		content = append(content, p.buf[:k]...)
		p.buf = p.buf[k:]
		p.read += int64(k)
		n -= k
	}
	return content, nil
}

// header reads the codes of a dynamic block (RFC 1951, section 3.2.7). It
// refuses what zlib refuses.
func (p *Parser) header(t *Trees) error {
	v, err := p.take(14)
	if err != nil {
		return err
	}
	t.NumLit, t.NumDist, t.NumCode = int(v&31)+257, int(v>>5&31)+1, int(v>>10)+4
	if t.NumLit > MaxLit || t.NumDist > MaxDist {
		return fmt.Errorf("%w: too many symbols", ErrFormat)
	}
	for _, s := range codeOrder[:t.NumCode] {
		if v, err = p.take(3); err != nil {
			return err
		}
		t.Code[s] = uint8(v)
	}
	if p.code.build(t.Code[:]) != complete {
		return fmt.Errorf("%w: code for code lengths", ErrFormat)
	}
	var lengths [NumLit + NumDist]uint8
	for n := 0; n < t.NumLit+t.NumDist; {
		s, err := p.symbol(&p.code)
		if err != nil {
			return err
		}
		x, err := p.take(RunExtra(uint8(s)))
		if err != nil {
			return err
		}
		t.Runs[t.NumRuns] = uint16(s) | uint16(x)<<8
		t.NumRuns++
		if n, err = run(lengths[:t.NumLit+t.NumDist], n, uint8(s), int(x)); err != nil {
			return err
		}
	}
	copy(t.Lit[:], lengths[:t.NumLit])
	copy(t.Dist[:], lengths[t.NumLit:t.NumLit+t.NumDist])
	if t.Lit[EndSymbol] == 0 {
		return fmt.Errorf("%w: no code for the end of the block", ErrFormat)
	}
	if c := p.lit.build(t.Lit[:]); c != complete && c != single {
		return fmt.Errorf("%w: code of literals", ErrFormat)
	}
	if p.dist.build(t.Dist[:]) == broken {
		return fmt.Errorf("%w: code of distances", ErrFormat)
	}
	return nil
}

// run puts what a symbol of the code for code lengths stands for at n, and
// returns where the next goes.
func run(lengths []uint8, n int, symbol uint8, extra int) (int, error) {
	if symbol < 16 {
		lengths[n] = symbol
		return n + 1, nil
	}
	var value uint8
	count := extra + 3
	switch symbol {
	case 16:
		if n == 0 {
			return 0, fmt.Errorf("%w: a length is repeated before the first", ErrFormat)
		}
		value = lengths[n-1]
	case 18:
		count = extra + 11
	}
	if count > len(lengths)-n {
		return 0, fmt.Errorf("%w: too many code lengths", ErrFormat)
	}
	for i := range count {
		lengths[n+i] = value
	}
	return n + count, nil
}

func (p *Parser) tokens(content []byte, tokens []Token) ([]byte, []Token, error) {
	start, first := len(content), len(tokens)
	for {
		s, err := p.symbol(&p.lit)
		if err != nil {
			return content, tokens, err
		}
		if s < EndSymbol {
			content = append(content, byte(s))
			tokens = append(tokens, Literal(byte(s)))
		} else if s == EndSymbol {
			return content, tokens, nil
		} else {
			t, err := p.match(s)
			if err != nil {
				return content, tokens, err
			}
			d := t.Distance()
			if d > len(content) {
				return content, tokens, fmt.Errorf("%w: a match reaches back before the beginning", ErrFormat)
			}
			for range t.Length() {
				content = append(content, content[len(content)-d])
			}
			tokens = append(tokens, t)
		}
		if len(tokens)-first > MaxBlockTokens || len(content)-start > MaxBlockContent {
			return content, tokens, ErrTooLarge
		}
	}
}

func (p *Parser) match(s int) (Token, error) {
	i := s - FirstMatch
	if i >= len(LengthBase) {
		return 0, fmt.Errorf("%w: length symbol %d", ErrFormat, s)
	}
	x, err := p.take(uint(LengthExtra[i]))
	if err != nil {
		return 0, err
	}
	length := int(LengthBase[i]) + int(x)
	d, err := p.symbol(&p.dist)
	if err != nil {
		return 0, err
	}
	if d >= MaxDist {
		return 0, fmt.Errorf("%w: distance symbol %d", ErrFormat, d)
	}
	if x, err = p.take(uint(DistExtra[d])); err != nil {
		return 0, err
	}
	t := Match(length, int(DistBase[d])+int(x)+1)
	if length == MaxLength && i == 27 {
		t |= LongForm
	}
	return t, nil
}

// symbol reads one symbol.
func (p *Parser) symbol(t *table) (int, error) {
	for {
		if e := t.codes[p.bits&(1<<MaxBits-1)]; uint(e&15) <= p.n && e != 0 {
			p.bits >>= e & 15
			p.n -= uint(e & 15)
			return int(e >> 4), nil
		} else if p.n >= MaxBits {
			return 0, fmt.Errorf("%w: a code that stands for nothing", ErrFormat)
		}
		if err := p.need(p.n + 1); err != nil {
			return 0, err
		}
	}
}

// table finds the symbol, in bits 4 and up, and the length of a code, in the
// others, by the next MaxBits bits; 0 is no code.
type table struct {
	codes [1 << MaxBits]uint16
}

// completeness of a code.
type completeness int

const (
	broken completeness = iota // some bits have two meanings, or none
	complete
	single // one code of one bit
	none
)

// build makes the table of a canonical code.
func (t *table) build(lengths []uint8) completeness {
	clear(t.codes[:])
	var codes [NumLit]code
	left, longest := 1<<MaxBits, 0
	for _, n := range lengths {
		if n > 0 {
			left -= 1 << (MaxBits - n)
			longest = max(longest, int(n))
		}
	}
	if left < 0 {
		return broken
	}
	assign(codes[:len(lengths)], lengths)
	for s, c := range codes[:len(lengths)] {
		if c.n == 0 {
			continue
		}
		for x := int(c.bits); x < len(t.codes); x += 1 << c.n {
			t.codes[x] = uint16(s<<4) | uint16(c.n)
		}
	}
	switch {
	case left == 0:
		return complete
	case longest == 0:
		return none
	case longest == 1:
		return single
	}
	return broken
}

// GzipTrailer is the end of a gzip member (RFC 1952, section 2.3.1).
func GzipTrailer(crc, size uint32) (b [8]byte) {
	binary.LittleEndian.PutUint32(b[:], crc)
	binary.LittleEndian.PutUint32(b[4:], size)
	return b
}
