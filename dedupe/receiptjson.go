package dedupe

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// jsonReader reads strict JSON of a known shape as a stream: a receipt can be
// larger than what may be held in memory at once. Errors are
// *manifests.ContentError, or those of the stream below.
type jsonReader struct {
	in   *bufio.Reader
	name string // what is read, for messages
}

func (j *jsonReader) bad(format string, args ...any) error {
	return manifests.Bad(manifests.KindMalformed, j.name, format, args...)
}

// next reads a byte; the end of the stream is none.
func (j *jsonReader) next() (byte, error) {
	c, err := j.in.ReadByte()
	if err == io.EOF {
		err = manifests.Bad(manifests.KindTruncated, j.name, "its JSON is cut short")
	}
	return c, err
}

// token reads the first byte that is no white space.
func (j *jsonReader) token() (byte, error) {
	for {
		c, err := j.next()
		if err != nil || c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c, err
		}
	}
}

// peek is token, and leaves the byte to be read again.
func (j *jsonReader) peek() (byte, error) {
	c, err := j.token()
	if err != nil {
		return 0, err
	}
	return c, j.in.UnreadByte()
}

func (j *jsonReader) expect(want byte) error {
	c, err := j.token()
	if err == nil && c != want {
		err = j.bad("%q where %q should be", c, want)
	}
	return err
}

// object reads an object, whose keys it gives one after another, each once.
func (j *jsonReader) object(value func(key string) error) error {
	if err := j.expect('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	return j.members('}', func() error {
		key, err := j.text()
		if err != nil {
			return err
		}
		if seen[key] {
			return j.bad("key %s is given twice", quote.Text(key))
		}
		seen[key] = true
		if err := j.expect(':'); err != nil {
			return err
		}
		return value(key)
	})
}

// array reads an array of at most limit values.
func (j *jsonReader) array(limit int, value func() error) error {
	if err := j.expect('['); err != nil {
		return err
	}
	n := 0
	return j.members(']', func() error {
		if n++; n > limit {
			return manifests.Bad(manifests.KindLimit, j.name, "more than %d entries in one of its lists", limit)
		}
		return value()
	})
}

// members reads what stands between commas up to the end.
func (j *jsonReader) members(end byte, member func() error) error {
	c, err := j.peek()
	if err == nil && c == end {
		return j.expect(end)
	}
	for err == nil {
		if err = member(); err != nil {
			return err
		}
		if c, err = j.token(); err == nil && c == end {
			return nil
		}
		if err == nil && c != ',' {
			err = j.bad("%q where ',' or %q should be", c, end)
		}
	}
	return err
}

// maxReceiptText bounds the strings of a receipt but for the chunks, in bytes
// of JSON: names of images are shorter.
const maxReceiptText = 8 << 10

// text reads a string.
func (j *jsonReader) text() (string, error) {
	if err := j.expect('"'); err != nil {
		return "", err
	}
	raw := []byte{'"'}
	for escaped := false; ; {
		c, err := j.next()
		if err != nil {
			return "", err
		}
		if raw = append(raw, c); len(raw) > maxReceiptText {
			return "", manifests.Bad(manifests.KindLimit, j.name, "a text is longer than %d bytes", maxReceiptText)
		}
		if c == '"' && !escaped {
			break
		}
		escaped = c == '\\' && !escaped
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil || !utf8.Valid(raw) {
		return "", j.bad("%s is not a text", quote.Text(string(raw)))
	}
	return s, nil
}

// number reads a number from 0, without fraction or exponent.
func (j *jsonReader) number() (int64, error) {
	c, err := j.token()
	var digits []byte
	for ; err == nil && c >= '0' && c <= '9' && len(digits) < 20; c, err = j.next() {
		digits = append(digits, c)
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil || len(digits) > 1 && digits[0] == '0' {
		return 0, j.bad("%s is not a number", quote.Text(string(append(digits, c))))
	}
	return n, j.in.UnreadByte()
}

// end proves that nothing but white space follows.
func (j *jsonReader) end() error {
	for {
		c, err := j.in.ReadByte()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case c != ' ' && c != '\t' && c != '\n' && c != '\r':
			return j.bad("data follows the JSON value")
		}
	}
}

// plain is the inside of a string without escapes, as a stream: its closing
// quotation mark is the end. The opening one has been read.
type plain struct {
	j     *jsonReader
	ended bool
}

func (p *plain) Read(b []byte) (int, error) {
	for n := range b {
		if p.ended {
			return n, io.EOF
		}
		c, err := p.j.next()
		switch {
		case err != nil:
			return n, err
		case c == '"':
			p.ended = true
			return n, io.EOF
		case c < ' ' || c == '\\' || c >= utf8.RuneSelf:
			return n, p.j.bad("byte %#x is not base64", c)
		}
		b[n] = c
	}
	return len(b), nil
}

var errNotShortest = errors.New("a number is not in its shortest form or larger than 64 bits")

// shortUvarint reads an unsigned LEB128 number in its shortest form. io.EOF
// stands for the end before its first byte.
func shortUvarint(r io.ByteReader) (uint64, error) {
	var n uint64
	for shift := 0; ; shift += 7 {
		c, err := r.ReadByte()
		if err == io.EOF && shift > 0 {
			err = io.ErrUnexpectedEOF
		}
		switch {
		case err != nil:
			return 0, err
		case c == 0 && shift > 0, shift == 63 && c > 1:
			return 0, errNotShortest
		}
		if n |= uint64(c&0x7f) << shift; c < 0x80 {
			return n, nil
		}
	}
}
