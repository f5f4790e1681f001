package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	logFile = "log"
	oldLog  = "log.1"

	// maxLog is the size at which a log is put aside for a new one; the one put
	// aside before is removed. It is room for some hundred thousand lines.
	maxLog = 16 << 20

	// maxLine is docker's: longer lines are kept in pieces.
	maxLine = 16 << 10
)

// entry is a line of a log, in docker's form. A line that is not UTF-8 is in
// Raw instead.
type entry struct {
	Log    string    `json:"log"`
	Raw    []byte    `json:"raw,omitempty"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

func (e entry) text() string {
	if e.Raw != nil {
		return string(e.Raw)
	}
	return e.Log
}

// The values of entry.Stream.
const (
	streamOut = "stdout"
	streamErr = "stderr"
	streamOwn = "imgpack" // what the monitor has to say itself
)

// logger writes a log. What cannot be written is lost and counted, for the
// process must not come to wait for a full disk.
type logger struct {
	path, old string
	now       func() time.Time
	failed    func(err error, lost int64) // is told when writing begins to fail

	mu    sync.Mutex
	f     *os.File
	size  int64
	lost  int64 // since it last worked
	total int64 // of all lost
	why   error // the last failure
}

func (c *Container) newLogger(failed func(error, int64)) *logger {
	return &logger{path: c.file(logFile), old: c.file(oldLog), now: time.Now, failed: failed}
}

// open opens the log to go on with. A line that a killed monitor did not finish
// is ended, so that the next one is whole.
func (l *logger) open() error {
	f, err := openRegular(l.path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	var last [1]byte
	if err == nil && size > 0 {
		_, err = f.ReadAt(last[:], size-1)
	}
	if err == nil && size > 0 && last[0] != '\n' {
		_, err = f.WriteAt([]byte{'\n'}, size)
		size++
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.f, l.size = f, size
	return nil
}

// add writes lines of a stream, all with one time.
func (l *logger) add(stream string, lines []string) {
	if len(lines) == 0 {
		return
	}
	now := l.now().UTC()
	l.mu.Lock()
	var first bool
	var raw []byte
	if l.lost > 0 {
		raw = appendEntry(raw, entry{Log: lostText(l.lost, l.why), Stream: streamOwn, Time: now})
	}
	for _, line := range lines {
		e := entry{Log: line, Stream: stream, Time: now}
		if !utf8.ValidString(line) {
			e.Log, e.Raw = "", []byte(line)
		}
		raw = appendEntry(raw, e)
	}
	err := l.write(raw)
	if err != nil {
		first = l.lost == 0
		l.lost += int64(len(lines))
		l.total += int64(len(lines))
		l.why = err
	} else {
		l.lost = 0
	}
	total := l.total
	l.mu.Unlock()
	if first {
		l.failed(err, total)
	}
}

func appendEntry(to []byte, e entry) []byte {
	raw, err := json.Marshal(e)
	if err != nil {
		return to // it holds nothing that JSON has no form for
	}
	return append(append(to, raw...), '\n')
}

// write appends whole lines, or nothing.
func (l *logger) write(raw []byte) error {
	if l.f != nil && l.size > 0 && l.size+int64(len(raw)) > maxLog {
		if err := os.Rename(l.path, l.old); err != nil {
			return err
		}
		l.f.Close()
		l.f = nil
	}
	if l.f == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	if _, err := l.f.WriteAt(raw, l.size); err != nil {
		return errors.Join(err, l.f.Truncate(l.size))
	}
	l.size += int64(len(raw))
	return nil
}

func (l *logger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

// lostSoFar is how many lines were lost, and why the last.
func (l *logger) lostSoFar() (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total, l.why
}

func lostText(n int64, why error) string {
	return fmt.Sprintf("%d lines of output were lost here: %v\n", n, why)
}

// splitter cuts what comes in pieces into lines.
type splitter struct{ rest []byte }

// cut returns the lines that are whole, and pieces of those that are too long.
// A piece does not end within a character.
func (s *splitter) cut(p []byte) (lines []string) {
	s.rest = append(s.rest, p...)
	at := 0
	for {
		some := s.rest[at:]
		n := bytes.IndexByte(some[:min(len(some), maxLine)], '\n') + 1
		if n == 0 && len(some) >= maxLine {
			n = wholeRunes(some[:maxLine])
		}
		if n == 0 {
			s.rest = append(s.rest[:0], some...)
			return lines
		}
		lines = append(lines, string(some[:n]))
		at += n
	}
}

func wholeRunes(p []byte) int {
	for back := 1; back < utf8.UTFMax; back++ {
		if at := len(p) - back; utf8.RuneStart(p[at]) {
			if !utf8.FullRune(p[at:]) {
				return at
			}
			break
		}
	}
	return len(p)
}

// copy reads a stream to its end into the log, and to another writer first.
// When that one does not take it, the stream is closed: its writer learns that
// as it would without a log.
func (l *logger) copy(r *os.File, stream string, to io.Writer) error {
	defer r.Close()
	var s splitter
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			var werr error
			if to != nil {
				_, werr = to.Write(buf[:n])
			}
			l.add(stream, s.cut(buf[:n]))
			if werr != nil {
				err = werr
			}
		}
		if err != nil {
			if len(s.rest) > 0 {
				l.add(stream, []string{string(s.rest)})
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}
