package deflate

import (
	"bytes"
	"compress/flate"
	"io"
	"testing"
)

// inflateAll decodes a stream given step bytes at a time, with a window and room
// for step more than needed.
func inflateAll(stream []byte, step int) ([]byte, error) {
	var f Inflater
	var content []byte
	out := make([]byte, Window+MinRoom+step)
	at, low := Window, Window
	for end := 0; ; {
		var err error
		had := at
		at, err = f.Inflate(out, at, low)
		content = append(content, out[had:at]...)
		switch err {
		case nil:
			known := min(at-low, Window)
			copy(out[Window-known:], out[at-known:at])
			at, low = Window, Window-known
		case io.ErrShortBuffer:
			if end == len(stream) {
				return content, err
			}
			begin := end - len(f.Rest())
			end = min(end+step, len(stream))
			f.Feed(stream[begin:end])
		default:
			return content, err
		}
	}
}

func TestInflate(t *testing.T) {
	for name, text := range texts() {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			stream := deflated(t, text, level)
			for _, step := range []int{1, 50, 1000, 1 << 20} {
				if step < 1000 && len(stream) > 20_000*step {
					continue
				}
				if got, err := inflateAll(stream, step); err != io.EOF || !bytes.Equal(got, text) {
					t.Errorf("%s level %d, %d at a time: %d of %d bytes, %v", name, level, step, len(got), len(text), err)
				}
			}
			if got, err := guessed(stream, nil, 100_000); err != io.EOF || !bytes.Equal(got, text) {
				t.Errorf("%s level %d, without a window: %d of %d bytes, %v", name, level, len(got), len(text), err)
			}
		}
	}
}

// FuzzInflate never finds a stream of which the Inflater, whatever it is given
// at a time, says something else than the Parser does.
func FuzzInflate(f *testing.F) {
	for _, text := range texts() {
		f.Add(deflated(f, text[:min(len(text), 2000)], 6), uint16(9))
	}
	f.Fuzz(func(t *testing.T, stream []byte, step uint16) {
		p := NewParser(bytes.NewReader(stream))
		var content []byte
		var b Block
		var want error
		for want == nil && !b.Final {
			content, _, want = p.Next(&b, content, nil)
		}
		got, err := inflateAll(stream, 1+int(step))
		switch {
		case want == ErrTooLarge:
		case want == nil && err != io.EOF, want == io.ErrUnexpectedEOF && err != io.ErrShortBuffer:
			t.Fatalf("%v, the parser says %v", err, want)
		case want != nil && want != io.ErrUnexpectedEOF && err.Error() != want.Error():
			t.Fatalf("%v, the parser says %v", err, want)
		case !bytes.Equal(got, content):
			t.Fatalf("%d bytes, the parser has %d", len(got), len(content))
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	text := bytes.Repeat(texts()["mixed"], 8)
	stream := deflated(b, text, 6)
	b.Run("content", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if _, err := inflateAll(stream, 256<<10); err != io.EOF {
				b.Fatal(err)
			}
		}
	})
	b.Run("tokens", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		var tokens []Token
		for b.Loop() {
			p := NewParser(bytes.NewReader(stream))
			var content []byte
			for block := (Block{}); !block.Final; {
				var err error
				if content, tokens, err = p.Next(&block, content[max(0, len(content)-Window):], tokens[:0]); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
