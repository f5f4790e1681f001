package kpflate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// goldenBlock is the size of pgzip's blocks in the golden streams.
const goldenBlock = 256 << 10

// xorshift is a generator that never changes, for contents whose streams were
// made by versions of the encoder that are not here.
type xorshift uint64

func (x *xorshift) next(n int) int {
	*x ^= *x << 13
	*x ^= *x >> 7
	*x ^= *x << 17
	return int(uint64(*x) >> 20 % uint64(n))
}

// goldenContents are never to be changed.
func goldenContents() [][]byte {
	x := xorshift(88172645463325252)
	words := make([][]byte, 2000)
	for i := range words {
		w := make([]byte, 2+x.next(9))
		for j := range w {
			w[j] = byte('a' + x.next(26)*x.next(26)/25)
		}
		words[i] = w
	}
	var b []byte
	for len(b) < 900_000 {
		switch x.next(40) {
		case 0:
			b = append(b, make([]byte, x.next(3000))...)
		case 1:
			for range x.next(20000) {
				b = append(b, byte(x.next(256)))
			}
		case 2:
			for range x.next(5000) {
				b = append(b, byte(x.next(16)*x.next(16)))
			}
		case 3:
			from := x.next(len(b) + 1)
			b = append(b, b[from:min(len(b), from+x.next(8000))]...)
		default:
			for range x.next(200) {
				b = append(b, words[x.next(1+x.next(len(words)))]...)
				b = append(b, " \n,.;"[x.next(5)])
			}
		}
	}
	noise := make([]byte, 300_000)
	for i := range noise {
		noise[i] = byte(x.next(256))
	}
	skewed := make([]byte, 150_000)
	for i := range skewed {
		skewed[i] = byte(x.next(1+x.next(256)) | x.next(2)*0x40)
	}
	return [][]byte{b[:800_000], noise, skewed, make([]byte, 400_000), b[:20], b[100:200], b[1000:4000], b[:65535], b[:goldenBlock], append(noise[:200_000:200_000], b[:200_000]...)}
}

// modelled is the stream that a model makes of content.
func modelled(s model.Spec, content []byte, block int) []byte {
	var w deflate.Writer
	m := s.New().(model.Runner)
	flush := func() { w.Stored(&deflate.Header{}, nil) }
	if !s.Restarts {
		block = len(content) + 1
	}
	for from := 0; ; from += block {
		to := min(from+block, len(content))
		if from < to {
			giveBack(m, &w, content[:to], from)
		}
		if s.Restarts {
			flush()
		}
		if to-from < block {
			break
		}
	}
	w.Block(&deflate.Header{Type: deflate.Fixed, Final: true}, nil)
	if w.Count > 0 {
		w.Out = append(w.Out, byte(w.Bits))
	}
	return w.Out
}

// TestGolden compares models with what the versions of the encoder made that
// they are models of.
func TestGolden(t *testing.T) {
	file, err := os.ReadFile("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for line := range strings.Lines(string(file)) {
		id, sum, _ := strings.Cut(strings.TrimSpace(line), " ")
		want[id] = sum
	}
	contents := goldenContents()
	for _, s := range Specs() {
		h := sha256.New()
		for _, content := range contents {
			h.Write(modelled(s, content, goldenBlock))
		}
		id := fmt.Sprint(s.ID)
		if got := hex.EncodeToString(h.Sum(nil)); got != want[id] {
			t.Errorf("%s, %s: %s", id, s.Name, got)
		}
		delete(want, id)
	}
	for id := range want {
		t.Errorf("no model %s", id)
	}
}

// TestModelled proves the way in which golden streams are made.
func TestModelled(t *testing.T) {
	content := text(600_000, 9)
	if !bytes.Equal(modelled(find(t, 37), content, goldenBlock), pgzip(t, content, 5, goldenBlock)) {
		t.Error("pgzip differs")
	}
	if !bytes.Equal(modelled(find(t, 67), content, goldenBlock), plain(t, content, 5)) {
		t.Error("stream differs")
	}
}
