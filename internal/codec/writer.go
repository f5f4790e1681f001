package codec

import (
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

// gzipBlock is how much pgzip hands to one core, in bytes. It shapes the
// output, so it is fixed: the number of cores is not.
const gzipBlock = 1 << 20

// NewWriter returns a writer that compresses into w on all cores. Level 0 is
// the format's usual one; otherwise gzip has 1 to 9 and zstd 1 to 22. The
// output depends on the content and the level only, not on the cores or on how
// the content is cut into writes.
//
// Closing the writer ends the stream, reports errors of w not told before, and
// does not close w.
func NewWriter(w io.Writer, format Format, level int) (io.WriteCloser, error) {
	switch format {
	case None:
		return nopCloser{w}, nil
	case Gzip:
		return newGzipWriter(w, level)
	case Zstd:
		if level == 0 {
			level = 3
		}
		if level < 1 || level > 22 {
			return nil, fmt.Errorf("zstd level %d is not within 1 to 22", level)
		}
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithZeroFrames(true))
	}
	return nil, fmt.Errorf("unknown compression %q", format)
}

func newGzipWriter(w io.Writer, level int) (io.WriteCloser, error) {
	if level == 0 {
		level = 6
	}
	if level < 1 || level > 9 {
		return nil, fmt.Errorf("gzip level %d is not within 1 to 9", level)
	}
	z, err := pgzip.NewWriterLevel(w, level)
	if err != nil {
		return nil, err
	}
	if err := z.SetConcurrency(gzipBlock, runtime.GOMAXPROCS(0)); err != nil {
		return nil, err
	}
	return z, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
