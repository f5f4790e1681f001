package kpzstd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// live is the class of the library in go.mod.
const live = V1_203

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
	for _, l := range []Level{Fastest, Default, Better, Best} {
		for _, kind := range kinds {
			lib, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevel(l)))
			if err != nil {
				t.Fatal(err)
			}
			var e Encoder
			for _, n := range sizes {
				b := fill(kind, n)
				var got, want bytes.Buffer
				lib.Reset(&want)
				if err := e.Reset(&got, params(l, live)); err != nil {
					t.Fatal(err)
				}
				for _, w := range []io.WriteCloser{lib, &e} {
					if _, err := w.Write(b); err != nil {
						t.Fatal(err)
					}
					if err := w.Close(); err != nil {
						t.Fatal(err)
					}
				}
				sameBytes(t, fmt.Sprintf("level %d, %d bytes of %s", l, n, kind), got.Bytes(), want.Bytes())
			}
		}
	}
}

func TestLongerThanTheWindow(t *testing.T) {
	b := fill("mixed", 21<<20+77)
	for _, l := range []Level{Fastest, Default, Better, Best} {
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

func TestFlushedEnd(t *testing.T) {
	for _, n := range []int{5, 4096, 131072, 131073, 400000, 2 << 20} {
		b := fill("text", n)
		var want bytes.Buffer
		e, err := zstd.NewWriter(&want)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(e.Flush(), e.Close()); err != nil {
			t.Fatal(err)
		}
		p := params(Default, live)
		p.Flush = true
		sameBytes(t, fmt.Sprint(n), encode(t, p, 1<<20, b), want.Bytes())
		if found := search(t, want.Bytes(), b); found.Flush != (n%131072 != 0 && n > 5) {
			t.Errorf("%d bytes: flushed is %v", n, found.Flush)
		}
		if n%131072 != 0 {
			find(t, append(want.Bytes(), want.Bytes()...), append(bytes.Clone(b), b...))
		}
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

func TestLog2(t *testing.T) {
	for n := 1; n < 1<<17; n += 1 + n/50 {
		for c := 1; c <= n; c += 1 + c/20 {
			x := float64(float64(c) * (1 / float64(n)))
			if got, want := log2(x), math.Log2(x); got != want && runtime.GOARCH == "amd64" {
				t.Fatalf("of %v: %v, not %v", x, got, want)
			}
		}
	}
}
