package recompress

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// framed compresses content into frames of n bytes each, with a skippable frame
// between them.
func framed(t testing.TB, content []byte, n int, level zstd.EncoderLevel) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(content); at += n {
		w.Reset(&b)
		if _, err := w.Write(content[at:min(at+n, len(content))]); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		b.WriteString("\x50\x2a\x4d\x18\x05\x00\x00\x00table")
	}
	return b.Bytes()
}

func TestZstd(t *testing.T) {
	for name, text := range texts() {
		for _, n := range []int{5_000_000, 100_000} {
			for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression} {
				stream := framed(t, text, n, level)
				if len(stream) == 0 {
					continue
				}
				recipe, info := giveBack(t, stream, text, anyCost)
				if t.Logf("%s: %+v", name, info); info.Model != ModelOf(recipe) {
					t.Errorf("model %q, not %q", ModelOf(recipe), info.Model)
				}
			}
		}
	}
}

func TestZstdErrors(t *testing.T) {
	text := texts()["text"]
	stream := framed(t, text, 300_000, zstd.SpeedDefault)
	recipe, _ := giveBack(t, stream, text, anyCost)
	other, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		err  error
		want error
	}{
		"half":          {second(Find(t.Context(), bytes.NewReader(stream[:len(stream)/2]), nil, anyCost)), ErrFormat},
		"rubbish after": {second(Find(t.Context(), bytes.NewReader(append(bytes.Clone(stream), "rubbish"...)), nil, anyCost)), ErrFormat},
		"no model":      {second(Find(t.Context(), bytes.NewReader(other.EncodeAll(text, nil)), nil, anyCost)), ErrHopeless},
		"content":       {second(Find(t.Context(), bytes.NewReader(stream), &broken{len(text) / 2}, anyCost)), errBroken},
		"writer":        {Restore(t.Context(), &broken{len(stream) / 2}, bytes.NewReader(text), recipe, int64(len(stream)), anyCost), errBroken},
		"short content": {Restore(t.Context(), io.Discard, bytes.NewReader(text[1:]), recipe, int64(len(stream)), anyCost), ErrRecipe},
		"long content":  {Restore(t.Context(), io.Discard, bytes.NewReader(append(bytes.Clone(text), 0)), recipe, int64(len(stream)), anyCost), ErrRecipe},
		"size":          {Restore(t.Context(), io.Discard, bytes.NewReader(text), recipe, int64(len(stream))-1, anyCost), ErrRecipe},
		"larger size":   {Restore(t.Context(), io.Discard, bytes.NewReader(text), recipe, int64(len(stream))+1, anyCost), ErrRecipe},
		"later model":   {Restore(t.Context(), io.Discard, bytes.NewReader(text), []byte{recipeZstd, 5<<2 | 1, 99, 2, 23, 0, 0}, 5, anyCost), ErrUnknown},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v, not %v", name, test.err, test.want)
		}
	}
}
