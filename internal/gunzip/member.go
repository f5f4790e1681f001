package gunzip

import "hash/crc32"

// Flags of a member's header (RFC 1952, section 2.3.1).
const (
	flagHCRC    = 1 << 1
	flagExtra   = 1 << 2
	flagName    = 1 << 3
	flagComment = 1 << 4
)

// maxText bounds the name and the comment in a header, each with its NUL, as
// compress/gzip does.
const maxText = 512

// header reads the header of a member byte by byte. The zero value is at its
// beginning.
type header struct {
	part  part
	n     int // bytes of the part so far
	want  int // of the extra field, or the checksum
	flags byte
	crc   uint32
}

type part uint8

const (
	inFixed part = iota // ID, method, flags, time, system: 10 bytes
	inExtraLength
	inExtra
	inName
	inComment
	inHCRC
	headerDone
)

var magic = [3]byte{0x1f, 0x8b, 8}

// step takes one byte.
func (h *header) step(b byte) error {
	if h.part == inHCRC {
		h.want |= int(b) << (8 * h.n)
		if h.n++; h.n < 2 {
			return nil
		}
		if uint16(h.want) != uint16(h.crc) {
			return errHeader
		}
		h.part = headerDone
		return nil
	}
	h.crc = crc32.Update(h.crc, crc32.IEEETable, []byte{b})
	h.n++
	switch h.part {
	case inFixed:
		if h.n <= len(magic) && b != magic[h.n-1] {
			return errHeader
		}
		if h.n == 4 {
			h.flags = b
		}
		if h.n == 10 {
			h.next()
		}
	case inExtraLength:
		h.want |= int(b) << (8 * (h.n - 1))
		if h.n == 2 {
			h.next()
		}
	case inExtra:
		if h.n == h.want {
			h.next()
		}
	case inName, inComment:
		if b == 0 {
			h.next()
		} else if h.n == maxText {
			return errHeader
		}
	}
	return nil
}

// next goes to the next part that the flags, and for the extra field its length,
// say is there.
func (h *header) next() {
	h.n = 0
	for {
		h.part++
		switch {
		case h.part == inExtraLength && h.flags&flagExtra != 0,
			h.part == inExtra && h.want > 0,
			h.part == inName && h.flags&flagName != 0,
			h.part == inComment && h.flags&flagComment != 0,
			h.part == headerDone:
			return
		case h.part == inHCRC:
			if h.want = 0; h.flags&flagHCRC != 0 {
				return
			}
		}
	}
}
