package codec

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

var formats = []Format{Gzip, Zstd}

func text(n int) []byte {
	g := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "line %d of some text, %d\n", b.Len(), g.IntN(1000))
	}
	return b.Bytes()[:n]
}

func compress(t testing.TB, f Format, level int, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := NewWriter(&buf, f, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func decompress(r io.Reader, f Format) ([]byte, error) {
	z, err := NewReader(r, f)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return io.ReadAll(z)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestSniff(t *testing.T) {
	for head, want := range map[string]Format{
		"": None, "\x1f": None, "\x1f\x8b": Gzip, "\x1f\x8b\x08\x00": Gzip, "\x28\xb5\x2f\xfd": Zstd, "\x28\xb5\x2f": None,
		"\x50\x2a\x4d\x18": Zstd, "\x5f\x2a\x4d\x18": Zstd, "\x60\x2a\x4d\x18": None, "tar ": None, "BZh9": None,
	} {
		if got := Sniff([]byte(head)); got != want {
			t.Errorf("%q is %s, want %s", head, got, want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for _, f := range []Format{None, Gzip, Zstd} {
		for _, n := range []int{0, 1, 511, 1 << 16, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3 << 20} {
			data := text(n)
			for _, level := range []int{0, 1} {
				z := compress(t, f, level, data)
				if got := Sniff(z); got != f {
					t.Errorf("%s of %d bytes is taken for %s", f, n, got)
				}
				if got, err := decompress(bytes.NewReader(z), f); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s level %d of %d bytes: %d back, %v", f, level, n, len(got), err)
				}
			}
		}
	}
}

func TestWriterIsDeterministic(t *testing.T) {
	data := text(5 << 20)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, f := range formats {
		var first []byte
		for i, cores := range []int{1, 2, 7} {
			runtime.GOMAXPROCS(cores)
			var buf bytes.Buffer
			w, err := NewWriter(&buf, f, 0)
			if err != nil {
				t.Fatal(err)
			}
			g := rand.New(rand.NewPCG(uint64(i), 1))
			for rest := data; len(rest) > 0; {
				n := min(1+g.IntN(700_000), len(rest))
				w.Write(rest[:n])
				rest = rest[n:]
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				first = bytes.Clone(buf.Bytes())
			} else if !bytes.Equal(first, buf.Bytes()) {
				t.Errorf("%s on %d cores differs", f, cores)
			}
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	for f, levels := range map[Format][]int{Gzip: {-1, 10}, Zstd: {-1, 23}, "lzma": {0}} {
		for _, level := range levels {
			if _, err := NewWriter(io.Discard, f, level); err == nil {
				t.Errorf("%s level %d: no error", f, level)
			}
		}
	}
	if _, err := NewReader(strings.NewReader(""), "lzma"); err == nil {
		t.Error("unknown format: no error")
	}
}

type failing struct{ left int }

var errFull = errors.New("no space")

func (w *failing) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriterTellsErrors(t *testing.T) {
	data := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	for _, f := range formats {
		for _, room := range []int{0, 100, 3 << 20} {
			w, err := NewWriter(&failing{left: room}, f, 1)
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.Write(data)
			if cerr := w.Close(); err == nil {
				err = cerr
			}
			if !errors.Is(err, errFull) {
				t.Errorf("%s with room for %d: %v", f, room, err)
			}
		}
	}
}

func TestJoinedStreams(t *testing.T) {
	a, b := text(100_000), text(70_000)
	for _, f := range formats {
		za, zb, empty := compress(t, f, 0, a), compress(t, f, 0, b), compress(t, f, 0, nil)
		for name, z := range map[string][]byte{
			"two": join(za, zb), "empty first": join(empty, za, zb), "empty amid": join(za, empty, empty, zb), "empty last": join(za, zb, empty),
		} {
			for _, r := range []io.Reader{bytes.NewReader(z), iotest.OneByteReader(bytes.NewReader(z)), iotest.DataErrReader(bytes.NewReader(z))} {
				if got, err := decompress(r, f); err != nil || !bytes.Equal(got, join(a, b)) {
					t.Errorf("%s, %s: %d bytes, %v", f, name, len(got), err)
				}
			}
		}
	}
	skip := []byte("\x53\x2a\x4d\x18\x03\x00\x00\x00abc")
	z := compress(t, Zstd, 0, a)
	if got, err := decompress(bytes.NewReader(join(skip, z, skip, skip)), Zstd); err != nil || !bytes.Equal(got, a) {
		t.Errorf("skippable frames: %d bytes, %v", len(got), err)
	}
}

func TestWhatFollows(t *testing.T) {
	data := text(50_000)
	z := compress(t, Gzip, 0, data)
	for _, n := range []int{1, 511, 100_000} {
		if got, err := decompress(bytes.NewReader(join(z, make([]byte, n))), Gzip); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d NULs: %v", n, err)
		}
	}
	for name, c := range map[string]struct {
		format Format
		tail   string
	}{
		"text":              {Gzip, "text"},
		"NULs and text":     {Gzip, "\x00\x00text"},
		"first half of ID":  {Gzip, "\x1f"},
		"text behind zstd":  {Zstd, "text"},
		"NULs behind zstd":  {Zstd, "\x00\x00\x00\x00\x00"},
		"a byte behind":     {Zstd, "\x28"},
		"NULs then a gzip":  {Gzip, "\x00\x00" + string(z)},
		"gzip ID, then not": {Gzip, "\x1f\x8btext that is no header of any kind"},
	} {
		whole := z
		if c.format == Zstd {
			whole = compress(t, Zstd, 0, data)
		}
		_, err := decompress(bytes.NewReader(join(whole, []byte(c.tail))), c.format)
		var bad *FormatError
		if !errors.As(err, &bad) || bad.Format != c.format {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCutAnywhere(t *testing.T) {
	for _, f := range formats {
		z := compress(t, f, 0, text(5000))
		for n := range z {
			got, err := decompress(bytes.NewReader(z[:n]), f)
			var bad *FormatError
			if !errors.As(err, &bad) || !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
				t.Fatalf("%s cut at %d of %d: %d bytes, %v", f, n, len(z), len(got), err)
			}
		}
	}
}

func TestDamageAnywhere(t *testing.T) {
	data := text(5000)
	for _, f := range formats {
		z := compress(t, f, 0, data)
		noticed := 0
		for i := range z {
			bad := bytes.Clone(z)
			bad[i] ^= 0x10
			got, err := decompress(bytes.NewReader(bad), f)
			if err == nil && !bytes.Equal(got, data) {
				t.Errorf("%s: damage at %d gives other content and no error", f, i)
			}
			if err != nil {
				noticed++
			}
		}
		// A few bits of headers and padding say nothing about the content.
		if noticed < len(z)-20 {
			t.Errorf("%s: damage is noticed in %d of %d bytes", f, noticed, len(z))
		}
	}
}

func TestErrorsOfTheSourcePass(t *testing.T) {
	broken := errors.New("disk on fire")
	data := text(400_000)
	for _, f := range formats {
		z := compress(t, f, 0, data)
		for _, n := range []int{0, 1, 5, 100, len(z) / 2, len(z) - 1, len(z)} {
			r := io.MultiReader(bytes.NewReader(z[:n]), iotest.ErrReader(broken))
			got, err := decompress(r, f)
			var bad *FormatError
			if !errors.Is(err, broken) || errors.As(err, &bad) {
				t.Errorf("%s after %d of %d bytes: %d bytes, %v", f, n, len(z), len(got), err)
			}
		}
	}
}

// once gives its error once and then claims the end, as a careless reader may.
type once struct {
	io.Reader
	err error
}

func (o *once) Read(p []byte) (int, error) {
	n, err := o.Reader.Read(p)
	if err == io.EOF && o.err != nil {
		err, o.err = o.err, nil
	}
	return n, err
}

func TestErrorsAreSticky(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, f := range formats {
		z := compress(t, f, 0, text(1000))
		for name, r := range map[string]io.Reader{
			"source":   &once{bytes.NewReader(z), broken},
			"trailing": bytes.NewReader(join(z, []byte("text"), z)),
			"cut":      bytes.NewReader(z[:len(z)-1]),
		} {
			d, err := NewReader(r, f)
			if err != nil {
				t.Fatal(err)
			}
			_, first := io.ReadAll(d)
			for range 3 {
				if n, err := d.Read(make([]byte, 10)); n != 0 || err != first || first == nil {
					t.Errorf("%s, %s: %d %v after %v", f, name, n, err, first)
				}
			}
			if err := errors.Join(d.Close(), d.Close()); err != nil {
				t.Error(err)
			}
			if _, err := d.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("read after close: %v", err)
			}
		}
	}
}

func TestReadsToTheEnd(t *testing.T) {
	for _, f := range formats {
		z := compress(t, f, 0, text(1000))
		if f == Gzip {
			z = join(z, make([]byte, 700_000))
		}
		r := bytes.NewReader(z)
		if _, err := decompress(r, f); err != nil || r.Len() > 0 {
			t.Errorf("%s: %d bytes are left, %v", f, r.Len(), err)
		}
	}
}

// frame is a zstd frame of one empty block with the given window.
func frame(exponent, mantissa byte) []byte {
	return []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, exponent<<3 | mantissa, 0x01, 0x00, 0x00}
}

func TestZstdWindow(t *testing.T) {
	if _, err := decompress(bytes.NewReader(frame(17, 0)), Zstd); err != nil { // 128 MiB
		t.Errorf("at the limit: %v", err)
	}
	for _, z := range [][]byte{frame(17, 1), frame(21, 0), frame(31, 7)} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decompress(bytes.NewReader(z), Zstd)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrWindow) {
			t.Errorf("% x: %v", z, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
			t.Errorf("% x: %d bytes were allocated", z, got)
		}
	}
	// A single segment's window is its size, which it can claim freely.
	huge := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0}
	if _, err := decompress(bytes.NewReader(huge), Zstd); !errors.Is(err, ErrWindow) {
		t.Errorf("single segment of a TiB: %v", err)
	}
	for window, taken := range map[int64]bool{0: true, 64 << 20: false, 128 << 20: true, 1: false, 1 << 50: true} {
		r, err := NewReaderOptions(bytes.NewReader(frame(17, 0)), Zstd, Options{Window: window})
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		if errors.Is(err, ErrWindow) == taken {
			t.Errorf("allowed %d: %v", window, err)
		}
	}
}

func TestGzipHeaderFields(t *testing.T) {
	z := compress(t, Gzip, 0, []byte("content"))
	head := func(flags byte, fields ...string) []byte {
		h := []byte{0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 0xff}
		return join(h, []byte(strings.Join(fields, "")), z[10:])
	}
	good := map[string][]byte{
		"name": head(8, "name\x00"), "comment": head(16, "text\x00"), "all": head(4|8|16, "\x02\x00xx", "n\x00", "c\x00"),
		"extra field": head(4, "\xff\xff"+strings.Repeat("x", 65535)),
	}
	for name, z := range good {
		if got, err := decompress(bytes.NewReader(z), Gzip); err != nil || string(got) != "content" {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := map[string][]byte{
		"long name": head(8, strings.Repeat("n", 1<<20)+"\x00"), "long comment": head(16, strings.Repeat("n", 1<<20)+"\x00"),
		"extra field that is not there": head(4, "\xff\xff"), "unknown method": append([]byte{0x1f, 0x8b, 7}, z[3:]...),
	}
	for name, z := range bad {
		if _, err := decompress(bytes.NewReader(z), Gzip); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzNewReader(f *testing.F) {
	for _, format := range formats {
		z := compress(f, format, 1, text(300))
		for _, seed := range [][]byte{z, z[:len(z)/2], join(z, z), join(z, make([]byte, 9)), join(z, []byte("x")), {}} {
			f.Add(seed)
		}
	}
	f.Add(frame(20, 0))
	f.Fuzz(func(t *testing.T, z []byte) {
		for _, format := range formats {
			got, err := limited(bytes.NewReader(z), format)
			slow, slowErr := limited(iotest.OneByteReader(bytes.NewReader(z)), format)
			if (err == nil) != (slowErr == nil) || err == nil && !bytes.Equal(got, slow) {
				t.Fatalf("%s: the cut of reads decides: %v, %v", format, err, slowErr)
			}
			var bad *FormatError
			if err != nil && (!errors.As(err, &bad) || errors.Is(err, io.EOF)) {
				t.Fatalf("%s: %v", format, err)
			}
			if format == Gzip && err == nil {
				comparePeer(t, z, got)
			}
		}
	})
}

// fuzzOutput bounds what a fuzzed input may grow to, in bytes.
const fuzzOutput = 4 << 20

func limited(r io.Reader, format Format) ([]byte, error) {
	z, err := NewReader(r, format)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return io.ReadAll(io.LimitReader(z, fuzzOutput))
}

// comparePeer reads what was taken with another decoder.
func comparePeer(t *testing.T, z, want []byte) {
	t.Helper()
	r, err := stdgzip.NewReader(bytes.NewReader(z))
	if err != nil {
		t.Fatalf("the standard library refuses it: %v", err)
	}
	got, err := io.ReadAll(io.LimitReader(r, fuzzOutput))
	padded := slices.Equal(got, want) && err == stdgzip.ErrHeader || errors.Is(err, io.ErrUnexpectedEOF)
	if err != nil && !padded || !bytes.Equal(got, want) {
		t.Fatalf("the standard library reads %d bytes, we %d: %v", len(got), len(want), err)
	}
}

func BenchmarkReader(b *testing.B) {
	data := text(64 << 20)
	for _, f := range formats {
		z := compress(b, f, 0, data)
		b.Run(string(f), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				r, err := NewReader(bytes.NewReader(z), f)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
				r.Close()
			}
		})
	}
}
