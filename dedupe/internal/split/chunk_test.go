package split

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"
)

// stream is n bytes that any language makes again: SHA-256 of 0, 1, 2 … as
// eight bytes big-endian, after the seed.
func stream(seed string, n int) []byte {
	var out []byte
	for i := uint64(0); len(out) < n; i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(seed), i))
		out = append(out, sum[:]...)
	}
	return out[:n]
}

func lengths(p []byte) (all []int) {
	for len(p) > 0 {
		n := Cut(p)
		all = append(all, n)
		p = p[n:]
	}
	return all
}

// The numbers of this test are those of receipts that exist: whoever changes
// them makes every receipt useless.
func TestFrozen(t *testing.T) {
	if gear()[0] != 0x97c1371fc1c22c0e || gear()[255] != 0x4a822db1c233f967 {
		t.Errorf("gear[0] = %#x, gear[255] = %#x", gear()[0], gear()[255])
	}
	var table []byte
	for _, g := range gear() {
		table = binary.BigEndian.AppendUint64(table, g)
	}
	sum := sha256.Sum256(table)
	if got := hex.EncodeToString(sum[:]); got != "739c99cfbde09b78a4866842d178e1d148a6000bd22de9d810d3f2ddaf3ac8bb" {
		t.Errorf("the table hashes to %s", got)
	}
	if got, want := lengths(stream("imgpack test 1", 1<<20)), []int{
		68751, 67862, 114855, 38432, 85497, 70844, 36112, 72595, 92088, 73007, 67144, 150976, 84376, 26037,
	}; !slices.Equal(got, want) {
		t.Errorf("chunks of %v, want %v", got, want)
	}
	all := lengths(stream("imgpack test 2", 16<<20))
	sum = sha256.Sum256(fmt.Append(nil, all))
	if got := hex.EncodeToString(sum[:]); len(all) != 227 || got != "756850630e2a53bd2078613699cf7548393f3dc432607d35f76318292c316e89" {
		t.Errorf("%d chunks whose lengths hash to %s", len(all), got)
	}
	if got := fmt.Sprintf("%x", SumOf([]byte("imgpack"))); got != "6a4a6cbca15e2b722c9c33cee932086a" {
		t.Errorf("sum %s", got)
	}
}

// specified is the rule as docs/bundle-format.md has it, word by word.
func specified(body []byte) int {
	if len(body) <= 16384 {
		return len(body)
	}
	h, g := uint64(0), map[byte]uint64{}
	for i, b := range body {
		if _, ok := g[b]; !ok {
			sum := sha256.Sum256(append([]byte("imgpack gear 1"), b))
			g[b] = binary.BigEndian.Uint64(sum[:8])
		}
		h = h<<1 + g[b]
		nth, mask := i+1, uint64(0xffffc00000000000) // the upper 18 bits
		if nth >= 65536 {
			mask = 0xfffc000000000000 // the upper 14
		}
		if nth >= 16384 && h&mask == 0 || nth == 262144 {
			return nth
		}
	}
	return len(body)
}

func TestCutIsAsSpecified(t *testing.T) {
	for i := range 12 {
		p := stream(fmt.Sprint("seed ", i), 300<<10)
		for range 2 {
			n := Cut(p)
			if want := specified(p); n != want {
				t.Fatalf("seed %d: %d, want %d", i, n, want)
			}
			p = p[n:]
		}
	}
	for _, n := range []int{0, 1, MinChunk - 1, MinChunk, MinChunk + 1, AvgChunk - 1, AvgChunk, AvgChunk + 1, MaxChunk - 1, MaxChunk, MaxChunk + 1} {
		for _, p := range [][]byte{make([]byte, n), bytes.Repeat([]byte{0xa5}, n)} {
			if got, want := Cut(p), specified(p); got != want {
				t.Errorf("%d like bytes: %d, want %d", n, got, want)
			}
		}
	}
}

// TestCutAtEveryEdge puts the bytes that end a chunk so that it ends at a given
// place.
func TestCutAtEveryEdge(t *testing.T) {
	p := stream("edges", 4<<20)
	find := func(limit uint64) []byte { // 64 bytes after which the hash is below limit
		h := uint64(0)
		for i, b := range p {
			if h = h<<1 + gear()[b]; h < limit && i >= window {
				return p[i-window+1 : i+1]
			}
		}
		t.Fatal("the stream has none")
		return nil
	}
	strong, weak := find(early), find(late)
	if hash(weak) < early {
		t.Fatal("the weak end is a strong one")
	}
	for _, c := range []struct {
		end  []byte
		at   int
		want int
	}{
		{strong, MinChunk - 1, MaxChunk}, {strong, MinChunk, MinChunk}, {strong, MinChunk + 1, MinChunk + 1},
		{weak, MinChunk, MaxChunk}, {weak, AvgChunk - 1, MaxChunk}, {weak, AvgChunk, AvgChunk},
		{strong, AvgChunk - 1, AvgChunk - 1}, {strong, AvgChunk, AvgChunk},
		{weak, MaxChunk - 1, MaxChunk - 1}, {weak, MaxChunk, MaxChunk},
	} {
		body := make([]byte, MaxChunk+1000)
		copy(body[c.at-window:], c.end)
		if Cut(make([]byte, MaxChunk)) != MaxChunk {
			t.Fatal("zeros end a chunk")
		}
		if got := Cut(body); got != c.want || got != specified(body) {
			t.Errorf("an end at %d: %d, want %d (specified %d)", c.at, got, c.want, specified(body))
		}
	}
}

func hash(p []byte) (h uint64) {
	for _, b := range p {
		h = h<<1 + gear()[b]
	}
	return h
}

func TestChunksFindThemselvesAgain(t *testing.T) {
	p := stream("shifted", 8<<20)
	whole := map[Sum]bool{}
	for rest := p; len(rest) > 0; {
		n := Cut(rest)
		whole[SumOf(rest[:n])] = true
		rest = rest[n:]
	}
	found, all := 0, 0
	for rest := append([]byte("something put before"), p...); len(rest) > 0; {
		n := Cut(rest)
		if all++; whole[SumOf(rest[:n])] {
			found++
		}
		rest = rest[n:]
	}
	if found < all*9/10 {
		t.Errorf("%d of %d chunks are found again", found, all)
	}
}

func BenchmarkCut(b *testing.B) {
	p := stream("benchmark", 16<<20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		for rest := p; len(rest) > 0; rest = rest[Cut(rest):] {
		}
	}
}
