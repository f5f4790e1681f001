package deflate

import (
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"testing"
)

// guessed decodes a stream without what is before it, into buffers with room for
// that many bytes, and puts that in afterwards.
func guessed(stream, before []byte, room int) ([]byte, error) {
	var f Inflater
	f.Feed(stream)
	var bufs [][]byte
	var copies [][]Copy
	var err error
	size := Window + room + MinRoom
	u := NewUnknown(size)
	unknown := true
	for last := []byte(nil); err == nil; {
		buf := make([]byte, size)
		copy(buf, bytes.Repeat([]byte("?"), Window))
		if last != nil {
			copy(buf, last[len(last)-Window:])
			unknown = unknown && u.Follow(len(last))
		}
		u.Copies = nil
		n := 0
		if unknown {
			n, err = f.InflateUnknown(buf, Window, u)
		} else {
			n, err = f.Inflate(buf, Window, 0)
		}
		last = buf[:n]
		bufs, copies = append(bufs, last), append(copies, u.Copies)
	}
	content := append(make([]byte, Window-len(before)), before...)
	low := Window - len(before)
	for i, buf := range bufs {
		copy(buf, content[len(content)-Window:])
		if !Redo(buf[:cap(buf)], low, copies[i]) {
			return nil, errFar
		}
		content = append(content, buf[Window:]...)
		low = 0
	}
	return content[Window:], err
}

func TestUnknown(t *testing.T) {
	all := texts()["mixed"]
	dictionary := all[:Window]
	for i, text := range [][]byte{all[100:20_000], all[Window:], bytes.Repeat(all[Window-10:Window], 500), all[:1], nil} {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			var b bytes.Buffer
			w, err := flate.NewWriterDict(&b, level, dictionary)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(text); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			for _, room := range []int{Window, 50_001, 1 << 20} {
				if got, err := guessed(b.Bytes(), dictionary, room); err != io.EOF || !bytes.Equal(got, text) {
					t.Errorf("level %d, %d bytes, room for %d: %d bytes, %v", level, len(text), room, len(got), err)
				}
			}
			if i == 0 && level > 1 { // the first does not use a dictionary
				if _, err := guessed(b.Bytes(), dictionary[Window-1000:], 1<<20); err != errFar {
					t.Errorf("level %d, part of the dictionary: %v", level, err)
				}
			}
		}
	}
	if _, err := new(Inflater).InflateUnknown(make([]byte, 1<<20), Window, NewUnknown(Window+1000)); err == nil {
		t.Error("a buffer of any size is taken")
	}
}

// FuzzUnknown never finds a stream that comes out otherwise when what is before
// it is only known afterwards.
func FuzzUnknown(f *testing.F) {
	before := make([]byte, Window)
	rand.NewChaCha8([32]byte{1}).Read(before)
	for _, text := range texts() {
		f.Add(deflated(f, text[:min(len(text), 3000)], 6), uint16(9))
	}
	f.Fuzz(func(t *testing.T, stream []byte, room uint16) {
		var g Inflater
		g.Feed(stream)
		out := make([]byte, Window+1<<20)
		copy(out, before)
		n, want := g.Inflate(out, Window, 0)
		got, err := guessed(stream, before, Window+int(room))
		if want == nil {
			return // that is a large one
		}
		if err.Error() != want.Error() || !bytes.Equal(got, out[Window:n]) {
			t.Fatalf("%d bytes, %v; known %d, %v", len(got), err, n-Window, want)
		}
	})
}
