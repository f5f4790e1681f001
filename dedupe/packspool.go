package dedupe

import (
	"os"
)

// spoolWriter appends to the file that holds contents until their order is
// known.
type spoolWriter struct {
	file *os.File
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
	return err
}

// reset empties the spool and gives its space back.
func (s *spoolWriter) reset() error {
	s.buf, s.end = s.buf[:0], 0
	return s.file.Truncate(0)
}
