package kpflate

// buffer tells where the encoder's buffer of levels 1 to 6 begins: it takes
// chunks until it is full, and then keeps a window of what it has.
type buffer struct {
	start int // position of its first byte
	n     int // bytes in it
}

const bufferSize = 5 * maxChunk

// resume is the buffer of an encoder that took before bytes and n of the data.
func resume(before int64, n int) buffer {
	before = max(0, before)
	took := before + int64(n)
	if took <= bufferSize {
		return buffer{-int(before), int(took)}
	}
	const moves = 4 * maxChunk // between two moves
	last := bufferSize + (took-bufferSize-1)/moves*moves - window
	return buffer{int(last - before), int(took - last)}
}

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
