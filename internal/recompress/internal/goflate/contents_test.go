package goflate

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

// contents are deterministic.
var contents = func() []content {
	const n = 1<<20 + 400_000
	return []content{
		{"zeros", make([]byte, n)}, {"random", random(n)}, {"text", text(n)},
		{"sparse", sparse(n)}, {"tar", tarred(n)}, {"mixed", mixed(n)},
	}
}()

type content struct {
	name string
	data []byte
}

func random(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// text has words of a few thousand, frequent ones among them, and lines that
// come again.
func text(n int) []byte {
	r := rand.New(rand.NewPCG(2, uint64(n)))
	words := make([]string, 3000)
	for i := range words {
		w := make([]byte, 2+r.IntN(9))
		for k := range w {
			w[k] = 'a' + byte(r.IntN(26)*r.IntN(26)/26)
		}
		words[i] = string(w)
	}
	var b bytes.Buffer
	for b.Len() < n {
		if had := b.Len(); had > 200 && r.IntN(40) == 0 {
			at := had - 150 - r.IntN(min(had-150, 50_000))
			b.Write(bytes.Clone(b.Bytes()[at : at+20+r.IntN(130)]))
		}
		i := r.IntN(len(words))
		b.WriteString(words[i*r.IntN(len(words))/len(words)])
		b.WriteByte(" \n"[r.IntN(12)/11])
	}
	return b.Bytes()[:n]
}

// sparse has few values, most of them 0, as tables of programs have.
func sparse(n int) []byte {
	r := rand.New(rand.NewPCG(3, uint64(n)))
	b := make([]byte, n)
	for i := 0; i < n; i += 1 + r.IntN(12) {
		b[i] = byte(r.IntN(1 + r.IntN(255)))
	}
	return b
}

func tarred(n int) []byte {
	r := rand.New(rand.NewPCG(4, uint64(n)))
	words, numbers, noise := text(n/2+100_000), sparse(n/4+100_000), random(n/8+100_000)
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		size := 1 + r.IntN(1+r.IntN(90_000))
		from := [][]byte{words, words, numbers, noise}[r.IntN(4)]
		at := r.IntN(len(from) - size)
		header := make([]byte, 512)
		copy(header, fmt.Sprintf("usr/lib/%d/file-%d", i%7, i))
		copy(header[100:], fmt.Sprintf("0000644\x000000000\x000000000\x00%011o\x0000000000000\x00%06o\x00 0", size, i*37%4000))
		copy(header[257:], "ustar\x0000")
		b.Write(header)
		b.Write(from[at : at+size])
		b.Write(make([]byte, -size&511))
	}
	return b.Bytes()[:n]
}

// mixed changes its nature at places that fall on no border.
func mixed(n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		k := 1000 + i*i*7919%50_000
		b = append(b, [](func(int) []byte){random, text, sparse, tarred}[i%4](k)...)
	}
	return b[:n]
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// sizes are around what encoders count in.
var sizes = []int{
	0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 100, 127, 128, 129, 257, 258, 259, 261, 262, 263,
	16383, 16384, 16385, 32767, 32768, 32769, 65274, 65275, 65276, 65534, 65535, 65536, 65537,
	65800, 98304, 98305, 131070, 131071, 1<<20 - 1, 1 << 20, 1<<20 + 1,
}
