package segment

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/imgpack/imgpack/dedupe/internal/zframe"
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
	_, length, err := zframe.Check(p, len(dst))
	if err != nil {
		return err
	}
	if length >= 0 && length != len(dst) {
		return zframe.ErrLength
	}
	out, err := frameDecoder().DecodeAll(p, dst[:0:len(dst)])
	if err != nil {
		return err
	}
	if len(out) != len(dst) {
		return zframe.ErrLength
	}
	return nil
}

// decodeCopies returns the columns of count copies in the frame p.
func decodeCopies(p []byte, count int) ([]byte, error) {
	limit := int(min(MaxCopies, int64(count)*3*binary.MaxVarintLen32))
	window, length, err := zframe.Check(p, limit)
	if err != nil {
		return nil, err
	}
	out, err := copiesDecoder().DecodeAll(p, make([]byte, 0, max(0, length)))
	switch {
	case err != nil:
		return nil, err
	case length >= 0 && length != len(out), len(out) > limit:
		return nil, zframe.ErrLength
	case window > len(out):
		return nil, zframe.ErrWindow
	}
	return out, nil
}
