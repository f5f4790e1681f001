package segment

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// step is a copy as the format writes it: literals before it, its length, and
// where it copies from less what is expected.
type step struct {
	lit, n uint64
	place  int64
}

// compose writes a segment from its parts, however wrong they are.
func compose(content int, frames [][]byte, lengths []int, steps []step) []byte {
	var cols columns
	for _, s := range steps {
		cols.lits = binary.AppendUvarint(cols.lits, s.lit)
		cols.lens = binary.AppendUvarint(cols.lens, s.n)
		cols.places = binary.AppendVarint(cols.places, s.place)
	}
	var sizes []int
	for i, f := range frames {
		sizes = append(sizes, lengths[i], len(f))
	}
	blob := appendTable(nil, content, sizes, len(steps), appendRaw(nil, cols.appendTo(nil)))
	return append(blob, bytes.Join(frames, nil)...)
}

// literals is a segment of one raw frame and copies.
func literals(content int, lits string, steps ...step) []byte {
	return compose(content, [][]byte{appendRaw(nil, []byte(lits))}, []int{len(lits)}, steps)
}

func TestCopies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, prefix, lits string
		steps              []step
		want               string
	}{
		{"a period", "", "abx", []step{{2, 7, -2}}, "ab" + "abababa" + "x"},
		{"one byte", "", "a", []step{{1, 9, -1}}, strings.Repeat("a", 10)},
		{"from the prefix", "0123456789", "ab", []step{{1, 4, 2}}, "a" + "3456" + "b"},
		{"across the prefix", "01234", "ab", []step{{2, 4, 1}}, "ab" + "34ab"},
		{"across the prefix, into itself", "01234", "ab", []step{{2, 9, 1}}, "ab" + "34ab34ab3"},
		{"the end of the prefix over and over", "01234", "ab", []step{{0, 5, 4}}, "44444" + "ab"},
		{"as expected", "0123456789", "ab", []step{{0, 3, 0}, {1, 3, 0}}, "012a456b"},
		{"backwards", "0123456789", "ab", []step{{0, 2, 8}, {1, 3, -11}}, "89a012b"},
	} {
		blob := literals(len(c.want), c.lits, c.steps...)
		dst := make([]byte, len(c.want))
		if err := Decode(dst, blob, []byte(c.prefix), 1); err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if string(dst) != c.want {
			t.Errorf("%s: %q, want %q", c.name, dst, c.want)
		}
	}
}

func coded(p []byte, options ...zstd.EOption) []byte {
	w, err := zstd.NewWriter(nil, options...)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(p, nil)
}

func streamed(p []byte, options ...zstd.EOption) []byte {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, options...)
	if err != nil {
		panic(err)
	}
	if _, err := w.Write(p[:1]); err != nil {
		panic(err)
	}
	if err := w.Flush(); err != nil {
		panic(err)
	}
	if _, err := w.Write(p[1:]); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestForeignFrames(t *testing.T) {
	t.Parallel()
	p := text(90, 100_000)
	for name, frame := range map[string][]byte{
		"with a checksum":          coded(p, zstd.WithEncoderCRC(true)),
		"no content size":          streamed(p, zstd.WithWindowSize(64<<10)),
		"window as declared":       coded(p, zstd.WithSingleSegment(false), zstd.WithWindowSize(64<<10)),
		"best, in a small window":  coded(p, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(1<<10)),
		"stored, checksum missing": appendRaw(nil, p),
	} {
		blob := compose(len(p), [][]byte{frame}, []int{len(p)}, nil)
		dst := make([]byte, len(p))
		if err := Decode(dst, blob, nil, 1); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !bytes.Equal(dst, p) {
			t.Errorf("%s: content differs", name)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	abc := appendRaw(nil, []byte("abc"))
	one := func(content int, frame []byte, n int) []byte {
		return compose(content, [][]byte{frame}, []int{n}, nil)
	}
	skip := []byte(skippable + "\x03\x00\x00\x00xyz")
	good := one(3, abc, 3)
	long := bytes.Clone(good) // the content's length in two bytes
	long = bytes.Replace(long, []byte(signature+"\x03"), []byte(signature+"\x83\x00"), 1)
	long[4]++
	dict := bytes.Clone(abc)
	dict[4] |= 1
	bomb := coded(make([]byte, 16<<20+1), zstd.WithSingleSegment(true), zstd.WithWindowSize(32<<20))
	zeros := make([]byte, 1<<20)
	for _, c := range []struct {
		name   string
		blob   []byte
		length int
		want   string
	}{
		{"empty", nil, 3, "no table"},
		{"a zstd frame", abc, 3, "no table"},
		{"another skippable frame", append(bytes.Clone(skip), abc...), 3, "signature missing"},
		{"table cut", good[:20], 3, "table: cut short"},
		{"table longer than blob", append([]byte(skippable), 255, 255, 255, 255), 3, "table: cut short"},
		{"number not shortest", long, 3, "shortest form"},
		{"another length", good, 4, "content of 3 bytes, expected 4"},
		{"content beyond bound", literals(MaxContent+1, "abc"), 3, "content: number too large"},
		{"frame beyond bound", one(MaxFrame+1, bomb, MaxFrame+1), MaxFrame + 1, "frame 0: number too large"},
		{"frame says more", one(MaxFrame, bomb, MaxFrame), MaxFrame, "frame 0: content of another length"},
		{"frame says less", one(4, abc, 4), 4, "frame 0: content of another length"},
		{"frame says nothing, holds more", one(1<<19, streamed(zeros, zstd.WithWindowSize(1<<15)), 1<<19), 1 << 19, "frame 0"},
		{"frame says nothing, holds less", one(1<<20+1, streamed(zeros, zstd.WithWindowSize(1<<15)), 1<<20+1), 1<<20 + 1, "frame 0"},
		{"empty frame", compose(3, [][]byte{abc, appendRaw(nil, nil)}, []int{3, 0}, nil), 3, "frame 1 is empty"},
		{"too few frames", one(6, abc, 3), 6, "frames hold 3 bytes, content 6"},
		{"two frames as one", one(6, append(bytes.Clone(abc), abc...), 6), 6, "not one zstd frame"},
		{"skippable frame", one(3, append(bytes.Clone(skip), abc...), 3), 3, "not one zstd frame"},
		{"dictionary", one(3, dict, 3), 3, "dictionary"},
		{"window too large", one(1000, streamed(zeros[:1000], zstd.WithWindowSize(1<<20)), 1000), 1000, "window larger"},
		{"data after the last frame", append(bytes.Clone(good), 0), 3, "1 bytes follow the last frame"},
		{"last frame cut", good[:len(good)-1], 3, "frame 0: number too large"},
		{"copy from nothing", literals(8, "abcd", step{0, 4, 0}), 8, "copies: from 0 to 0"},
		{"copy from ahead", literals(8, "abcd", step{2, 4, 1}), 8, "copies: from 3 to 2"},
		{"copy from before all", literals(8, "abcd", step{2, 4, -3}), 8, "copies: from -1 to 2"},
		{"copy of nothing", literals(8, "abcd", step{2, 0, -1}), 8, "empty copy"},
		{"copy of too much", literals(8, "abcd", step{2, 5, -1}), 8, "length: number too large"},
		{"copy of far too much", literals(8, "abcd", step{2, 1<<64 - 1, -1}), 8, "length: number too large"},
		{"too many literals", literals(8, "abcd", step{5, 4, -1}), 8, "literals: number too large"},
		{"place far away", literals(8, "abcd", step{2, 4, -1 << 63}), 8, "place: number too large"},
		{"copies make too little", literals(9, "abcd", step{2, 4, -1}), 9, "2 literals remain for 3 bytes"},
		{"literals beyond content", literals(3, "abcd", step{2, 1, -1}), 3, "frame 0: number too large"},
		{"columns hold more", withColumns(1, "\x01\x01\x01\x01"), 2, "data follows them"},
		{"columns hold less", withColumns(1, "\x01\x01"), 2, "cut short"},
		{"columns without end", withColumns(1, "\xff\xff\xff"), 2, "cut short"},
		{"columns larger than copies need", withColumns(1, strings.Repeat("\x01", 16)), 2, "content of another length"},
		{"columns not a frame", withPacked(1, []byte("rubbish")), 2, "not one zstd frame"},
	} {
		dst := make([]byte, c.length)
		err := Decode(dst, c.blob, nil, 2)
		if !isFormatError(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func withColumns(count int, cols string) []byte {
	return withPacked(count, appendRaw(nil, []byte(cols)))
}

func withPacked(count int, packed []byte) []byte {
	a := appendRaw(nil, []byte("a"))
	return append(appendTable(nil, 2, []int{1, len(a)}, count, packed), a...)
}

func TestPrefixBound(t *testing.T) {
	t.Parallel()
	blob := literals(1, "a")
	if err := Decode(make([]byte, 1), blob, make([]byte, MaxPrefix+1), 1); !isFormatError(err) {
		t.Errorf("prefix beyond bound: %v", err)
	}
}

// TestBombs: what is claimed in few bytes costs little to refuse.
func TestBombs(t *testing.T) {
	many := make([]int, 0, 200_000)
	for range 100_000 {
		many = append(many, 1, 0)
	}
	// Columns of 64 MiB that hold three copies.
	stuffed := coded(make([]byte, MaxCopies), zstd.WithEncoderLevel(zstd.SpeedFastest))
	for name, blob := range map[string][]byte{
		"many frames of nothing": appendTable(nil, 100_000, many, 0, nil),
		"stuffed columns":        withPacked(2, stuffed),
	} {
		n, _, err := bounded(blob[16:], MaxContent)
		if err != nil {
			t.Fatal(err)
		}
		got := testing.AllocsPerRun(1, func() {
			if err := Decode(make([]byte, n), blob, nil, 2); !isFormatError(err) {
				t.Errorf("%s: %v", name, err)
			}
		})
		if got > 1000 {
			t.Errorf("%s: %.0f allocations", name, got)
		}
	}
}

// damaged are small segments of every kind, with their prefix and content.
func damaged(t testing.TB) []struct{ blob, prefix, content []byte } {
	e := NewEncoder(Default, 2)
	e.frame = 300
	words, noise := text(100, 700), random(101, 200)
	prefix := text(102, 300)
	var all []struct{ blob, prefix, content []byte }
	for _, content := range [][]byte{[]byte("x"), words, noise, join(words, noise, words, prefix)} {
		all = append(all, struct{ blob, prefix, content []byte }{encode(t, e, content, prefix), prefix, content})
	}
	if copyCount(t, all[3].blob) == 0 {
		t.Fatal("no copies")
	}
	return all
}

func TestDamage(t *testing.T) {
	t.Parallel()
	for _, d := range damaged(t) {
		dst := make([]byte, len(d.content))
		for i := range d.blob {
			for _, mask := range []byte{1, 0x80, 0xff, 0x10} {
				blob := bytes.Clone(d.blob)
				blob[i] ^= mask
				if err := Decode(dst, blob, d.prefix, 1); err != nil && !isFormatError(err) {
					t.Fatalf("byte %d: %v", i, err)
				}
			}
			if err := Decode(dst, d.blob[:i], d.prefix, 1); !isFormatError(err) {
				t.Errorf("cut to %d of %d: %v", i, len(d.blob), err)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, d := range damaged(f) {
		f.Add(d.blob, d.prefix, len(d.content))
	}
	f.Add(literals(9, "abx", step{2, 6, -2}), []byte(nil), 9)
	f.Fuzz(func(t *testing.T, blob, prefix []byte, n int) {
		dst := make([]byte, min(max(n, 0), 1<<20))
		err := Decode(dst, blob, prefix, 2)
		if err != nil {
			if !isFormatError(err) {
				t.Fatal(err)
			}
			return
		}
		again := random(1, len(dst))
		if err := Decode(again, blob, prefix, 1); err != nil || !bytes.Equal(dst, again) {
			t.Fatalf("decoded twice: %v, or other content", err)
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("hello"), []byte(nil), 3, 1)
	f.Add(text(1, 2000), text(1, 500), 2, 300)
	f.Add(random(1, 300), random(1, 200), 5, 100)
	encoders := []*Encoder{NewEncoder(Fast, 2), NewEncoder(Default, 2)}
	f.Fuzz(func(t *testing.T, content, prefix []byte, times, frame int) {
		content = bytes.Repeat(content, min(max(times, 1), 8))
		if len(content) == 0 || len(content) > 1<<20 {
			return
		}
		for _, e := range encoders {
			e.frame = max(min(frame, 1<<20), len(content)/100+1)
			blob := encode(t, e, content, prefix)
			if got := decode(t, blob, prefix, len(content), 2); !bytes.Equal(got, content) {
				t.Fatal("content read back differs")
			}
		}
	})
}
