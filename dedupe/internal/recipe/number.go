package recipe

import (
	"encoding/binary"
	"errors"
)

// cursor reads numbers from front to end.
type cursor struct{ rest []byte }

var (
	errShort = errors.New("it ends too early")
	errForm  = errors.New("a number is not in its shortest form, or larger than 64 bits")
)

// uvarint reads an unsigned number in its shortest form.
func (c *cursor) uvarint() (uint64, error) {
	if len(c.rest) > 0 && c.rest[0] < 0x80 {
		v := uint64(c.rest[0])
		c.rest = c.rest[1:]
		return v, nil
	}
	v, n := binary.Uvarint(c.rest)
	switch {
	case n == 0:
		return 0, &FormatError{errShort}
	case n < 0, c.rest[n-1] == 0:
		return 0, &FormatError{errForm}
	}
	c.rest = c.rest[n:]
	return v, nil
}

// zigzag reads a signed number.
func (c *cursor) zigzag() (int64, error) {
	v, err := c.uvarint()
	return int64(v>>1) ^ -int64(v&1), err
}

// count reads how many things follow, each of at least size bytes.
func (c *cursor) count(size int) (int, error) {
	v, err := c.uvarint()
	if err != nil {
		return 0, err
	}
	if v > uint64(len(c.rest)/size) {
		return 0, bad("it ends before the last of %d entries", v)
	}
	return int(v), nil
}

// take cuts n bytes off.
func (c *cursor) take(n uint64) ([]byte, error) {
	if n > uint64(len(c.rest)) {
		return nil, &FormatError{errShort}
	}
	p := c.rest[:n]
	c.rest = c.rest[n:]
	return p, nil
}

// skip passes over n numbers.
func (c *cursor) skip(n int) error {
	for range n {
		if _, err := c.uvarint(); err != nil {
			return err
		}
	}
	return nil
}
