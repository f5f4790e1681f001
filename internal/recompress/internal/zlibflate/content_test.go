package zlibflate

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// contents are what models are tried on: the same for ever, as digests of what
// encoders made of them are in testdata.
func contents() map[string][]byte {
	r := rand.NewPCG(1, 2)
	random := make([]byte, 160<<10)
	for i := 0; i < len(random); i += 8 {
		binary.LittleEndian.PutUint64(random[i:], r.Uint64())
	}
	words := make([][]byte, 3000)
	for i := range words {
		w := make([]byte, 2+r.Uint64()%9)
		for j := range w {
			w[j] = byte('a' + r.Uint64()%(1+r.Uint64()%26))
		}
		words[i] = w
	}
	var text []byte
	for n := uint64(0); len(text) < 400<<10; n++ {
		text = append(text, words[r.Uint64()%(1+r.Uint64()%uint64(len(words)))]...)
		if text = append(text, ' '); n%11 == 10 {
			text[len(text)-1] = '\n'
		}
	}
	// Of entries like those of a tar.
	var tar []byte
	for n := 0; len(tar) < 300<<10; n++ {
		head := make([]byte, 512)
		copy(head, fmt.Sprintf("usr/share/%s/%s.txt", words[n%7], words[n*31%len(words)]))
		copy(head[100:], fmt.Sprintf("0000644\x000000000\x000000000\x00%011o\x0014000000000\x00%06o", n*97%4000, n*n))
		copy(head[257:], "ustar\x0000root")
		body := make([]byte, (n*97%4000+511)&^511)
		copy(body, text[n*509%len(text):][:min(n*97%4000, len(text)-n*509%len(text))])
		tar = append(append(tar, head...), body...)
	}
	tar = append(tar, make([]byte, 10<<10)...)
	// Bytes of few bits, which have many short matches from far away.
	sparse := make([]byte, 200<<10)
	for i := range sparse {
		sparse[i] = random[i*7%len(random)] & 0x49
	}
	all := map[string][]byte{
		"empty": nil, "random": random, "text": text, "tar": tar, "sparse": sparse, "zeros": make([]byte, 300_000),
	}
	var mixed []byte
	for i := 0; i < 140<<10; i += 20 << 10 {
		mixed = append(append(append(append(mixed, text[i:i+20<<10]...), random[i:i+9<<10]...), tar[i:i+20<<10]...), sparse[i:i+5<<10]...)
	}
	all["mixed"] = mixed
	for _, n := range []int{1, 2, 3, 4, 5, 10, 100, 257, 258, 259, 260, 261, 262, 263, 264, 300, 32505, 32506, 32507, 32767, 32768, 32769, 65274, 65275, 65536, 131072, 131073} {
		all[fmt.Sprintf("text %d", n)] = text[n : 2*n]
		all[fmt.Sprintf("mixed %d", n)] = mixed[10000+n : 10000+2*n]
	}
	return all
}
