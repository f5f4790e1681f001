package segment

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	frameMagic = "\x28\xb5\x2f\xfd"
	maxBlock   = 128 << 10 // of a zstd block
)

// newCoder returns an encoder for frames of at most n bytes that jobs may use
// at a time. Its frames are single segments without a checksum: the digest of
// the blob covers them.
func newCoder(level zstd.EncoderLevel, n, jobs int) *zstd.Encoder {
	window := max(zstd.MinWindowSize, 1<<bits.Len(uint(n-1)))
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(jobs),
		zstd.WithWindowSize(window), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false),
		zstd.WithAllLitEntropyCompression(true), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

// frameCap is the room that compressFrame needs for n bytes.
func frameCap(n int) int { return len(frameMagic) + 5 + n + 3*(n/maxBlock+1) }

// compressFrame appends a zstd frame of p to dst, which has frameCap(len(p))
// bytes of room.
func compressFrame(dst, p []byte, coder *zstd.Encoder) []byte {
	if compressible(p) {
		if out := coder.EncodeAll(p, dst); len(out)-len(dst) < frameCap(len(p)) {
			return append(dst, out[len(dst):]...) // it may have been moved
		}
	}
	return appendRaw(dst, p)
}

// appendRaw appends a zstd frame that stores p as it is.
func appendRaw(dst, p []byte) []byte {
	const singleSegment, length4 = 1 << 5, 2 << 6
	dst = append(dst, frameMagic...)
	dst = append(dst, singleSegment|length4)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(p)))
	for {
		n := min(len(p), maxBlock)
		head := uint32(n) << 3 // a raw block
		if n == len(p) {
			head |= 1 // the last one
		}
		dst = append(dst, byte(head), byte(head>>8), byte(head>>16))
		dst = append(dst, p[:n]...)
		if p = p[n:]; len(p) == 0 {
			return dst
		}
	}
}

var (
	errFrame  = errors.New("not one zstd frame")
	errDict   = errors.New("frame wants a dictionary")
	errWindow = errors.New("window larger than content")
	errLength = errors.New("content of another length")
)

// checkFrame reports whether p is one zstd frame whole, without a dictionary,
// of at most limit bytes of content and a window no larger, by its headers. It
// returns what they say: the window, and the content's length, -1 if they do
// not tell.
func checkFrame(p []byte, limit int) (window, length int, err error) {
	var h zstd.Header
	if err := h.Decode(p); err != nil || h.Skippable {
		return 0, 0, errFrame
	}
	if h.DictionaryID != 0 {
		return 0, 0, errDict
	}
	length = -1
	if h.HasFCS {
		if h.FrameContentSize > uint64(limit) {
			return 0, 0, errLength
		}
		length = int(h.FrameContentSize)
	}
	if !h.SingleSegment {
		if h.WindowSize > uint64(limit) {
			return 0, 0, errWindow
		}
		window = int(h.WindowSize)
	}
	if !endsWithFrame(p[h.HeaderSize:], h.HasCheckSum) {
		return 0, 0, errFrame
	}
	return window, length, nil
}

// endsWithFrame walks the blocks in p and reports whether the frame ends there.
func endsWithFrame(p []byte, checksum bool) bool {
	const rle = 1
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

func decoder(options ...zstd.DOption) func() *zstd.Decoder {
	return sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, append(options, zstd.WithDecoderConcurrency(0))...)
		if err != nil {
			panic(err) // the options are constants
		}
		return d
	})
}

var (
	frameDecoder  = decoder(zstd.WithDecoderMaxMemory(MaxFrame), zstd.WithDecodeAllCapLimit(true))
	copiesDecoder = decoder(zstd.WithDecoderMaxMemory(MaxCopies))
)

// decodeFrame fills dst with the content of the frame p, exactly.
func decodeFrame(dst, p []byte) error {
	_, length, err := checkFrame(p, len(dst))
	if err != nil {
		return err
	}
	if length >= 0 && length != len(dst) {
		return errLength
	}
	out, err := frameDecoder().DecodeAll(p, dst[:0:len(dst)])
	if err != nil {
		return err
	}
	if len(out) != len(dst) {
		return errLength
	}
	return nil
}

// decodeCopies returns the columns of count copies in the frame p.
func decodeCopies(p []byte, count int) ([]byte, error) {
	limit := int(min(MaxCopies, int64(count)*3*binary.MaxVarintLen32))
	window, length, err := checkFrame(p, limit)
	if err != nil {
		return nil, err
	}
	out, err := copiesDecoder().DecodeAll(p, make([]byte, 0, max(0, length)))
	switch {
	case err != nil:
		return nil, err
	case length >= 0 && length != len(out), len(out) > limit:
		return nil, errLength
	case window > len(out):
		return nil, errWindow
	}
	return out, nil
}
