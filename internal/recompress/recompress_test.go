package recompress

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
)

// any takes every recipe, however long.
var anyCost = Options{Jobs: 1, Spend: -1}

func texts() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 200_000)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	var text bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintf(&text, "line %d of %x\n", i%97, r.IntN(1000))
	}
	return map[string][]byte{
		"empty": nil, "one": {'a'}, "zeros": make([]byte, 3_000_000), "random": random,
		"text": text.Bytes(), "mixed": append(bytes.Clone(random[:100_000]), text.Bytes()[:200_000]...),
	}
}

// zipped compresses with Go's own encoder.
func zipped(t testing.TB, content []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// giveBack finds a recipe and proves that it gives the stream.
func giveBack(t testing.TB, stream, content []byte, o Options) ([]byte, Info) {
	t.Helper()
	var got bytes.Buffer
	recipe, info, err := Find(context.Background(), bytes.NewReader(stream), &got, o)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), content) {
		t.Fatalf("content of %d bytes, not the %d there were", got.Len(), len(content))
	}
	if info.Stream != int64(len(stream)) || info.Content != int64(len(content)) || info.Recipe != len(recipe) {
		t.Errorf("%+v of a stream of %d bytes, content of %d", info, len(stream), len(content))
	}
	var again bytes.Buffer
	if err := Restore(context.Background(), &again, bytes.NewReader(content), recipe, int64(len(stream)), o); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), stream) {
		t.Fatalf("another stream of %d bytes, not %d", again.Len(), len(stream))
	}
	return recipe, info
}

func TestGoStreams(t *testing.T) {
	for name, text := range texts() {
		for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
			if name != "text" && level != 1 && level != 6 || level == 5 || level == 7 || level == 8 {
				continue
			}
			t.Run(fmt.Sprint(name, level), func(t *testing.T) {
				stream := zipped(t, text, level)
				if _, info := giveBack(t, stream, text, anyCost); info.Recipe > 60+len(stream)/500 {
					t.Errorf("%+v", info)
				}
			})
		}
	}
}
