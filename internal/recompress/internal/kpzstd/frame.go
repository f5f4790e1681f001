package kpzstd

import (
	"encoding/binary"
	"math/bits"
)

const (
	magic         = 0xFD2FB528
	magicSkip     = 0x184D2A50 // to ...5F: a frame that decoders skip
	maxHeader     = 18
	leastForAlone = 1024 // longer contents of one block say no window
	descChecksum  = 1 << 2
	descReserved  = 1 << 3
	descSingle    = 1 << 5
)

// appendFrameHeader appends the header of a frame of size bytes, 0 if that is not
// said (RFC 8878, 3.1.1.1).
func appendFrameHeader(out []byte, p Params, size uint64, single bool) []byte {
	out = binary.LittleEndian.AppendUint32(out, magic)
	desc := byte(0)
	if p.Checksum {
		desc |= descChecksum
	}
	if single {
		desc |= descSingle
	}
	field := byte(0)
	switch {
	case size >= 1<<32-1:
		field = 3
	case size >= 1<<16+256:
		field = 2
	case size >= 256:
		field = 1
	}
	out = append(out, desc|field<<6)
	if !single {
		log := p.WindowLog
		if size > 0 && size < 1<<p.WindowLog {
			log = max(uint8(bits.Len64(size)), minWindowLog)
		}
		out = append(out, (log-minWindowLog)<<3)
	}
	switch field {
	case 0:
		if single {
			out = append(out, byte(size))
		}
	case 1:
		out = binary.LittleEndian.AppendUint16(out, uint16(size-256))
	case 2:
		out = binary.LittleEndian.AppendUint32(out, uint32(size))
	case 3:
		out = binary.LittleEndian.AppendUint64(out, size)
	}
	return out
}

// frameHeader is what a frame says of itself.
type frameHeader struct {
	length    int // of the header
	skip      int64
	checksum  bool
	single    bool
	dict      bool
	sized     bool
	size      uint64
	windowLog uint8 // 0 if single, or if no power of two
}

// parseFrameHeader reads the header at the beginning of b; more is that b is too
// short to tell, bad that it is none.
func parseFrameHeader(b []byte) (h frameHeader, more, bad bool) {
	if len(b) < 5 {
		return h, true, false
	}
	m := binary.LittleEndian.Uint32(b)
	if m&^15 == magicSkip {
		if len(b) < 8 {
			return h, true, false
		}
		h.length, h.skip = 8, int64(binary.LittleEndian.Uint32(b[4:]))
		return h, false, false
	}
	desc := b[4]
	if m != magic || desc&descReserved != 0 {
		return h, false, true
	}
	h.checksum, h.single, h.dict = desc&descChecksum != 0, desc&descSingle != 0, desc&3 != 0
	n := 5
	if !h.single {
		n++
	}
	n += []int{0, 1, 2, 4}[desc&3]
	field := []int{0, 2, 4, 8}[desc>>6]
	if field == 0 && h.single {
		field = 1
	}
	h.length = n + field
	if len(b) < h.length {
		return h, true, false
	}
	if !h.single && b[5]&7 == 0 {
		h.windowLog = b[5]>>3 + minWindowLog
	}
	var raw [8]byte
	copy(raw[:], b[n:h.length])
	h.size, h.sized = binary.LittleEndian.Uint64(raw[:]), field > 0
	if field == 2 {
		h.size += 256
	}
	return h, false, false
}

// Frames finds where the frames of a stream end, without decoding: it is fed with
// the stream in pieces of any length. The zero value is at the beginning of a
// stream. It holds no more than a header.
type Frames struct {
	head  [maxHeader]byte
	n     int   // bytes in head
	skip  int64 // bytes to go over before the next header
	state frameState
	sum   bool
}

type frameState uint8

const (
	atFrame frameState = iota
	atBlock
	lastBlock // what is skipped ends the frame
	badFrame
)

// Next goes over bytes of the stream, to the end of p or of the frame, whichever
// comes first. It returns how many those were, whether a frame ends there, and
// false if p goes on with something that is no frame. A skippable frame is one.
func (f *Frames) Next(p []byte) (n int, end, ok bool) {
	for {
		if f.skip > 0 {
			k := min(f.skip, int64(len(p)-n))
			n += int(k)
			if f.skip -= k; f.skip > 0 {
				return n, false, true
			}
		}
		switch f.state {
		case lastBlock:
			f.state = atFrame
			return n, true, true
		case badFrame:
			return n, false, false
		}
		if n == len(p) {
			return n, false, true
		}
		f.head[f.n] = p[n]
		f.n++
		n++
		f.step()
	}
}

// step looks whether head is complete.
func (f *Frames) step() {
	b := f.head[:f.n]
	if f.state == atBlock {
		if f.n < 3 {
			return
		}
		v := int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16
		f.n = 0
		f.skip = v >> 3
		switch v >> 1 & 3 {
		case blockRLE:
			f.skip = 1
		case 3:
			f.state = badFrame
			return
		}
		if v&1 != 0 {
			f.state = lastBlock
			if f.sum {
				f.skip += 4
			}
		}
		return
	}
	h, more, bad := parseFrameHeader(b)
	switch {
	case bad:
		f.state = badFrame
	case more:
	case h.length == 8 && binary.LittleEndian.Uint32(b)&^15 == magicSkip:
		f.n, f.skip, f.state = 0, h.skip, lastBlock
	default:
		f.n, f.sum, f.state = 0, h.checksum, atBlock
	}
}
