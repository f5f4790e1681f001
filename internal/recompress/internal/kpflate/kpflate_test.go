package kpflate

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/flate"

	"github.com/imgpack/imgpack/internal/recompress/model"
)

// pgzip compresses content as pgzip does, without the gzip header and trailer.
func pgzip(t testing.TB, content []byte, level, blockSize int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriterDict(&out, level, nil)
	if err != nil {
		t.Fatal(err)
	}
	var dict []byte
	for last := false; !last; {
		n := min(blockSize, len(content))
		last = n < blockSize
		w.ResetDict(&out, dict)
		if _, err := w.Write(content[:n]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if last {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if dict = nil; n > dictionary {
			dict = content[n-dictionary : n]
		}
		content = content[n:]
	}
	return out.Bytes()
}

// plain compresses content as one stream.
func plain(t testing.TB, content []byte, level int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// text is deterministic content like that of a tar file.
func text(size int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	words := make([]string, 3000)
	for i := range words {
		b := make([]byte, 2+r.IntN(9))
		for j := range b {
			b[j] = byte('a' + r.IntN(26)*r.IntN(26)/25)
		}
		words[i] = string(b)
	}
	var out bytes.Buffer
	for out.Len() < size {
		switch r.IntN(40) {
		case 0:
			out.Write(make([]byte, r.IntN(3000)))
		case 1:
			b := make([]byte, r.IntN(20000))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			out.Write(b)
		case 2:
			b := make([]byte, r.IntN(5000))
			for i := range b {
				b[i] = byte(r.IntN(16) * r.IntN(16))
			}
			out.Write(b)
		case 3:
			if n := out.Len(); n > 0 {
				from := r.IntN(n)
				out.Write(bytes.Clone(out.Bytes()[from:min(n, from+r.IntN(8000))]))
			}
		default:
			for range r.IntN(200) {
				out.WriteString(words[r.IntN(1+r.IntN(len(words)))])
				out.WriteByte(" \n,.;"[r.IntN(5)])
			}
		}
	}
	return out.Bytes()[:size]
}

func noise(size int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 9))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// contents for comparisons, by name.
func contents() map[string][]byte {
	all := map[string][]byte{
		"empty": nil,
		"zeros": make([]byte, 2<<20),
		"noise": noise(1<<20+4000, 1),
		"mixed": append(append(noise(70000, 2), text(700000, 3)...), noise(200000, 4)...),
		"skew":  bytes.Repeat([]byte{0, 0, 1, 0, 2, 3, 0, 0}, 1),
	}
	b := noise(400000, 5)
	for i := range b {
		b[i] &= b[(i*7+3)%len(b)] | 0x10
	}
	all["skew"] = b
	for _, n := range []int{1, 2, 12, 13, 31, 32, 33, 127, 128, 129, 200, 1000, 5000, 16384, 16385, 65534, 65535, 65536, 65535 + 20, 65535 + 100, 131070, 131071,
		1 << 20, 1<<20 + 1, 1<<20 + 50, 1<<20 + 16384, 3 << 20} {
		all[fmt.Sprint("text", n)] = text(n, uint64(n))
	}
	return all
}

func find(t testing.TB, id uint16) model.Spec {
	t.Helper()
	for _, s := range Specs() {
		if s.ID == id {
			return s
		}
	}
	t.Fatalf("no model %d", id)
	return model.Spec{}
}

// TestLive compares models with the encoder that is in use here.
func TestLive(t *testing.T) {
	for name, content := range contents() {
		for level := -2; level <= 9; level++ {
			if level == -1 || level == 0 || level >= 7 && len(content) > 500_000 {
				continue
			}
			for _, restarts := range []bool{true, false} {
				id, stream := uint16(32+max(level, 0)), []byte(nil)
				if restarts {
					size := 1 << 20
					if level >= 7 {
						size = 100_000
					}
					stream = pgzip(t, content, level, size)
				} else {
					id += 30
					stream = plain(t, content, level)
				}
				got, runs := takeApart(t, bytes.NewReader(stream))
				if !bytes.Equal(got, content) {
					t.Fatal("other content")
				}
				if n := play(t, find(t, id), content, runs); n != (misses{}) {
					t.Errorf("%s level %d %t: %+v", name, level, restarts, n)
				}
			}
		}
	}
}

// TestResume begins in the midst of streams, where models know little of what
// the encoder knew. What level 1 does hangs on what it did long before.
func TestResume(t *testing.T) {
	content := text(2<<20, 11)
	for level := 1; level <= 9; level++ {
		_, runs := takeApart(t, bytes.NewReader(plain(t, content, level)))
		m := find(t, 62+uint16(level)).New()
		at := 0
		for i, b := range runs[0].blocks {
			if at >= 1<<20 {
				low := at - model.Prior
				in := model.Input{Data: content[low:], From: model.Prior, To: len(content) - low, Offset: int64(low), End: true}
				n := playRun(m, in, content[at:], runs[0].blocks[i:])
				if most := 60; n.headers > 2 || n.tokens > most && level > 1 || n.tokens > 200*most {
					t.Errorf("level %d: %+v", level, n)
				}
				break
			}
			at += b.Length
		}
	}
}

// TestPart plays a part of a stream that goes on behind it.
func TestPart(t *testing.T) {
	content := text(2<<20, 12)
	for level := 1; level <= 9; level++ {
		_, runs := takeApart(t, bytes.NewReader(plain(t, content, level)))
		m := find(t, 62+uint16(level)).New()
		at := 0
		for i, b := range runs[0].blocks {
			if at += b.Length; at >= 1<<20 && at < 2<<20-model.Ahead {
				in := model.Input{Data: content[:at+model.Ahead], To: at, Fresh: true}
				n := playRun(m, in, content[:at], runs[0].blocks[:i+1])
				// Level 9 looks at up to 64 KiB of what follows.
				if n.headers > 0 || n.tokens > 0 && level < 9 || n.tokens > 300 {
					t.Errorf("level %d: %+v", level, n)
				}
				break
			}
		}
	}
}
