package deflate

import "io"

// MinRoom is how much room Inflate needs to go on.
const MinRoom = 288

// Inflater gives the content of one deflate stream, piece by piece. It holds no
// content itself. The zero value is at the beginning of a stream.
type Inflater struct {
	input
	codes
	head  Header
	state state
	left  int // of the stored block
}

type state uint8

const (
	atBlock state = iota
	inStored
	inTokens
	atEnd
)

// Reset puts the inflater at the beginning of a stream without input.
func (f *Inflater) Reset() {
	f.input = input{}
	f.state, f.left = atBlock, 0
}

// Restart puts it at the beginning of another stream in the same input.
func (f *Inflater) Restart() { f.state = atBlock }

// Rest is the input that was not taken yet. A byte of which some bits were
// taken does not count.
func (f *Inflater) Rest() []byte { return f.in[f.pos:] }

// Take returns the next n bytes of the input, at a stream's end, if there are
// as many.
func (f *Inflater) Take(n int) ([]byte, bool) {
	if len(f.in)-f.pos < n {
		return nil, false
	}
	f.pos += n
	return f.in[f.pos-n : f.pos], true
}

// Feed gives more input: b begins with Rest. It must not change until the next.
func (f *Inflater) Feed(b []byte) { f.in, f.pos = b, 0 }

// AtBorder tells that the next byte of the input begins a block.
func (f *Inflater) AtBorder() bool { return f.state == atBlock && f.n == 0 }

// Inflate goes on and puts content at out[at:]; that before it is out[low:at],
// of which matches want the last Window bytes. It returns where the content
// ends. The error is nil when less than MinRoom bytes are left of out,
// io.ErrShortBuffer when more input is needed, io.EOF at the end of the stream,
// and otherwise an ErrFormat. All of out may be written to.
func (f *Inflater) Inflate(out []byte, at, low int) (int, error) {
	return f.inflate(out, at, low, nil)
}

func (f *Inflater) inflate(out []byte, at, low int, u *Unknown) (int, error) {
	var err error
	for len(out)-at >= MinRoom {
		switch f.state {
		case atBlock:
			if f.left, err = f.header(&f.input, &f.head); err == nil {
				f.state = inTokens
				if f.head.Type == Stored {
					f.state = inStored
				}
			}
			f.unread()
		case inStored:
			at, err = f.stored(out, at)
		case inTokens:
			if u == nil {
				at, err = f.fast(out, at, low)
			} else {
				at, err = f.fastUnknown(out, at, u)
			}
			if err == nil && f.state == inTokens {
				at, err = f.slow(out, at, low, u)
			}
			f.unread()
		case atEnd:
			return at, io.EOF
		}
		if err == errShort {
			err = io.ErrShortBuffer
		}
		if err != nil {
			return at, err
		}
	}
	return at, nil
}

// endBlock is behind the last token or byte of a block.
func (f *Inflater) endBlock() {
	f.state = atBlock
	if f.head.Final {
		f.unread()
		f.bits, f.n = 0, 0
		f.state = atEnd
	}
}

func (f *Inflater) stored(out []byte, at int) (int, error) {
	n := min(f.left, len(f.in)-f.pos, len(out)-at)
	copy(out[at:at+n], f.in[f.pos:])
	f.pos += n
	if f.left -= n; f.left == 0 {
		f.endBlock()
	} else if f.pos == len(f.in) {
		return at + n, errShort
	}
	return at + n, nil
}

// slow takes tokens one by one: where input or output ends, and up to where fast
// may go on.
func (f *Inflater) slow(out []byte, at, low int, u *Unknown) (int, error) {
	for len(out)-at >= MinRoom {
		t, err := f.token(&f.input)
		switch {
		case err != nil:
			return at, err
		case t == EndOfBlock:
			f.endBlock()
			return at, nil
		case !t.IsMatch():
			out[at] = byte(t)
			at++
			continue
		}
		d := t.Distance()
		if d > at-low {
			return at, errFar
		}
		if u != nil {
			u.match(at, t.Length(), d)
		}
		for n := t.Length(); n > 0; n-- {
			out[at] = out[at-d]
			at++
		}
	}
	return at, nil
}

// copyNear copies a match from less than 8 bytes back, by repeating those.
func copyNear(out []byte, op, distance, length int) {
	d := uint(distance) * 8
	v := load64(out, op-distance) & (1<<(d&63) - 1)
	v |= v << (d & 63)
	v |= v << (2 * d)
	v |= v << (4 * d)
	step := 8 - 8%distance
	for end := op + length; op < end; op += step {
		store64(out, op, v)
	}
}
