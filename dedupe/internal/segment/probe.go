package segment

import (
	"math"
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
	var counts [256]uint32
	total := 0
	for i := 0; i < len(p); i += step {
		q := p[i:min(i+probeLen, len(p))]
		for _, b := range q {
			counts[b]++
		}
		total += len(q)
	}
	sum := 0.0
	for _, n := range counts {
		if n > 0 {
			sum += float64(n) * math.Log2(float64(total)/float64(n))
		}
	}
	if sum < 7.9*float64(total) {
		return true
	}
	var buf [probeLen + 64]byte
	packed := 0
	for i := 0; i < len(p); i += step {
		q := p[i:min(i+probeLen, len(p))]
		packed += len(prober().EncodeAll(q, buf[:0]))
	}
	return packed < total-total/32
}

// prober tries pieces of probeLen bytes.
var prober = sync.OnceValue(func() *zstd.Encoder {
	return newCoder(zstd.SpeedFastest, probeLen, runtime.GOMAXPROCS(0))
})
