package gunzip

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"testing"
	"testing/iotest"
	"time"

	kpgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/pgzip"
)

// mixed is content with text, noise, runs and far matches.
func mixed(n int) []byte {
	g := rand.New(rand.NewPCG(3, uint64(n)))
	b := make([]byte, 0, n+1000)
	for len(b) < n {
		switch g.IntN(5) {
		case 0:
			for range g.IntN(500) {
				b = append(b, byte(g.Uint32()))
			}
		case 1:
			b = append(b, bytes.Repeat([]byte{byte(g.Uint32())}, g.IntN(700))...)
		case 2, 3:
			for range g.IntN(40) {
				b = fmt.Appendf(b, "line %d of %x, and so on\n", len(b)%97, g.IntN(1000))
			}
		default:
			if len(b) > 0 {
				d := 1 + g.IntN(min(len(b), 40000))
				for range g.IntN(400) {
					b = append(b, b[len(b)-d])
				}
			}
		}
	}
	return b[:n]
}

func packed(t testing.TB, data []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	return finish(t, &b, w, data)
}

func finish(t testing.TB, b *bytes.Buffer, w io.WriteCloser, data []byte) []byte {
	t.Helper()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pgzipped(t testing.TB, data []byte, level, block int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pgzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SetConcurrency(block, 2); err != nil {
		t.Fatal(err)
	}
	return finish(t, &b, w, data)
}

func unpack(r io.Reader, jobs int) ([]byte, error) {
	z := NewReader(r, Options{Jobs: jobs})
	defer z.Close()
	return io.ReadAll(z)
}

// crowd unpacks with many workers on tiny segments.
func crowd(r io.Reader) ([]byte, error) {
	z := NewReader(r, Options{Jobs: MaxJobs})
	defer z.Close()
	z.a.cores, z.a.cut.min = 1000, 256
	return io.ReadAll(z)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// check decodes z in all ways, and wants data.
func check(t *testing.T, name string, z, data []byte) {
	t.Helper()
	for _, jobs := range []int{1, 2, 4} {
		if got, err := unpack(bytes.NewReader(z), jobs); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s, %d jobs: %d of %d bytes, %v", name, jobs, len(got), len(data), err)
		}
		var b bytes.Buffer
		r := NewReader(iotest.DataErrReader(bytes.NewReader(z)), Options{Jobs: jobs, Beside: true})
		if n, err := io.Copy(&b, r); err != nil || n != int64(len(data)) || !bytes.Equal(b.Bytes(), data) {
			t.Errorf("%s, %d jobs, copied: %d of %d bytes, %v", name, jobs, n, len(data), err)
		}
		r.Close()
		if got, err := crowd(bytes.NewReader(z)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s, by a crowd: %d of %d bytes, %v", name, len(got), len(data), err)
		}
		if len(z) > 200_000 {
			continue
		}
		if got, err := unpack(iotest.OneByteReader(bytes.NewReader(z)), jobs); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s, %d jobs, bytewise: %d of %d bytes, %v", name, jobs, len(got), len(data), err)
		}
	}
}

func TestEveryLevel(t *testing.T) {
	for _, n := range []int{0, 1, 100, 70_000, 400_000} {
		data := mixed(n)
		for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
			check(t, fmt.Sprintf("compress/gzip %d of %d", level, n), packed(t, data, level), data)
			var b bytes.Buffer
			w, err := kpgzip.NewWriterLevel(&b, level)
			if err != nil {
				t.Fatal(err)
			}
			check(t, fmt.Sprintf("klauspost %d of %d", level, n), finish(t, &b, w, data), data)
		}
	}
}

func TestRealTools(t *testing.T) {
	data := mixed(3_000_000)
	for _, command := range [][]string{
		{"gzip", "-1"}, {"gzip", "-6"}, {"gzip", "-9"}, {"pigz", "-p", "3"}, {"pigz", "-p", "3", "-i", "-b", "32"}, {"pigz", "-11", "-I", "1"},
		{"pigz", "-R"}, {"python3", "-c", "import sys, gzip; sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read(), 6))"},
	} {
		content := data
		if command[1] == "-11" {
			content = data[:200_000]
		}
		path, err := exec.LookPath(command[0])
		if err != nil {
			t.Logf("%s is not installed", command[0])
			continue
		}
		c := exec.Command(path, command[1:]...)
		c.Stdin = bytes.NewReader(content)
		z, err := c.Output()
		if err != nil {
			t.Logf("%v: %v", command, err)
			continue
		}
		check(t, fmt.Sprint(command), z, content)
	}
}

func TestMembersAndFlushes(t *testing.T) {
	data := mixed(5_000_000)
	check(t, "pgzip", pgzipped(t, data, 5, 1<<20), data)
	check(t, "pgzip in small blocks", pgzipped(t, data, 5, 100_000), data)
	check(t, "pgzip stored", pgzipped(t, data, 0, 1<<20), data)
	check(t, "pgzip of zeros", pgzipped(t, make([]byte, 12_000_000), 6, 1<<20), make([]byte, 12_000_000))
	noise := make([]byte, 3_000_000)
	rand.NewChaCha8([32]byte{}).Read(noise)
	check(t, "pgzip of noise", pgzipped(t, noise, 6, 1<<20), noise)
	var many []byte
	for at := 0; at < len(data); {
		n := min(1+at%300_000, len(data)-at)
		many = append(many, packed(t, data[at:at+n], 1+at%9)...)
		at += n
	}
	check(t, "members", many, data)
	check(t, "members and pgzip", join(many, pgzipped(t, data, 5, 1<<20), packed(t, nil, 6), many), join(data, data, data))
	check(t, "members and NULs", join(many, make([]byte, 2_000_000)), data)
	text := bytes.Repeat([]byte("\x00\x00\xff\xff"), 700_000) // borders that are none
	check(t, "false borders", packed(t, text, gzip.NoCompression), text)
	check(t, "false members", packed(t, bytes.Repeat(packed(t, data[:1000], 6), 2000), gzip.NoCompression), bytes.Repeat(packed(t, data[:1000], 6), 2000))
}

func TestHeaders(t *testing.T) {
	z := packed(t, []byte("content"), 6)
	head := func(flags byte, fields ...string) []byte {
		h := []byte{0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 5, 6}
		for _, f := range fields {
			h = append(h, f...)
		}
		return join(h, z[10:])
	}
	long := string(bytes.Repeat([]byte("x"), 65535))
	name := long[:maxText-1] + "\x00"
	withCRC := []byte{0x1f, 0x8b, 8, 2, 0, 0, 0, 0, 0, 0}
	withCRC = binary.LittleEndian.AppendUint16(withCRC, uint16(crc32.ChecksumIEEE(withCRC)))
	for _, c := range []struct {
		name string
		z    []byte
		ok   bool
	}{
		{"plain", z, true},
		{"name", head(8, "name\x00"), true},
		{"empty name and comment", head(24, "\x00", "\x00"), true},
		{"all", head(4|8|16|1, "\x02\x00xx", name, name), true},
		{"empty extra", head(4, "\x00\x00"), true},
		{"largest extra", head(4, "\xff\xff"+long), true},
		{"long name", head(8, "x", name), false},
		{"long comment", head(16, "x", name), false},
		{"wrong checksum", head(2, "\x00\x00"), false},
		{"checksum", join(withCRC, z[10:]), true},
		{"method", join([]byte{0x1f, 0x8b, 7}, z[3:]), false},
		{"not gzip", []byte("plain text"), false},
	} {
		for _, jobs := range []int{1, 2} {
			got, err := unpack(bytes.NewReader(c.z), jobs)
			std := standard(c.z)
			if c.ok != (err == nil) || c.ok && string(got) != "content" || !c.ok && !errors.Is(err, ErrFormat) || (std == nil) != c.ok {
				t.Errorf("%s, %d jobs: %q %v; compress/gzip: %v", c.name, jobs, got, err, std)
			}
		}
		for n := range min(len(c.z), 600) {
			if _, err := unpack(bytes.NewReader(c.z[:n]), 1); c.ok && err != io.ErrUnexpectedEOF {
				t.Fatalf("%s cut at %d: %v", c.name, n, err)
			}
		}
	}
}

// standard is what compress/gzip says about a stream.
func standard(z []byte) error {
	r, err := gzip.NewReader(bytes.NewReader(z))
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	return err
}

func TestWhatFollows(t *testing.T) {
	data := mixed(1000)
	z := packed(t, data, 6)
	for tail, want := range map[string]error{
		"": nil, "\x00": nil, string(make([]byte, 3_000_000)): nil, "x": ErrFormat, "\x00\x00x": ErrFormat, "\x00" + string(z): ErrFormat,
		"\x1f": io.ErrUnexpectedEOF, "\x1f\x8b": io.ErrUnexpectedEOF, "\x1fx": ErrFormat, "\x1f\x8bx": ErrFormat, string(z[:9]): io.ErrUnexpectedEOF,
	} {
		for _, jobs := range []int{1, 2} {
			for _, r := range []io.Reader{bytes.NewReader(join(z, []byte(tail))), iotest.OneByteReader(bytes.NewReader(join(z, []byte(tail)[:min(len(tail), 5000)])))} {
				if got, err := unpack(r, jobs); !errors.Is(err, want) || !bytes.Equal(got, data) {
					t.Errorf("%.10q, %d jobs: %d bytes, %v", tail, jobs, len(got), err)
				}
			}
		}
	}
}

func TestCutAnywhere(t *testing.T) {
	data := mixed(1200)
	for _, level := range []int{gzip.HuffmanOnly, 0, 1, 6} {
		z := packed(t, data, level)
		for n := range z {
			for _, jobs := range []int{1, 2} {
				got, err := unpack(bytes.NewReader(z[:n]), jobs)
				if err != io.ErrUnexpectedEOF || !bytes.HasPrefix(data, got) {
					t.Fatalf("level %d cut at %d of %d, %d jobs: %d bytes, %v", level, n, len(z), jobs, len(got), err)
				}
			}
		}
	}
}

func TestFlippedBits(t *testing.T) {
	data := mixed(700)
	for _, level := range []int{gzip.HuffmanOnly, 0, 1, 6} {
		z := packed(t, data, level)
		for i := range len(z) * 8 {
			bad := bytes.Clone(z)
			bad[i/8] ^= 1 << (i % 8)
			_, err := unpack(bytes.NewReader(bad), 1)
			std := standard(bad)
			if (err == nil) != (std == nil) || (err == io.ErrUnexpectedEOF) != (std == io.ErrUnexpectedEOF) {
				t.Errorf("level %d, bit %d: %v; compress/gzip: %v", level, i, err, std)
			}
		}
	}
}

// TestDamage wants the same said of damaged streams in all ways.
func TestDamage(t *testing.T) {
	data := mixed(400_000)
	g := rand.New(rand.NewPCG(7, 7))
	for name, z := range map[string][]byte{
		"pgzip": pgzipped(t, data, 5, 70_000), "members": join(packed(t, data[:50_000], 6), packed(t, data[50_000:], 9), packed(t, data, 1)),
	} {
		for i := range 60 {
			bad := bytes.Clone(z)
			at := g.IntN(len(z))
			switch i % 3 {
			case 0:
				bad[at] ^= 1 << g.IntN(8)
			case 1:
				bad = bad[:at]
			case 2: // another part of the stream
				copy(bad[at:min(at+1000, len(bad))], z[g.IntN(len(z)):])
			}
			want, wantErr := unpack(bytes.NewReader(bad), 1)
			got, err := crowd(bytes.NewReader(bad))
			if fmt.Sprint(err) != fmt.Sprint(wantErr) || !bytes.Equal(got, want) {
				t.Fatalf("%s, damage %d at %d: %d bytes, %v; with one job %d, %v", name, i, at, len(got), err, len(want), wantErr)
			}
		}
	}
}

func TestErrorsOfTheSource(t *testing.T) {
	broken := errors.New("disk on fire")
	data := mixed(2_000_000)
	z := pgzipped(t, data, 5, 300_000)
	for _, jobs := range []int{1, 2, 4} {
		for _, n := range []int{0, 1, 10, 1000, len(z) / 2, len(z) - 1, len(z)} {
			r := NewReader(io.MultiReader(bytes.NewReader(z[:n]), iotest.ErrReader(broken)), Options{Jobs: jobs, Beside: n > 1000})
			got, err := io.ReadAll(r)
			if err != broken || !bytes.HasPrefix(data, got) {
				t.Errorf("after %d bytes, %d jobs: %d bytes, %v", n, jobs, len(got), err)
			}
			if _, again := r.Read(make([]byte, 1)); again != err {
				t.Errorf("then %v", again)
			}
			r.Close()
			if _, err := r.Read(make([]byte, 1)); err != errClosed {
				t.Errorf("after Close: %v", err)
			}
		}
		if _, err := unpack(idle{}, jobs); err != io.ErrNoProgress {
			t.Errorf("idle source: %v", err)
		}
		if got, err := unpack(&halting{r: bytes.NewReader(z)}, jobs); err != nil || !bytes.Equal(got, data) {
			t.Errorf("halting source: %v", err)
		}
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// halting gives nothing every other time.
type halting struct {
	r   io.Reader
	odd bool
}

func (h *halting) Read(p []byte) (int, error) {
	if h.odd = !h.odd; h.odd {
		return 0, nil
	}
	return h.r.Read(p[:min(len(p), 10_007)])
}

// TestClose ends readers in the midst of a stream: nothing goes on behind them.
func TestClose(t *testing.T) {
	data := mixed(6_000_000)
	before := runtime.NumGoroutine()
	for _, z := range [][]byte{packed(t, data, 1), pgzipped(t, data, 5, 1<<20)} {
		for _, n := range []int{0, 1, 1000, 3_000_000, len(data)} {
			r := NewReader(bytes.NewReader(z), Options{Jobs: 4})
			if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(r.Close(), r.Close()); err != nil {
				t.Error(err)
			}
		}
	}
	for range 3000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines are left", runtime.NumGoroutine()-before)
}

func FuzzReader(f *testing.F) {
	data := mixed(2000)
	for _, level := range []int{gzip.HuffmanOnly, 0, 1, 6, 9} {
		f.Add(packed(f, data, level))
	}
	z := packed(f, data, 6)
	f.Add(z[:len(z)/2])
	f.Add(join(z, z))
	f.Add(join(z, make([]byte, 9)))
	f.Add(pgzipped(f, mixed(60_000), 5, 20_000))
	f.Fuzz(func(t *testing.T, z []byte) {
		got, err := unpack(bytes.NewReader(z), 1)
		many, manyErr := crowd(bytes.NewReader(z))
		if !bytes.Equal(got, many) || fmt.Sprint(err) != fmt.Sprint(manyErr) {
			t.Fatalf("%d bytes, %v; by a crowd %d, %v", len(got), err, len(many), manyErr)
		}
		slow, slowErr := unpack(iotest.OneByteReader(bytes.NewReader(z)), 2)
		if !bytes.Equal(got, slow) || fmt.Sprint(err) != fmt.Sprint(slowErr) {
			t.Fatalf("%d bytes, %v; bytewise %d, %v", len(got), err, len(slow), slowErr)
		}
		r, stdErr := gzip.NewReader(bytes.NewReader(z))
		var want []byte
		if stdErr == nil {
			want, stdErr = io.ReadAll(r)
		}
		switch {
		case err == nil && stdErr != nil && stdErr != gzip.ErrHeader && stdErr != io.ErrUnexpectedEOF: // padding is one of these
			t.Fatalf("compress/gzip refuses it: %v", stdErr)
		case err == nil && !bytes.Equal(got, want):
			t.Fatalf("%d bytes, compress/gzip has %d", len(got), len(want))
		case err != nil && stdErr == nil && !errors.Is(err, ErrFormat):
			t.Fatalf("%v, and compress/gzip takes it", err)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	data := mixed(32 << 20)
	z := packed(b, data, 6)
	run := func(name string, z []byte, open func(io.Reader) (io.Reader, error)) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				r, err := open(bytes.NewReader(z))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(data)) {
					b.Fatal(n, err)
				}
			}
		})
	}
	ours := func(jobs int) func(io.Reader) (io.Reader, error) {
		return func(r io.Reader) (io.Reader, error) { return NewReader(r, Options{Jobs: jobs}), nil }
	}
	run("ours", z, ours(1))
	run("ours ahead", z, ours(2))
	run("klauspost", z, func(r io.Reader) (io.Reader, error) { return kpgzip.NewReader(r) })
	run("standard", z, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) })
	p := pgzipped(b, data, 5, 1<<20)
	run("pgzip stream", p, ours(1))
	run("pgzip stream, 2 jobs", p, ours(2))
}
