package unpack

import (
	"context"
	"errors"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// Memory of one layer's way from decompressor to parser: chunks × chunkSize.
const (
	chunks    = 4
	chunkSize = 256 << 10
)

// layerStream is a layer's tar. Reading, checking and decompressing the blob
// and taking the tar's hash runs in a goroutine of its own, ahead of the caller.
type layerStream struct {
	blob io.ReadCloser // the layer as it is stored
	tar  io.ReadCloser // its content; nil if it could not be opened
	hash hash.Hash     // of the tar; nil where EOF is proof enough

	abandon context.CancelFunc // makes reading the blob fail

	full chan chunk
	free chan []byte
	quit chan struct{}
	done chan struct{} // closed when the goroutine has ended

	cur  []byte // not yet read
	buf  []byte // that cur lies in
	err  error  // that follows cur
	shut bool
}

type chunk struct {
	data []byte
	err  error
}

func newLayerStream(blob, tar io.ReadCloser, h hash.Hash, abandon context.CancelFunc) *layerStream {
	s := &layerStream{
		blob: blob, tar: tar, hash: h, abandon: abandon,
		full: make(chan chunk, chunks), free: make(chan []byte, chunks), quit: make(chan struct{}), done: make(chan struct{}),
	}
	for range chunks {
		s.free <- nil
	}
	if tar == nil {
		close(s.done)
	} else {
		go s.pump()
	}
	return s
}

func (s *layerStream) pump() {
	defer close(s.done)
	for {
		var buf []byte
		select {
		case buf = <-s.free:
		case <-s.quit:
			return
		}
		if buf == nil {
			buf = make([]byte, chunkSize)
		}
		n, err := manifests.Fill(s.tar, buf[:chunkSize])
		if s.hash != nil {
			s.hash.Write(buf[:n])
		}
		s.full <- chunk{buf[:n], err} // there is room: chunks buffers, chunks slots
		if err != nil {
			return
		}
	}
}

// Read gives the tar's bytes.
func (s *layerStream) Read(p []byte) (int, error) {
	for len(s.cur) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.buf != nil {
			s.free <- s.buf
		}
		c := <-s.full
		s.cur, s.buf, s.err = c.data, c.data, c.err
	}
	n := copy(p, s.cur)
	s.cur = s.cur[n:]
	return n, nil
}

// stop ends the goroutine. It may be called again.
func (s *layerStream) stop() {
	if s.shut {
		return
	}
	s.shut = true
	close(s.quit)
	<-s.done
	if s.tar != nil {
		s.tar.Close()
	}
}

// close ends the use of the stream.
func (s *layerStream) close() {
	s.stop()
	s.blob.Close()
	s.abandon()
}

// prove compares the diffID once Read has returned io.EOF.
func (s *layerStream) prove(want digest.Digest) error {
	if s.hash == nil {
		return nil
	}
	if got := digest.NewDigest(want.Algorithm(), s.hash); got != want {
		return manifests.Bad(manifests.KindDiffID, "", "its tar hashes to %s and not to %s, the config's diffID", got, want)
	}
	return nil
}

// blame looks for a better reason when the tar is bad: a blob that is not
// what its digest says. Reading must have ended.
func (s *layerStream) blame(err error) error {
	var tarErr *layertar.Error
	var format *codec.FormatError
	var content *manifests.ContentError
	if errors.As(err, &content) || !errors.As(err, &tarErr) && !errors.As(err, &format) {
		return err
	}
	s.stop()
	if _, berr := io.Copy(io.Discard, s.blob); errors.As(berr, &content) {
		return berr
	}
	return err
}
