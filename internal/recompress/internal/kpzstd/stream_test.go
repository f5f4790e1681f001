package kpzstd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// decodeFrame is a Decode as the users of the package have one.
func decodeFrame(frame io.Reader, content io.Writer) error {
	d, err := zstd.NewReader(frame, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = io.Copy(content, d)
	return err
}

func find(t testing.TB, stream, content []byte) ([]byte, StreamInfo) {
	t.Helper()
	var got bytes.Buffer
	recipe, info, err := Find(bytes.NewReader(stream), &got, decodeFrame, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "content", got.Bytes(), content)
	if info.Content != int64(len(content)) || info.Stream != int64(len(stream)) {
		t.Fatalf("found %+v for %d bytes of %d", info, len(stream), len(content))
	}
	var again bytes.Buffer
	rest := bytes.NewReader(append(bytes.Clone(content), "behind"...))
	if err := Restore(&again, rest, recipe); err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "restored", again.Bytes(), stream)
	if rest.Len() != len("behind") {
		t.Fatalf("%d bytes of content are left", rest.Len())
	}
	return recipe, info
}

func TestFindEveryClass(t *testing.T) {
	// What tells the newest classes apart comes late in the second content.
	late := append(bytes.Clone(fill("random", 1500000)), fill("mixed", 700000)...)
	for _, content := range [][]byte{fill("tar", 300001), late} {
		for l := Fastest; l <= Best; l++ {
			for c := range numClasses {
				p := params(l, c)
				if p.check() != nil {
					continue
				}
				p.Cuts = []uint32{8}
				p.Checksum = c%2 == 0
				stream := encode(t, p, 1<<20, content)
				recipe, info := find(t, stream, content)
				if info.Params.Level != l || len(recipe) > 20 {
					t.Errorf("%v: found %v, %d bytes", p, info.Params, len(recipe))
				}
			}
		}
	}
}

// chunked makes a stream of many frames, as zstd:chunked has them.
func chunked(t testing.TB, p Params) (stream, content []byte) {
	t.Helper()
	content = fill("tar", 3000000)
	rest := content
	for i := 0; len(rest) > 0; i++ {
		n := min(len(rest), []int{512, 700, 40, 200000, 9000, 131072, 5}[i%7])
		stream = append(stream, encode(t, p, 4096, rest[:n])...)
		rest = rest[n:]
	}
	for _, toc := range [][]byte{fill("text", 3000), make([]byte, 64), nil} {
		stream = binary.LittleEndian.AppendUint32(stream, magicSkip)
		stream = binary.LittleEndian.AppendUint32(stream, uint32(len(toc)))
		stream = append(stream, toc...)
	}
	return stream, content
}

func TestManyFrames(t *testing.T) {
	for _, p := range []Params{params(Default, V1_14), params(Better, V1_17), params(Best, V1_178), params(Fastest, V1_203)} {
		stream, content := chunked(t, p)
		recipe, info := find(t, stream, content)
		if info.Frames != 91 && info.Frames < 50 || len(recipe) > 3064+16+4*info.Frames+20*int(numClasses) {
			t.Errorf("%v: %d frames, a recipe of %d bytes", p, info.Frames, len(recipe))
		}
	}
}

func TestEmptyStreams(t *testing.T) {
	if recipe, info := find(t, nil, nil); len(recipe) > 0 || info.Frames > 0 {
		t.Errorf("%d bytes for nothing", len(recipe))
	}
	find(t, library(t, Default, nil), nil)
	find(t, []byte("\x50\x2a\x4d\x18\x02\x00\x00\x00ab"), nil)
}

func TestOthersFrames(t *testing.T) {
	content := fill("mixed", 600000)
	other := library(t, Default, fill("text", 600000), zstd.WithNoEntropyCompression(true))
	plain := library(t, Default, content)
	late := bytes.Clone(plain)
	late[len(late)-2] ^= 1 // of the checksum
	for name, c := range map[string]struct {
		stream []byte
		want   error
	}{
		"another encoder": {other, ErrDiffers},
		"no zstd":         {[]byte("hello world"), ErrFormat},
		"rubbish behind":  {append(bytes.Clone(plain), "rubbish"...), ErrFormat},
		"no end":          {plain[:len(plain)-1], nil},
		"no blocks":       {plain[:6], nil},
		"checksum":        {late, nil},
		"skips too much":  {[]byte("\x50\x2a\x4d\x18\xff\xff\xff\xff"), ErrDiffers},
		"skips nothing":   {[]byte("\x50\x2a\x4d\x18\xff\x00\x00\x00"), ErrFormat},
	} {
		_, _, err := Find(bytes.NewReader(c.stream), nil, decodeFrame, 1<<16)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := errors.New("bad")
	if _, _, err := Find(bytes.NewReader(plain), failing{bad}, decodeFrame, 1<<16); !errors.Is(err, bad) {
		t.Errorf("content fails: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestRestoreErrors(t *testing.T) {
	content := fill("text", 400000)
	recipe, _ := find(t, library(t, Default, content), content)
	for i := range recipe {
		if err := Restore(io.Discard, bytes.NewReader(content), recipe[:i]); i > 0 && err == nil && i != 6 {
			t.Errorf("the first %d bytes: %v", i, err)
		}
	}
	if err := Restore(io.Discard, bytes.NewReader(content[1:]), recipe); !errors.Is(err, ErrRecipe) {
		t.Errorf("content too short: %v", err)
	}
	bad := errors.New("bad")
	if err := Restore(failing{bad}, bytes.NewReader(content), recipe); !errors.Is(err, bad) {
		t.Errorf("writer fails: %v", err)
	}
	frame := []byte{opFrame}
	change := append([]byte{5<<2 | opParams}, params(Default, live).AppendBinary(nil)...)
	for name, r := range map[string][]byte{
		"no parameters":   frame,
		"unknown":         {3},
		"long number":     {0x80, 0x00},
		"other classes":   bytes.Replace(change, []byte{byte(live)}, []byte{200}, 1),
		"all the changes": bytes.Repeat(change, maxParams+1),
	} {
		if err := Restore(io.Discard, bytes.NewReader(nil), r); !errors.Is(err, ErrRecipe) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParams(t *testing.T) {
	for _, p := range []Params{params(Default, V1_14), {Class: V1_203, Level: Better, WindowLog: 10, Size: 1 << 40, Cuts: []uint32{8, 1000}}} {
		b := p.AppendBinary(nil)
		q, err := ParseParams(b)
		if err != nil || !bytes.Equal(q.AppendBinary(nil), b) || q.String() != p.String() {
			t.Errorf("%v: %v, %v", p, q, err)
		}
		for i := range b {
			if _, err := ParseParams(b[:i]); err == nil {
				t.Errorf("%v: %d bytes", p, i)
			}
		}
		if _, err := ParseParams(append(b, 0)); err == nil {
			t.Errorf("%v: and more", p)
		}
	}
	if s := params(Default, V1_178).String(); s != "klauspost zstd default, 1.17.8 to 1.20.2" {
		t.Error(s)
	}
	for _, p := range []Params{{}, {Level: 5, WindowLog: 20}, {Level: Best, WindowLog: 20}, {Level: 1, Class: numClasses, WindowLog: 20}, {Level: 1, WindowLog: 25}, {Level: 1, WindowLog: 9}, {Level: 1, WindowLog: 22, Cuts: []uint32{1 << 16}}, {Level: 1, WindowLog: 22, Cuts: make([]uint32, 1)}} {
		if _, err := NewEncoder(io.Discard, p); err == nil {
			t.Errorf("%+v is taken", p)
		}
	}
}

func TestFrames(t *testing.T) {
	stream, _ := chunked(t, params(Default, live))
	for _, cut := range []int{1, 3, 1000, len(stream)} {
		var f Frames
		frames, from := 0, 0
		for at := 0; at < len(stream); {
			n, end, ok := f.Next(stream[at:min(at+cut, len(stream))])
			if !ok || n == 0 && !end {
				t.Fatalf("at %d: %d bytes, %v", at, n, ok)
			}
			at += n
			if end {
				frames++
				if _, err := io.Copy(io.Discard, bytes.NewReader(stream[from:at])); err != nil {
					t.Fatal(err)
				}
				from = at
			}
		}
		if from != len(stream) || frames < 50 {
			t.Errorf("cut %d: %d frames, the last ends at %d of %d", cut, frames, from, len(stream))
		}
	}
	var f Frames
	if _, _, ok := f.Next([]byte("no frame at all")); ok {
		t.Error("text is a frame")
	}
}

// FuzzEncoder proves for any content that frames unpack to it, that they are the
// library's, and that what they were made with is found.
func FuzzEncoder(f *testing.F) {
	for i, kind := range kinds {
		f.Add(fill(kind, 3000*i+7), uint16(i*77), uint8(i), uint16(i))
	}
	f.Fuzz(func(t *testing.T, seed []byte, n uint16, level uint8, times uint16) {
		l := Level(level%4) + 1
		var b []byte
		for i := range int(times%64) + 1 {
			b = append(b, seed...)
			if len(seed) > 0 {
				b = append(b, seed[int(n)*i%len(seed):]...)
			}
		}
		got := encode(t, params(l, live), int(n)+1, b)
		sameBytes(t, "frame", got, library(t, l, b))
		p := params(l, Class(times)%numClasses)
		if p.check() != nil {
			p.Class = V1_175
		}
		old := encode(t, p, 1<<20, b)
		find(t, append(got, old...), append(bytes.Clone(b), b...))
	})
}

// FuzzRestore restores from recipes that nobody made.
func FuzzRestore(f *testing.F) {
	content := fill("tar", 300000)
	for _, stream := range [][]byte{library(f, Default, content), library(f, Better, content[:1000])} {
		recipe, _, err := Find(bytes.NewReader(stream), nil, decodeFrame, 1000)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(recipe)
	}
	f.Fuzz(func(t *testing.T, recipe []byte) {
		if len(recipe) > 1000 {
			return
		}
		_ = Restore(io.Discard, bytes.NewReader(content), recipe)
	})
}

// FuzzFind takes streams apart that nobody made.
func FuzzFind(f *testing.F) {
	stream, _ := chunked(f, params(Default, live))
	f.Add(stream[:5000])
	f.Add(library(f, Fastest, fill("mixed", 200000)))
	f.Fuzz(func(t *testing.T, stream []byte) {
		var content bytes.Buffer
		recipe, _, err := Find(bytes.NewReader(stream), &content, decodeFrame, 1<<16)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := Restore(&again, &content, recipe); err != nil {
			t.Fatal(err)
		}
		sameBytes(t, "restored", again.Bytes(), stream)
	})
}
