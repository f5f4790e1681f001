package deflate

import "fmt"

// header reads what is before the tokens of a block, or before the bytes of a
// stored one, whose number it returns, and makes the tables of codes. If the
// input is too short nothing is taken.
func (c *codes) header(b *input, h *Header) (stored int, err error) {
	was := *b
	if stored, err = c.blockHeader(b, h); err == errShort {
		*b = was
	}
	return stored, err
}

func (c *codes) blockHeader(b *input, h *Header) (stored int, err error) {
	v, ok := b.take(3)
	if !ok {
		return 0, errShort
	}
	h.Final = v&1 != 0
	h.Type = Type(v >> 1)
	switch h.Type {
	case Stored:
		padding, _ := b.take(b.n & 7)
		h.Padding = uint8(padding)
		if v, ok = b.take(32); !ok {
			return 0, errShort
		}
		if v&0xffff != ^v>>16&0xffff {
			return 0, fmt.Errorf("%w: length of a stored block", ErrFormat)
		}
		return int(v & 0xffff), nil
	case Fixed:
		c.tables = fixedTables()
		return 0, nil
	case Dynamic:
		return 0, c.trees(b, &h.Trees)
	}
	return 0, fmt.Errorf("%w: block of type 3", ErrFormat)
}

// trees reads the codes of a dynamic block (RFC 1951, section 3.2.7). It
// refuses what zlib refuses.
func (c *codes) trees(b *input, t *Trees) error {
	*t = Trees{}
	v, ok := b.take(14)
	if !ok {
		return errShort
	}
	t.NumLit, t.NumDist, t.NumCode = int(v&31)+257, int(v>>5&31)+1, int(v>>10)+4
	if t.NumLit > MaxLit || t.NumDist > MaxDist {
		return fmt.Errorf("%w: too many symbols", ErrFormat)
	}
	for _, s := range codeOrder[:t.NumCode] {
		if v, ok = b.take(3); !ok {
			return errShort
		}
		t.Code[s] = uint8(v)
	}
	if c.code.build(t.Code[:]) != complete {
		return fmt.Errorf("%w: code for code lengths", ErrFormat)
	}
	if err := c.lengths(b, t); err != nil {
		return err
	}
	if t.Lit[EndSymbol] == 0 {
		return fmt.Errorf("%w: no code for the end of the block", ErrFormat)
	}
	c.tables = &c.own
	if k := c.lit.build(t.Lit[:t.NumLit]); k != complete && k != single {
		return fmt.Errorf("%w: code of literals", ErrFormat)
	}
	if c.dist.build(t.Dist[:t.NumDist]) == broken {
		return fmt.Errorf("%w: code of distances", ErrFormat)
	}
	return nil
}

// lengths reads the lengths of the codes.
func (c *codes) lengths(b *input, t *Trees) error {
	var lengths [NumLit + NumDist]uint8
	all := lengths[:t.NumLit+t.NumDist]
	for n := 0; n < len(all); {
		b.fill()
		e := c.code[b.bits&(1<<MaxCode-1)]
		if err := b.skip(uint(e & 63)); err != nil {
			return err
		}
		s := uint8(e >> 16)
		x, ok := b.take(RunExtra(s))
		if !ok {
			return errShort
		}
		t.Runs[t.NumRuns] = uint16(s) | uint16(x)<<8
		t.NumRuns++
		var err error
		if n, err = run(all, n, s, int(x)); err != nil {
			return err
		}
	}
	copy(t.Lit[:], all[:t.NumLit])
	copy(t.Dist[:], all[t.NumLit:])
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
	case Repeat:
		if n == 0 {
			return 0, fmt.Errorf("%w: a length is repeated before the first", ErrFormat)
		}
		value = lengths[n-1]
	case ManyZeros:
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
