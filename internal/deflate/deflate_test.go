package deflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// TestRoundTrip takes streams apart and puts them together again.
func TestRoundTrip(t *testing.T) {
	for name, text := range texts() {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			stream := deflated(t, text, level)
			for how, r := range map[string]io.Reader{"whole": bytes.NewReader(stream), "bytewise": iotest.OneByteReader(bytes.NewReader(stream))} {
				content, again := takeApart(t, r)
				if !bytes.Equal(content, text) {
					t.Errorf("%s level %d %s: other content", name, level, how)
				}
				if !bytes.Equal(again, stream) {
					t.Errorf("%s level %d %s: other stream", name, level, how)
				}
			}
		}
	}
}

// takeApart parses a deflate stream and writes it again.
func takeApart(t *testing.T, r io.Reader) (content, stream []byte) {
	t.Helper()
	p := NewParser(r)
	var w Writer
	for {
		var b Block
		var tokens []Token
		var err error
		had := len(content)
		if content, tokens, err = p.Next(&b, content, nil); err != nil {
			t.Fatal(err)
		}
		if b.Length != len(content)-had {
			t.Fatalf("length %d of %d", b.Length, len(content)-had)
		}
		if b.Type == Stored {
			w.Stored(&b.Header, content[had:])
		} else {
			w.Block(&b.Header, tokens)
		}
		if b.Final {
			break
		}
	}
	if w.Count > 0 {
		w.Out = append(w.Out, byte(w.Bits)|p.Align()<<w.Count)
	}
	if _, err := p.Byte(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	return content, w.Out
}

func texts() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 200_000)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	var text bytes.Buffer
	for i := range 40_000 {
		fmt.Fprintf(&text, "line %d of %x\n", i%97, r.IntN(1000))
	}
	return map[string][]byte{
		"empty": nil, "one": {'a'}, "zeros": make([]byte, 300_000), "random": random,
		"text": text.Bytes(), "mixed": append(bytes.Clone(random[:100_000]), text.Bytes()...),
	}
}

func deflated(t testing.TB, text []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Flush(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// FuzzParser never finds a stream that is accepted and cannot be written again,
// or that gives other content than the standard library does.
func FuzzParser(f *testing.F) {
	for _, text := range texts() {
		f.Add(deflated(f, text[:min(len(text), 2000)], 6))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		p := NewParser(bytes.NewReader(stream))
		var w Writer
		var content []byte
		for final := false; !final; {
			var b Block
			had := len(content)
			out, tokens, err := p.Next(&b, content, nil)
			if err != nil {
				return
			}
			if content = out; b.Type == Stored {
				w.Stored(&b.Header, content[had:])
			} else {
				w.Block(&b.Header, tokens)
			}
			final = b.Final
		}
		if n := len(w.Out); !bytes.Equal(w.Out, stream[:n]) {
			t.Fatalf("written again it is another stream")
		}
		want, err := io.ReadAll(flate.NewReader(bytes.NewReader(stream)))
		if err == nil && !bytes.Equal(want, content) {
			t.Fatal("other content than compress/flate gives")
		}
	})
}
