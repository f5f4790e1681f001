package segment

import (
	"math"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

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
		packed += len(estimator(Fast).EncodeAll(q, buf[:0]))
	}
	return packed < total-total/32
}

// estimators compress pieces for Estimate, as many at a time as there are
// processors.
var estimators = [...]func() *zstd.Encoder{estimatorOf(Fast), estimatorOf(Default), estimatorOf(Max)}

func estimatorOf(l Level) func() *zstd.Encoder {
	return sync.OnceValue(func() *zstd.Encoder {
		s := l.settings()
		return newCoder(s.level, min(s.frame, 1<<20), runtime.GOMAXPROCS(0))
	})
}

func estimator(l Level) *zstd.Encoder {
	switch l {
	case Fast:
		return estimators[0]()
	case Max:
		return estimators[2]()
	}
	return estimators[1]()
}

// Estimate returns about how many bytes p would take in a segment, by
// compressing it: long-distance copies are not looked for. It may be called
// from several goroutines.
func Estimate(p []byte, l Level) int {
	n := 0
	for len(p) > 0 {
		piece := p[:min(len(p), 1<<20)]
		p = p[len(piece):]
		n += min(len(piece), len(estimator(l).EncodeAll(piece, nil)))
	}
	return n
}
