package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

func random(seed uint64, n int) []byte {
	g := rand.New(rand.NewPCG(seed, 0))
	p := make([]byte, 0, n+8)
	for len(p) < n {
		p = binary.LittleEndian.AppendUint64(p, g.Uint64())
	}
	return p[:n]
}

func text(seed uint64, n int) []byte {
	g := rand.New(rand.NewPCG(seed, 1))
	words := []string{"usr", "lib", "share", "the", "of", "package", "version", "=", "depends", "\n", "0.1", "maintainer"}
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%s %d ", words[g.IntN(len(words))], g.IntN(5000))
	}
	return b.Bytes()[:n]
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// mixed is some of everything: text, noise, zeros, and repeats of all of them.
func mixed() []byte {
	a, b := text(1, 60_000), random(2, 80_000)
	return join(a, b, make([]byte, 70_000), a[1000:50_000], []byte("between"), b, a, b[5:60_000])
}

func encode(t testing.TB, e *Encoder, content, prefix []byte) []byte {
	t.Helper()
	blob, err := e.Encode(content, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(blob)
}

func decode(t testing.TB, blob, prefix []byte, n, jobs int) []byte {
	t.Helper()
	dst := random(3, n) // old content must not show through
	if err := Decode(dst, blob, prefix, jobs); err != nil {
		t.Fatal(err)
	}
	return dst
}

func copyCount(t testing.TB, blob []byte) int {
	t.Helper()
	tab, err := parseTable(blob)
	if err != nil {
		t.Fatal(err)
	}
	return tab.count
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	noise, words := random(10, 1<<18), text(11, 1<<16)
	far := join(noise, make([]byte, 9<<20), noise)
	cases := []struct {
		name            string
		content, prefix []byte
	}{
		{"one byte", []byte("x"), nil},
		{"tiny", []byte("hello, world\n"), nil},
		{"63 bytes twice", join(noise[:63], noise[:63]), nil},
		{"64 bytes twice", join(noise[:64], noise[:64]), nil},
		{"65 bytes twice", join(noise[:65], noise[:65]), nil},
		{"zeros", make([]byte, 1<<20), nil},
		{"random", noise, nil},
		{"text", words, nil},
		{"mixed", mixed(), nil},
		{"repeat far away", far, nil},
		{"a period", bytes.Repeat([]byte("0123456789abcdefg"), 20_000), nil},
		{"all in the prefix", noise[100:200_000], noise},
		{"the prefix itself", noise, noise},
		{"prefix goes on in content", join(noise[90_000:], noise[90_000:], noise[90_000:]), noise},
		{"unrelated prefix", words, noise},
		{"prefix shorter than a window", words, []byte("short")},
	}
	for _, level := range []Level{Fast, Default, Max, ""} {
		e := NewEncoder(level, 2)
		for _, c := range cases {
			before := bytes.Clone(c.content)
			blob := encode(t, e, c.content, c.prefix)
			if !bytes.Equal(c.content, before) {
				t.Errorf("%s, %s: content was changed", level, c.name)
			}
			if got := decode(t, blob, c.prefix, len(c.content), 2); !bytes.Equal(got, c.content) {
				t.Errorf("%s, %s: content read back differs", level, c.name)
			}
			if limit := len(c.content) + len(c.content)/1000 + 100; len(blob) > limit {
				t.Errorf("%s, %s: %d bytes became %d", level, c.name, len(c.content), len(blob))
			}
		}
	}
}

func TestFramesMeetAnywhere(t *testing.T) {
	t.Parallel()
	content := mixed()
	for _, size := range []int{1, 7, 63, 64, 1000, 65537, 1 << 18} {
		e := NewEncoder(Default, 3)
		e.frame = size
		content := content[:min(len(content), size*1000)]
		blob := encode(t, e, content, content[:50_000])
		if got := decode(t, blob, content[:50_000], len(content), 3); !bytes.Equal(got, content) {
			t.Errorf("frames of %d: content read back differs", size)
		}
	}
}

func TestDistance(t *testing.T) {
	t.Parallel()
	noise := random(20, 1<<20)
	content := join(noise, random(21, 9<<20), noise)
	blob := encode(t, NewEncoder(Default, 1), content, nil)
	if copyCount(t, blob) != 0 {
		t.Error("a segment that copies less than a tenth holds copies")
	}
	content = join(noise, random(21, 7<<20), noise, noise[:1<<19])
	blob = encode(t, NewEncoder(Default, 1), content, nil)
	if n := copyCount(t, blob); n != 2 {
		t.Errorf("%d copies, want 2", n)
	}
	if limit := 8<<20 + 2000; len(blob) > limit {
		t.Errorf("%d bytes, want at most %d", len(blob), limit)
	}
	if blob = encode(t, NewEncoder(Default, 1), noise, noise); len(blob) > 200 {
		t.Errorf("content that is the prefix: %d bytes", len(blob))
	}
}

func TestCopiesGoOn(t *testing.T) {
	t.Parallel()
	// A new version of a file with a byte changed here and there: one distance.
	old := random(30, 1<<20)
	changed := bytes.Clone(old)
	for i := 500; i < len(changed); i += 1000 {
		changed[i]++
	}
	blob := encode(t, NewEncoder(Default, 1), join(old, changed), nil)
	if over := len(blob) - len(old); over > 6000 {
		t.Errorf("1049 changed bytes took %d", over)
	}
}

func TestDeterminism(t *testing.T) {
	t.Parallel()
	content, prefix := join(mixed(), random(40, 1<<18), mixed()), text(41, 1<<16)
	const frame = 50_000
	for _, level := range []Level{Fast, Default, Max} {
		e := NewEncoder(level, 1)
		e.frame = frame
		want := encode(t, e, content, prefix)
		for _, jobs := range []int{1, 2, 7} {
			e := NewEncoder(level, jobs)
			e.frame = frame
			for i := range 2 {
				if !bytes.Equal(encode(t, e, content, prefix), want) {
					t.Errorf("%s, %d jobs, call %d: other bytes", level, jobs, i)
				}
				encode(t, e, text(uint64(i), 1<<16), nil)
			}
		}
	}
}

func TestEncodeBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ content, prefix []byte }{
		{nil, nil},
		{make([]byte, MaxContent+1), nil},
		{[]byte("x"), make([]byte, MaxPrefix+1)},
	} {
		if _, err := NewEncoder(Fast, 1).Encode(c.content, c.prefix); err == nil {
			t.Errorf("%d bytes behind %d: no error", len(c.content), len(c.prefix))
		}
	}
}

func TestBuffersAreKept(t *testing.T) {
	content := join(text(50, 1<<18), make([]byte, 4<<20), text(50, 1<<18))
	e := NewEncoder(Default, 1)
	encode(t, e, content, nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 4 {
		if _, err := e.Encode(content, nil); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes allocated for 4 segments of %d", n, len(content))
	}
}

func TestCompressible(t *testing.T) {
	t.Parallel()
	noise := random(70, 1<<20)
	for _, c := range []struct {
		name string
		p    []byte
		want bool
	}{
		{"text", text(71, 1<<20), true},
		{"noise", noise, false},
		{"noise of 5000", noise[:5000], false},
		{"short", noise[:100], true},
		{"noise that repeats nearby", bytes.Repeat(noise[:256], 4096), true},
	} {
		if got := compressible(c.p); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestStockZstd reads segments with the program that everybody has.
func TestStockZstd(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("zstd")
	if err != nil {
		if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
			t.Fatal("zstd is not installed")
		}
		t.Skip("zstd is not installed")
	}
	noise := random(80, 1<<20)
	plain := join(text(81, 1<<16), make([]byte, 9<<20), noise)
	copied := join(noise, text(81, 100_000), noise)
	for _, c := range []struct {
		name          string
		level         Level
		content, want []byte
	}{
		{"fast", Fast, plain, plain},
		{"default", Default, plain, plain},
		{"max", Max, plain, plain},
		{"one byte", Default, []byte("x"), []byte("x")},
		{"raw", Default, noise, noise},
		{"literals", Default, copied, join(noise, text(81, 100_000))},
	} {
		path := filepath.Join(t.TempDir(), "segment")
		if err := os.WriteFile(path, encode(t, NewEncoder(c.level, 2), c.content, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(tool, "-dc", "-q", "--memory=128MB")
		if cmd.Stdin, err = os.Open(path); err != nil {
			t.Fatal(err)
		}
		got, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !bytes.Equal(got, c.want) {
			t.Errorf("%s: zstd gives %d bytes, want %d or others", c.name, len(got), len(c.want))
		}
	}
}

func isFormatError(err error) bool {
	var e *FormatError
	return errors.As(err, &e)
}
