package layertar

import (
	"bufio"
	"errors"
	"io"
	"strconv"
	"strings"
)

const blockSize = 512

// source counts what the tar reader takes, keeps the last block of it, and
// remembers an error of the stream below to tell it from one of the tar.
type source struct {
	r     *bufio.Reader
	lim   Limits
	pos   int64
	block [blockSize]byte // the block that pos is in, or the one before it
	err   error           // sticky; not io.EOF
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.keep(p[:n])
	s.pos += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
		return n, err
	}
	if lerr := s.bounds(); lerr != nil {
		s.err = lerr
		return n, lerr
	}
	return n, err
}

func (s *source) keep(p []byte) {
	at := s.pos
	if over := len(p) - blockSize; over > 0 {
		at += int64(over)
		p = p[over:]
	}
	n := copy(s.block[at%blockSize:], p)
	copy(s.block[:], p[n:])
}

func (s *source) bounds() error {
	if s.pos > s.lim.Size {
		return &Error{Kind: Limit, Err: past(LimitSize, "the tar is larger than %d bytes", s.lim.Size)}
	}
	if s.lim.Compressed > 0 && s.pos > RatioFree && s.pos/s.lim.Ratio > s.lim.Compressed {
		return &Error{Kind: Limit, Err: past(LimitRatio, "the tar is more than %d times as large as its compressed form", s.lim.Ratio)}
	}
	return nil
}

// rawSize is the size field of the header that was read last; ok is false
// where it is no number.
func (s *source) rawSize() (n int64, ok bool) {
	field := s.block[124:136]
	if field[0]&0x80 != 0 { // base-256
		n = int64(field[0] & 0x3f)
		for _, b := range field[1:] {
			if n>>55 != 0 {
				return 0, false
			}
			n = n<<8 | int64(b)
		}
		return n, true
	}
	text := strings.Trim(string(field), " \x00")
	if text == "" {
		return 0, true
	}
	n, err := strconv.ParseInt(text, 8, 64)
	return n, err == nil
}

// drain reads what follows the end of the archive.
func (s *source) drain() (blank bool, err error) {
	buf := make([]byte, 32<<10)
	blank = true
	for tail := int64(0); ; {
		n, err := s.Read(buf)
		for _, b := range buf[:n] {
			if b != 0 {
				blank = false
				break
			}
		}
		tail += int64(n)
		if most := int64(MaxTail); !blank && tail > most || tail > maxBlank {
			if blank {
				most = maxBlank
			}
			return blank, &Error{Kind: Limit, Err: errors.New("more than " + strconv.FormatInt(most, 10) + " bytes follow the end of the archive")}
		}
		if err == io.EOF {
			return blank, nil
		}
		if err != nil {
			return blank, err
		}
	}
}
