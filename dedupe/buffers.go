package dedupe

import "sync"

// buffers keeps what was used for one segment for the next.
type buffers struct {
	mu   sync.Mutex
	free [][]byte
}

const (
	// maxKept bounds the buffers that are kept, in bytes together: the content
	// of one segment, or of two at LevelFast.
	maxKept = 128 << 20
	// bufferStep is what lengths of buffers are multiples of, so that one that
	// was used fits again.
	bufferStep = 8 << 20
)

// get returns n bytes with any content.
func (l *buffers) get(n int64) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := len(l.free) - 1; last >= 0 {
		b := l.free[last]
		l.free = l.free[:last]
		if int64(cap(b)) >= n {
			return b[:n]
		}
	}
	if n < bufferStep {
		return make([]byte, n)
	}
	return make([]byte, n, (n+bufferStep-1)/bufferStep*bufferStep)
}

// put takes a buffer back.
func (l *buffers) put(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := cap(b)
	for _, f := range l.free {
		kept += cap(f)
	}
	if kept <= maxKept {
		l.free = append(l.free, b)
	}
}
