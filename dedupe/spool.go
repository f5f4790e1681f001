package dedupe

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/imgpack/imgpack/internal/atomicfile"
)

// spool is one file without a name that holds what has been unpacked: contents
// at their own offsets, and behind them the ranges wanted of base layers. What
// has not been unpacked is a hole.
type spool struct {
	dir  string
	name string       // of the bundle, for messages
	need atomic.Int64 // what it holds at most, in bytes

	mu   sync.Mutex
	file *os.File
}

// open makes the file when it is first needed.
func (s *spool) open() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		return s.file, nil
	}
	f, err := atomicfile.Unnamed(s.dir)
	if err != nil {
		return nil, s.failed(err)
	}
	s.file = f
	return f, nil
}

func (s *spool) failed(err error) error {
	return fmt.Errorf("unpack contents of %s, which need up to %d bytes in %s: %w", s.name, s.need.Load(), s.dir, err)
}

// spoolWrite is how much is written at a time, between two looks at whether
// anybody still waits.
const spoolWrite = 4 << 20

func (s *spool) write(ctx context.Context, p []byte, at int64) error {
	f, err := s.open()
	if err != nil {
		return err
	}
	for len(p) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.WriteAt(p[:min(len(p), spoolWrite)], at)
		if err != nil {
			return s.failed(err)
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// read fills p. The range must have been written.
func (s *spool) read(p []byte, at int64) error {
	f, err := s.open()
	if err != nil {
		return err
	}
	if _, err := f.ReadAt(p, at); err != nil {
		return fmt.Errorf("read unpacked contents of %s: %w", s.name, err)
	}
	return nil
}

func (s *spool) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// part is a stretch of the spool that is unpacked at once: the content of a
// segment, or all that is wanted of a base layer.
type part struct {
	task
	start, end int64
	base       bool
	index      int // of the segment or, if base is set, of the needed layer
}

// spoolRange is a range of bytes of the spool, within one part.
type spoolRange struct {
	part   *part
	at     int64
	length int64
}
