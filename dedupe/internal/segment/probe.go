package segment

import (
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// probeLen bytes are looked at in every 16 times as many.
const probeLen = 4 << 10

// compressible reports whether p is worth compressing. Nearly everything that
// is shows in how often its bytes occur; what does not is tried.
func compressible(p []byte) bool {
	const step = 16 * probeLen
	if len(p) < probeLen {
		return true
	}
	var counts [256]int64
	var total int64
	for i := 0; i < len(p); i += step {
		q := p[i:min(i+probeLen, len(p))]
		for _, b := range q {
			counts[b]++
		}
		total += int64(len(q))
	}
	// Were all bytes as frequent, the squares would sum to total²/256. Whole
	// numbers: every machine must come to the same answer.
	var squares int64
	for _, n := range counts {
		squares += n * n
	}
	if 4*256*squares > 5*total*total {
		return true
	}
	var buf [probeLen + 64]byte
	var packed int64
	for i := 0; i < len(p); i += step {
		q := p[i:min(i+probeLen, len(p))]
		packed += int64(len(prober().EncodeAll(q, buf[:0])))
	}
	return packed < total-total/32
}

// prober tries pieces of probeLen bytes.
var prober = sync.OnceValue(func() *zstd.Encoder {
	return newCoder(zstd.SpeedFastest, probeLen, runtime.GOMAXPROCS(0))
})
