package kpzstd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

var (
	// ErrFormat is a stream that is damaged, or is not zstd.
	ErrFormat = errors.New("invalid zstd stream")
	// ErrRecipe is a recipe that is damaged, or is not for this content.
	ErrRecipe = errors.New("invalid recipe of a zstd stream")
)

// A recipe is a list of numbers whose lowest two bits say what the rest means, some
// followed by bytes.
const (
	opRaw    = iota // bytes of the stream that are no frame with content: their number, then they
	opParams        // of the frames to come: their length, then they
	opFrame         // the length of a frame's content
)

// maxParams bounds how often parameters change in a stream: they may each time take
// new memory.
const maxParams = 256

// headLen is how much of a frame its Search is given beforehand.
const headLen = 4 << 10

// StreamInfo says what Find found.
type StreamInfo struct {
	Params  Params // of the last frame
	Frames  int    // with content
	Stream  int64  // bytes
	Content int64  // bytes
}

// Decode decodes one frame: it reads frame to its end, which is that of the frame,
// and writes its content.
type Decode func(frame io.Reader, content io.Writer) error

// Find reads a zstd stream of any number of frames to its end and returns its
// recipe, of at most limit bytes. The content is written to content, if that is not
// nil. decode is asked for the content of each frame with one. Errors are those of
// stream, content and decode, ErrFormat, and ErrDiffers if there is no recipe, or
// none so short; the stream may not be read to its end then.
func Find(stream io.Reader, content io.Writer, decode Decode, limit int) ([]byte, StreamInfo, error) {
	if content == nil {
		content = io.Discard
	}
	f := streamFinder{br: bufio.NewReaderSize(stream, 64<<10), content: content, decode: decode, limit: limit}
	for {
		head, err := f.br.Peek(headLen)
		if len(head) == 0 {
			if err == io.EOF {
				err = nil
			}
			return f.recipe, f.info, err
		}
		if err != nil && err != io.EOF {
			return nil, f.info, err
		}
		h, more, bad := parseFrameHeader(head)
		switch {
		case more || bad:
			err = fmt.Errorf("%w: no frame at byte %d", ErrFormat, f.info.Stream)
		case h.skip > 0 || binary.LittleEndian.Uint32(head)&^15 == magicSkip:
			err = f.raw(int64(h.length) + h.skip)
		default:
			err = f.frame(head)
		}
		if err == nil && len(f.recipe) > f.limit {
			err = ErrDiffers
		}
		if err != nil {
			return nil, f.info, err
		}
	}
}

type streamFinder struct {
	br      *bufio.Reader
	content io.Writer
	decode  Decode
	limit   int
	search  Search
	params  string // as in the recipe
	changes int    // of params
	recipe  []byte
	info    StreamInfo
}

// raw puts n bytes into the recipe.
func (f *streamFinder) raw(n int64) error {
	if n > int64(f.limit-len(f.recipe)) {
		return ErrDiffers
	}
	f.recipe = appendUvarint(f.recipe, uint64(n)<<2+opRaw)
	from := len(f.recipe)
	f.recipe = append(f.recipe, make([]byte, n)...)
	k, err := io.ReadFull(f.br, f.recipe[from:])
	f.info.Stream += int64(k)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("%w: it ends in a frame", ErrFormat)
	}
	return err
}

// frame decodes a frame and searches for its parameters.
func (f *streamFinder) frame(head []byte) error {
	r := &frameReader{br: f.br}
	if err := f.search.Reset(&r.seen, head); err != nil {
		return err
	}
	count := &counter{w: io.MultiWriter(f.content, &f.search)}
	err := f.decode(r, count)
	if f.search.err != nil {
		err = f.search.err
	}
	if cerr := f.search.Close(); err == nil {
		err = cerr
	}
	if err == nil && !r.end {
		err = fmt.Errorf("%w: it ends in a frame", ErrFormat)
	}
	f.info.Stream += r.n
	f.info.Content += count.n
	if err != nil {
		return err
	}
	f.info.Frames++
	f.info.Params = f.search.Params()
	if p := string(f.info.Params.AppendBinary(nil)); p != f.params {
		if f.changes++; f.changes > maxParams {
			return ErrDiffers
		}
		f.params = p
		f.recipe = appendUvarint(f.recipe, uint64(len(p))<<2|opParams)
		f.recipe = append(f.recipe, p...)
	}
	f.recipe = appendUvarint(f.recipe, uint64(count.n)<<2|opFrame)
	return nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// frameReader reads one frame, and keeps what was read in seen.
type frameReader struct {
	br   *bufio.Reader
	walk Frames
	end  bool
	n    int64
	seen queue
}

func (r *frameReader) Read(b []byte) (int, error) {
	if r.end || len(b) == 0 {
		return 0, io.EOF
	}
	if _, err := r.br.Peek(1); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	p, _ := r.br.Peek(min(len(b), r.br.Buffered()))
	n, end, ok := r.walk.Next(p)
	if !ok {
		return 0, ErrFormat
	}
	r.end = end
	copy(b, p[:n])
	r.seen.write(p[:n])
	r.n += int64(n)
	_, err := r.br.Discard(n)
	return n, err
}

// queue is what a decoder has read and a Search has not yet: about as much as the
// decoder reads ahead, and two blocks.
type queue struct {
	mu   sync.Mutex
	b    []byte
	from int
}

func (q *queue) write(p []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.from > 0 && len(q.b)+len(p) > cap(q.b) {
		q.b = q.b[:copy(q.b, q.b[q.from:])]
		q.from = 0
	}
	q.b = append(q.b, p...)
}

// Read returns io.EOF if there is nothing: the decoder has read what the content
// comes from before the Search asks for it.
func (q *queue) Read(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.from == len(q.b) {
		return 0, io.EOF
	}
	n := copy(p, q.b[q.from:])
	q.from += n
	return n, nil
}

// Restore writes the stream that a recipe was found for. It reads of content what
// the recipe is for and no more. Recipes are not trusted: memory is that of an
// Encoder, whatever one says, and its error is ErrRecipe. An error of w is
// returned.
func Restore(w io.Writer, content io.Reader, recipe []byte) error {
	var e *Encoder
	var p Params
	known := 0
	for len(recipe) > 0 {
		v, rest, ok := cutUvarint(recipe)
		op, n := v&3, v>>2
		if !ok || op != opFrame && n > uint64(len(rest)) {
			return ErrRecipe
		}
		recipe = rest
		var err error
		switch op {
		case opRaw:
			_, err = w.Write(rest[:n])
			recipe = rest[n:]
		case opParams:
			if p, err = ParseParams(rest[:n]); err != nil {
				return fmt.Errorf("%w: %w", ErrRecipe, err)
			}
			if known++; known > maxParams {
				return ErrRecipe
			}
			recipe = rest[n:]
		case opFrame:
			if known == 0 {
				return ErrRecipe
			}
			if e == nil {
				e = new(Encoder)
			}
			err = restoreFrame(e, w, content, p, int64(n))
		default:
			return ErrRecipe
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func restoreFrame(e *Encoder, w io.Writer, content io.Reader, p Params, n int64) error {
	if err := e.Reset(w, p); err != nil {
		return err
	}
	k, err := io.Copy(e, io.LimitReader(content, n))
	if cerr := e.Close(); err == nil {
		err = cerr
	}
	if err == nil && k < n {
		err = fmt.Errorf("%w: the content is too short", ErrRecipe)
	}
	return err
}
