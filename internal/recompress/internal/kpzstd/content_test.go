package kpzstd

import (
	"bytes"
	"fmt"
	"sync"
)

var made sync.Map

// fill returns content of a kind, the same for ever: no generator of a library is
// used for it. A shorter content is the beginning of a longer one.
func fill(kind string, n int) []byte {
	if b, ok := made.Load(kind); ok && len(b.([]byte)) >= n {
		return b.([]byte)[:n:n]
	}
	b := generate(kind, n)
	made.Store(kind, b)
	return b[:n:n]
}

func generate(kind string, n int) []byte {
	r := lcg(len(kind)*7919 + 1)
	b := make([]byte, 0, n+4096)
	for len(b) < n {
		switch kind {
		case "zeros":
			b = append(b, make([]byte, 4096)...)
		case "random":
			b = append(b, byte(r.next(256)))
		case "skewed":
			few := r.next(256)
			few &= r.next(256)
			b = append(b, byte(few&r.next(64)))
		case "text":
			b = r.word(b)
		case "period":
			b = append(b, byte(len(b)%77), byte(len(b)%13))
		case "tar":
			b = r.member(b, r.next(3000))
		case "mixed":
			b = r.piece(b)
		}
	}
	return b
}

var kinds = []string{"zeros", "random", "skewed", "text", "period", "tar", "mixed"}

type lcg uint64

func (r *lcg) next(n int) int {
	*r = *r*6364136223846793005 + 1442695040888963407
	return int(uint64(*r) >> 33 % uint64(n))
}

func (r *lcg) word(b []byte) []byte {
	n := r.next(400)
	n = n * n / 400
	for i := range 2 + n%9 {
		b = append(b, 'a'+byte((n*7+i*i*3)%26))
	}
	return append(b, ' ')
}

func (r *lcg) member(b []byte, n int) []byte {
	h := make([]byte, 512)
	copy(h, fmt.Sprintf("usr/share/doc/%d/file%d", r.next(100), r.next(1000)))
	copy(h[100:], fmt.Sprintf("0000644\x000000000\x000000000\x00%011o\x0014777777777\x00", n))
	b = append(b, h...)
	for end := len(b) + n; len(b) < end; {
		if n%3 == 0 {
			b = append(b, byte(r.next(256)))
		} else {
			b = r.word(b)
		}
	}
	return append(b, make([]byte, -len(b)&511)...)
}

// piece appends a run, noise, text, or a copy from near or far.
func (r *lcg) piece(b []byte) []byte {
	n := 1 + r.next(1<<r.next(17))
	switch r.next(6) {
	case 0:
		return append(b, bytes.Repeat([]byte{byte(n)}, n)...)
	case 1:
		for range n {
			b = append(b, byte(r.next(256)))
		}
	case 2:
		for end := len(b) + n; len(b) < end; {
			b = r.word(b)
		}
	default:
		if len(b) > 0 {
			from := r.next(len(b))
			b = append(b, b[from:min(len(b), from+n)]...)
		}
	}
	return b
}

// longContent is more than two windows.
const longContent = 17<<20 + 9

// goldenSizes are the lengths of the contents that golden digests are of.
func goldenSizes() (n []int) {
	for i := 1; i < 70; i++ {
		n = append(n, i)
	}
	for i := 70; i < 6000; i += i/9 + 3 {
		n = append(n, i, i+1)
	}
	return append(n, 65535, 65536, 65537, 131071, 131072, 131073, 262144, 600007)
}
