package registry

import (
	"errors"
	"io"
	"sync"
)

// uploadBody is the body of an upload. It keeps one byte back until the source
// has ended without error, so that a request of known length cannot be
// completed with bytes that turn out wrong, and it remembers the source's
// error, which net/http wraps beyond recognition. It is used once: a client
// that resends it gets an error, not an empty body.
type uploadBody struct {
	source io.ReadCloser
	seen   *highWater
	sent   int64

	held bool // last is due before what source gives next
	last byte

	mu     sync.Mutex // net/http closes from another goroutine, also during Read
	err    error      // of the source
	taken  bool
	closed bool
}

// errUsedBody ends an upload whose request was sent again, which the
// authenticating transport does when the registry asks for a new token.
var errUsedBody = errors.New("the registry asked for authentication again in the middle of an upload")

// take reports whether the body may be sent: once.
func (b *uploadBody) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := !b.taken
	b.taken = true
	return first
}

func (b *uploadBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, errUsedBody
	case b.err != nil:
		return 0, b.err
	case len(p) == 0:
		return 0, nil
	}
	n, err := b.read(p)
	b.sent += int64(n)
	b.seen.reach(b.sent)
	b.err = err
	return n, err
}

// read gives what source does, one byte late.
func (b *uploadBody) read(p []byte) (int, error) {
	room := p
	if len(p) == 1 {
		room = make([]byte, 2)
	}
	have := 0
	if b.held {
		room[0], have = b.last, 1
	}
	n, err := b.source.Read(room[have:])
	have += n
	switch {
	case err == io.EOF && n == 0:
		b.held = false
		return copy(p, room[:have]), io.EOF
	case err != nil && err != io.EOF:
		return 0, err
	case n == 0:
		return 0, nil
	}
	b.held, b.last = true, room[have-1]
	return copy(p, room[:have-1]), nil // an io.EOF that came along comes again
}

// failure is the source's error, if it was that which ended the upload.
func (b *uploadBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == io.EOF {
		return nil
	}
	return b.err
}

func (b *uploadBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	return b.source.Close()
}

// highWater reports how far something has got, without counting what is done
// over again.
type highWater struct {
	report func(int64)
	at     int64
}

func (h *highWater) reach(n int64) {
	if n > h.at && h.report != nil {
		h.report(n - h.at)
	}
	h.at = max(h.at, n)
}
