package kpflate

// buffer tells where the encoder's buffer of levels 1 to 6 begins: it takes
// chunks until it is full, and then keeps a window of what it has.
type buffer struct {
	start int // position of its first byte
	n     int // bytes in it
}

const bufferSize = 5 * maxChunk

// add takes the chunk of n bytes at a position.
func (b *buffer) add(from, n int) {
	if b.n == 0 {
		b.start = from
	}
	if b.n+n > bufferSize {
		b.start, b.n = from-window, window
	}
	b.n += n
}
