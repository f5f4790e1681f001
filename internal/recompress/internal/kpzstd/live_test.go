package kpzstd

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// live is the class of the library in go.mod.
const live = V1_203

// fill returns content of a kind, the same for ever: no generator of a library is
// used for it.
func fill(kind string, n int) []byte {
	r := lcg(len(kind)*7919 + 1)
	b := make([]byte, 0, n+4096)
	for len(b) < n {
		switch kind {
		case "zeros":
			b = append(b, make([]byte, 4096)...)
		case "random":
			b = append(b, byte(r.next(256)))
		case "skewed":
			b = append(b, byte(r.next(256)&r.next(256)&r.next(64)))
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
	return b[:n]
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

func params(l Level, c Class) Params {
	p := Params{Class: c, Level: l, WindowLog: 23, Checksum: true}
	switch {
	case l == Fastest:
		p.WindowLog = 22
	case l == Better && c < V1_175:
		p.WindowLog = 24
	}
	return p
}

func encode(t testing.TB, p Params, cut int, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	e, err := NewEncoder(&out, p)
	if err != nil {
		t.Fatal(err)
	}
	for b := content; len(b) > 0; {
		n := min(cut, len(b))
		if _, err := e.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func library(t testing.TB, l Level, content []byte, o ...zstd.EOption) []byte {
	t.Helper()
	var out bytes.Buffer
	e, err := zstd.NewWriter(&out, append([]zstd.EOption{zstd.WithEncoderLevel(zstd.EncoderLevel(l))}, o...)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func sameBytes(t testing.TB, name string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	t.Fatalf("%s: %d bytes and %d from the library, the first %d the same", name, len(got), len(want), i)
}

func TestLikeTheLibrary(t *testing.T) {
	sizes := []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 15, 16, 17, 31, 32, 33, 63, 255, 256, 257, 1000, 1023, 1024, 1025, 4097,
		65535, 65536, 65537, 100000, 131071, 131072, 131073, 131088, 262144, 300001, 1 << 20}
	for _, l := range []Level{Fastest, Default, Better} {
		for _, kind := range kinds {
			for _, n := range sizes {
				b := fill(kind, n)
				name := fmt.Sprintf("level %d, %d bytes of %s", l, n, kind)
				sameBytes(t, name, encode(t, params(l, live), 1<<20, b), library(t, l, b))
			}
		}
	}
}

func TestLongerThanTheWindow(t *testing.T) {
	b := fill("mixed", 21<<20+77)
	for _, l := range []Level{Fastest, Default, Better} {
		sameBytes(t, fmt.Sprint("level ", l), encode(t, params(l, live), 99999, b), library(t, l, b))
	}
	p := params(Default, live)
	p.WindowLog, p.Checksum = 16, false
	b = b[:5<<20]
	want := library(t, Default, b, zstd.WithWindowSize(1<<16), zstd.WithEncoderCRC(false))
	sameBytes(t, "window of 64 KiB", encode(t, p, 1<<20, b), want)
	p = params(Better, live)
	p.WindowLog = 24
	sameBytes(t, "window of 16 MiB", encode(t, p, 1<<20, b), library(t, Better, b, zstd.WithWindowSize(1<<24)))
}

func TestKnownSize(t *testing.T) {
	for _, n := range []int{200, 5000, 131072, 140000, 9 << 20} {
		b := fill("tar", n)
		var want bytes.Buffer
		e, err := zstd.NewWriter(io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		e.ResetContentSize(&want, int64(n))
		if _, err := e.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		p := params(Default, live)
		p.Size = uint64(n)
		sameBytes(t, fmt.Sprint(n), encode(t, p, 1<<20, b), want.Bytes())
		sameBytes(t, "found", encode(t, search(t, want.Bytes(), b), 1<<20, b), want.Bytes())
	}
}

func TestFirstBlocks(t *testing.T) {
	b := fill("tar", 400000)
	for _, cuts := range [][]int{{8}, {512}, {8, 3}, {100, 5000}} {
		var want bytes.Buffer
		e, err := zstd.NewWriter(&want)
		if err != nil {
			t.Fatal(err)
		}
		p, rest := params(Default, live), b
		for _, n := range append(cuts, len(b)) {
			n = min(n, len(rest))
			if _, err := e.ReadFrom(bytes.NewReader(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
			if len(rest) > 0 {
				p.Cuts = append(p.Cuts, uint32(n))
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		sameBytes(t, fmt.Sprint(cuts), encode(t, p, 1<<20, b), want.Bytes())
	}
}

func TestCutOfWrites(t *testing.T) {
	b := fill("mixed", 500000)
	want := encode(t, params(Default, live), len(b), b)
	for _, n := range []int{1, 7, 4096, 131071, 131072, 131073, 262144} {
		sameBytes(t, fmt.Sprint(n), encode(t, params(Default, live), n, b), want)
	}
}

// search finds the parameters of a frame; content is cut into odd pieces.
func search(t testing.TB, frame, content []byte) Params {
	t.Helper()
	r := bytes.NewReader(frame)
	s, err := NewSearch(r, frame[:min(len(frame), 256)])
	if err != nil {
		t.Fatal(err)
	}
	for b := content; len(b) > 0; {
		n := min(1+rand.IntN(200000), len(b))
		if _, err := s.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r.Len() > 0 {
		t.Fatalf("%d bytes of the frame are not compared", r.Len())
	}
	return s.Params()
}
