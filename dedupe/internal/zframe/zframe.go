// Package zframe proves by its headers that bytes are one zstd frame whole and
// nothing else, before they are given to a decoder: that would take several
// frames, pass over skippable ones, and make room for whatever they announce.
package zframe

import (
	"errors"

	"github.com/klauspost/compress/zstd"
)

// The reasons to refuse bytes.
var (
	ErrFrame  = errors.New("not one zstd frame")
	ErrDict   = errors.New("frame wants a dictionary")
	ErrWindow = errors.New("window larger than content")
	ErrLength = errors.New("content of another length")
)

// Check proves that p is one frame, without a dictionary, of at most limit
// bytes of content and a window no larger. It returns what the headers say: the
// window, 0 if it is the content, and the content's length, -1 if they do not
// tell. What the frame holds is for the decoder to prove.
func Check(p []byte, limit int) (window, length int, err error) {
	var h zstd.Header
	if err := h.Decode(p); err != nil || h.Skippable {
		return 0, 0, ErrFrame
	}
	if h.DictionaryID != 0 {
		return 0, 0, ErrDict
	}
	length = -1
	if h.HasFCS {
		if h.FrameContentSize > uint64(limit) {
			return 0, 0, ErrLength
		}
		length = int(h.FrameContentSize)
	}
	if !h.SingleSegment {
		if h.WindowSize > uint64(limit) {
			return 0, 0, ErrWindow
		}
		window = int(h.WindowSize)
	}
	if !endsWithFrame(p[h.HeaderSize:], h.HasCheckSum) {
		return 0, 0, ErrFrame
	}
	return window, length, nil
}

// endsWithFrame walks the blocks in p (RFC 8878, section 3.1.1) and reports
// whether the frame ends there.
func endsWithFrame(p []byte, checksum bool) bool {
	const rle = 1 // one byte, repeated
	for {
		if len(p) < 3 {
			return false
		}
		head := uint32(p[0]) | uint32(p[1])<<8 | uint32(p[2])<<16
		n := int(head >> 3)
		if head>>1&3 == rle {
			n = 1
		}
		if p = p[3:]; n > len(p) {
			return false
		}
		if p = p[n:]; head&1 == 1 {
			return checksum && len(p) == 4 || !checksum && len(p) == 0
		}
	}
}
