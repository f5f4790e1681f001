package recompress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/imgpack/imgpack/internal/recompress/internal/kpzstd"
)

// maxWindow bounds the memory that decoding a zstd stream needs.
const maxWindow = 128 << 20

// findZstd finds the recipe of a zstd stream, one frame after the other. It takes
// no slot, as it works while it reads and writes.
func findZstd(ctx context.Context, in *bufio.Reader, content io.Writer, o Options) ([]byte, Info, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(min(o.jobs(), 2)), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, Info{}, err
	}
	defer dec.Close()
	s := &zstdStream{ctx: ctx, r: in, w: content, dec: dec}
	recipe, found, err := kpzstd.Find(s, s, s.decode, MaxRecipe-1)
	switch {
	case s.failed() != nil:
		return nil, Info{}, s.failed()
	case errors.Is(err, kpzstd.ErrDiffers):
		return nil, Info{}, fmt.Errorf("%w: %w", ErrHopeless, err)
	case errors.Is(err, kpzstd.ErrFormat), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, Info{}, fmt.Errorf("%w: %w", ErrFormat, err)
	case err != nil:
		return nil, Info{}, err
	}
	recipe = append([]byte{recipeZstd}, recipe...)
	info := Info{Model: ModelOf(recipe), Stream: found.Stream, Content: found.Content, Recipe: len(recipe)}
	if o.costs(len(recipe), info.Stream) {
		return nil, info, ErrHopeless
	}
	return recipe, info, nil
}

// zstdStream is the reader and the writer of a call; it keeps their first error.
// The decoder reads in a goroutine of its own.
type zstdStream struct {
	ctx context.Context
	r   io.Reader
	w   io.Writer // may be nil
	dec *zstd.Decoder

	mu  sync.Mutex
	err error
}

func (s *zstdStream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

func (s *zstdStream) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *zstdStream) Read(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		s.fail(err)
		return 0, err
	}
	n, err := s.r.Read(b)
	if err != nil && err != io.EOF {
		s.fail(err)
	}
	return n, err
}

func (s *zstdStream) Write(b []byte) (int, error) {
	if s.w == nil {
		return len(b), nil
	}
	n, err := s.w.Write(b)
	if err != nil {
		s.fail(fmt.Errorf("write content: %w", err))
	}
	return n, err
}

// decode decodes one frame.
func (s *zstdStream) decode(frame io.Reader, content io.Writer) error {
	w := &sink{w: content}
	err := s.dec.Reset(frame)
	if err == nil {
		_, err = io.CopyBuffer(w, struct{ io.Reader }{s.dec}, make([]byte, 256<<10))
	}
	switch {
	case err == nil:
		_, err = io.Copy(io.Discard, frame)
		return err
	case w.err != nil || s.failed() != nil:
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrUnknownDictionary):
		return fmt.Errorf("%w: %w", kpzstd.ErrDiffers, err)
	}
	return fmt.Errorf("%w: %w", kpzstd.ErrFormat, err)
}

// sink tells errors of writing from those of reading.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.err = err
	return n, err
}

func restoreZstd(ctx context.Context, w io.Writer, content io.Reader, recipe []byte, size int64) error {
	in := &source{ctx: ctx, r: content}
	out := &limited{ctx: ctx, w: w, left: size}
	err := kpzstd.Restore(out, in, recipe)
	switch {
	case out.err != nil:
		return out.err
	case in.err != nil:
		return in.err
	case errors.Is(err, kpzstd.ErrUnknown):
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	case errors.Is(err, kpzstd.ErrRecipe), errors.Is(err, kpzstd.ErrEncode):
		return fmt.Errorf("%w: %w", ErrRecipe, err)
	case err != nil:
		return err
	case out.left > 0:
		return errRecipe("stream is shorter than it should be")
	}
	return contentEnd(content)
}

// source reads content, and keeps the error.
type source struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	if s.err = s.ctx.Err(); s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(b)
	if err != nil && err != io.EOF {
		s.err = fmt.Errorf("read content: %w", err)
	}
	return n, err
}

// limited writes no more than it may, and keeps the error.
type limited struct {
	ctx  context.Context
	w    io.Writer
	left int64
	err  error
}

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= int64(len(b)); l.left < 0 {
		l.err = errRecipe("stream is longer than it should be")
		return 0, l.err
	}
	if l.err = l.ctx.Err(); l.err != nil {
		return 0, l.err
	}
	n, err := l.w.Write(b)
	if err != nil {
		l.err = fmt.Errorf("write stream: %w", err)
	}
	return n, err
}
