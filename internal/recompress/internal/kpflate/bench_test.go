package kpflate

import (
	"io"
	"os"
	"testing"

	"github.com/klauspost/compress/flate"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

const blockSize = 1 << 20 // pgzip's

// benchContent is a file named by the environment, or some text.
func benchContent(b *testing.B) []byte {
	if name := os.Getenv("KPFLATE_BENCH"); name != "" {
		content, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		return content
	}
	return text(4<<20, 1)
}

// BenchmarkPlay plays models over pgzip's blocks as their stream is given back,
// beside the encoder itself.
func BenchmarkPlay(b *testing.B) {
	content := benchContent(b)
	for _, s := range Specs() {
		if !s.Restarts || s.ID > 41 {
			continue
		}
		b.Run(s.Name, func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			m := s.New().(model.Runner)
			var w deflate.Writer
			for b.Loop() {
				w.Out = w.Out[:0]
				for from := 0; from < len(content); from += blockSize {
					giveBack(m, &w, content[:min(from+blockSize, len(content))], from)
				}
			}
		})
	}
}

func BenchmarkEncoder(b *testing.B) {
	content := benchContent(b)
	for _, level := range []int{-2, 1, 2, 3, 4, 5, 6, 7, 8, 9} {
		b.Run(level2name(level), func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			w, err := flate.NewWriterDict(io.Discard, level, nil)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				for from := 0; from < len(content); from += blockSize {
					w.ResetDict(io.Discard, content[max(0, from-dictionary):from])
					if _, err := w.Write(content[from:min(from+blockSize, len(content))]); err != nil {
						b.Fatal(err)
					}
					if err := w.Flush(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func level2name(level int) string { return string(rune('0' + max(level, 0))) }

// giveBack writes the run that begins at from.
func giveBack(m model.Runner, w *deflate.Writer, data []byte, from int) {
	m.Begin(model.Input{Data: data, From: from, To: len(data), Fresh: true, End: true})
	tokens := make([]deflate.Token, 0, 1<<16)
	for at := from; at < len(data); {
		tokens = tokens[:0]
		was := at
		for next := m.Next(); len(next) > 0; next = m.Next() {
			for _, t := range next {
				at += t.Length()
			}
			tokens = append(tokens, next...)
			m.Take(len(next))
		}
		m.Commit(m.Predict())
		var h deflate.Header
		m.Header(&h, tokens, data[was:at])
		if h.Type == deflate.Stored {
			w.Stored(&h, data[was:at])
		} else {
			w.Block(&h, tokens)
		}
	}
}
