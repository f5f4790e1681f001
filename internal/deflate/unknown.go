package deflate

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Copy is a match that copied bytes that were not known: where in the buffer it
// put them, how many, and from how far back.
type Copy uint64

func newCopy(at, length, distance int) Copy {
	return Copy(at)<<32 | Copy(length)<<16 | Copy(distance-1)
}

// Unknown tells what of a buffer is not known: what was before it, and what
// matches copied of that.
type Unknown struct {
	// Copies are the matches that copied what was not known, in order. The caller
	// may take them.
	Copies []Copy

	bits []byte // one for each byte of the buffer, and room to load beyond
}

// loadBits is how many bits one load gives, wherever they begin.
const loadBits = 57

// NewUnknown is for buffers of size bytes, of which the first Window are unknown.
func NewUnknown(size int) *Unknown {
	u := &Unknown{bits: make([]byte, size/8+16)}
	u.Reset()
	return u
}

// Reset makes the first Window bytes unknown, and all others known.
func (u *Unknown) Reset() {
	for i := range u.bits[:Window/8] {
		u.bits[i] = 0xff
	}
	clear(u.bits[Window/8:])
}

// Follow is for a buffer that begins with the Window bytes before at. It tells
// whether any of them is unknown.
func (u *Unknown) Follow(at int) bool {
	unknown := uint32(0)
	from := at - Window
	for to := 0; to < Window; to += 32 {
		v := uint32(binary.LittleEndian.Uint64(u.bits[(from+to)>>3:]) >> (from & 7))
		binary.LittleEndian.PutUint32(u.bits[to>>3:], v)
		unknown |= v
	}
	clear(u.bits[Window/8:])
	return unknown != 0
}

// match takes a match into account.
func (u *Unknown) match(at, length, distance int) {
	if u.mark(at, length, distance) {
		u.Copies = append(u.Copies, newCopy(at, length, distance))
	}
}

// mark marks what a match copies and tells whether any of it is unknown.
func (u *Unknown) mark(at, length, distance int) bool {
	unknown := uint64(0)
	for end := at + length; at < end; {
		n := min(end-at, distance, loadBits)
		from := at - distance
		v := load64(u.bits, from>>3) >> (from & 7) & (1<<n - 1)
		store64(u.bits, at>>3, load64(u.bits, at>>3)|v<<(at&7))
		unknown |= v
		at += n
	}
	return unknown != 0
}

// InflateUnknown is Inflate where part of what is before at is unknown, as u
// tells. Redo puts it right.
func (f *Inflater) InflateUnknown(out []byte, at int, u *Unknown) (int, error) {
	if len(u.bits) < len(out)/8+16 {
		return at, fmt.Errorf("a buffer of %d bytes is more than was foreseen", len(out))
	}
	return f.inflate(out, at, 0, u)
}

// Redo does copies again in the buffer they are of, when its first Window bytes
// are known, from low on. It tells whether none wants what is before low.
func Redo(out []byte, low int, copies []Copy) bool {
	if n := len(copies); n > 0 && int(copies[n-1]>>32)+MaxLength+16 > len(out) {
		return false // these are of another buffer
	}
	for _, c := range copies {
		at, length, distance := int(c>>32), int(c>>16&0xffff), int(c&0xffff)+1
		from := at - distance
		if from < low {
			return false
		}
		if distance < 8 && distance < length {
			for i := range length {
				out[at+i] = out[from+i]
			}
			continue
		}
		for ; length > 16; length -= 8 {
			store64(out, at, load64(out, from))
			at += 8
			from += 8
		}
		// What follows stays. Most copies come here, and no branch tells long ones.
		m := ^uint64(0) >> max(0, 64-8*length)
		store64(out, at, load64(out, at)&^m|load64(out, from)&m)
		m = ^uint64(0) >> (128 - 8*length)
		store64(out, at+8, load64(out, at+8)&^m|load64(out, from+8)&m)
	}
	return true
}

// copiesStep is what Copies grow by at least.
const copiesStep = 2048

func (f *Inflater) fastUnknown(out []byte, op int, u *Unknown) (int, error) {
	for {
		u.Copies = slices.Grow(u.Copies, copiesStep)
		had := len(u.Copies)
		room := u.Copies[had:cap(u.Copies)]
		at, n, err := f.fastCopies(out, op, u, room)
		u.Copies = u.Copies[:had+n]
		if err != nil || n < len(room) {
			return at, err
		}
		op = at
	}
}
