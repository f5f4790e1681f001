package segment

import (
	"encoding/binary"
	"errors"
)

const (
	skippable = "\x50\x2a\x4d\x18"
	signature = "imgpack1"
)

var (
	errShort   = errors.New("cut short")
	errUvarint = errors.New("number not in its shortest form")
)

// uvarint takes a uvarint in its shortest form off the front of p.
func uvarint(p []byte) (v uint64, rest []byte, err error) {
	v, n := binary.Uvarint(p)
	switch {
	case n == 0:
		return 0, nil, errShort
	case n < 0 || n > 1 && p[n-1] == 0:
		return 0, nil, errUvarint
	}
	return v, p[n:], nil
}

// table is the first frame of a segment, taken apart. Its frames are walked,
// never listed: the number of frames is the writer's choice.
type table struct {
	content  int
	literals int
	frames   int
	sizes    []byte // two uvarints for each frame, checked
	data     []byte // the frames
	count    int    // number of copies
	copies   []byte // the zstd frame of the copies
}

// next takes the next frame off t: the length of its content and its bytes.
// It must be called t.frames times at most.
func (t *table) next() (length int, frame []byte) {
	n, rest, _ := uvarint(t.sizes)
	size, rest, _ := uvarint(rest)
	t.sizes = rest
	frame, t.data = t.data[:size], t.data[size:]
	return int(n), frame
}

// parseTable takes a segment apart and checks every length in its table. It
// allocates nothing.
func parseTable(blob []byte) (t table, err error) {
	if len(blob) < 8 || string(blob[:4]) != skippable {
		return t, badf("no table")
	}
	n := binary.LittleEndian.Uint32(blob[4:])
	if uint64(n) > uint64(len(blob)-8) {
		return t, badf("table: %w", errShort)
	}
	p := blob[8 : 8+n]
	t.data = blob[8+n:]
	if len(p) < len(signature) || string(p[:len(signature)]) != signature {
		return t, badf("table: signature missing")
	}
	p = p[len(signature):]
	if t.content, p, err = bounded(p, MaxContent); err != nil {
		return t, badf("table: content: %w", err)
	}
	if p, err = t.parseFrames(p); err != nil {
		return t, err
	}
	if t.count, p, err = bounded(p, t.content); err != nil {
		return t, badf("table: copies: %w", err)
	}
	if t.count == 0 {
		if len(p) != 0 {
			return t, badf("table: data follows it")
		}
		if t.literals != t.content {
			return t, badf("table: frames hold %d bytes, content %d", t.literals, t.content)
		}
		return t, nil
	}
	size, p, err := bounded(p, len(p))
	if err != nil {
		return t, badf("table: copies: %w", err)
	}
	if size != len(p) {
		return t, badf("table: copies of %d bytes in %d", size, len(p))
	}
	t.copies = p
	return t, nil
}

func (t *table) parseFrames(p []byte) (rest []byte, err error) {
	if t.frames, p, err = bounded(p, t.content); err != nil {
		return nil, badf("table: frames: %w", err)
	}
	t.sizes = p
	left := len(t.data)
	for i := range t.frames {
		var n, size int
		if n, p, err = bounded(p, min(MaxFrame, t.content-t.literals)); err == nil {
			size, p, err = bounded(p, left)
		}
		if err != nil {
			return nil, badf("table: frame %d: %w", i, err)
		}
		if n == 0 {
			return nil, badf("table: frame %d is empty", i)
		}
		t.literals += n
		left -= size
	}
	if left != 0 {
		return nil, badf("%d bytes follow the last frame", left)
	}
	return p, nil
}

var errBound = errors.New("number too large")

// bounded is uvarint for a number of at most limit.
func bounded(p []byte, limit int) (int, []byte, error) {
	v, rest, err := uvarint(p)
	if err == nil && v > uint64(limit) {
		err = errBound
	}
	if err != nil {
		return 0, nil, err
	}
	return int(v), rest, nil
}

// appendTable writes the first frame of a segment. sizes holds two numbers for
// each frame: the length of its content, and its own.
func appendTable(dst []byte, content int, sizes []int, count int, copies []byte) []byte {
	start := len(dst)
	dst = append(dst, skippable+"\x00\x00\x00\x00"+signature...)
	dst = binary.AppendUvarint(dst, uint64(content))
	dst = binary.AppendUvarint(dst, uint64(len(sizes)/2))
	for _, n := range sizes {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	dst = binary.AppendUvarint(dst, uint64(count))
	if count != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(copies)))
		dst = append(dst, copies...)
	}
	binary.LittleEndian.PutUint32(dst[start+4:], uint32(len(dst)-start-8))
	return dst
}
