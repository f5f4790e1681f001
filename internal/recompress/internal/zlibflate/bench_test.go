package zlibflate

import (
	"os"
	"testing"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// BenchmarkModel plays models over a file named in the environment, or over
// content of the tests.
func BenchmarkModel(b *testing.B) {
	data := contents()["mixed"]
	if name := os.Getenv("ZLIBFLATE_CORPUS"); name != "" {
		var err error
		if data, err = os.ReadFile(name); err != nil {
			b.Fatal(err)
		}
	}
	for _, s := range Specs() {
		b.Run(s.Name, func(b *testing.B) {
			m := s.New()
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			tokens := make([]deflate.Token, 0, 1<<16)
			var h deflate.Header
			for b.Loop() {
				m.Begin(model.Input{Data: data, To: len(data), Fresh: true, End: true})
				for at := 0; at < len(data); {
					from := at
					for tokens = tokens[:0]; ; {
						t := m.Predict()
						m.Commit(t)
						if t == deflate.EndOfBlock {
							break
						}
						tokens = append(tokens, t)
						at += t.Length()
					}
					m.Header(&h, tokens, data[from:at])
				}
			}
		})
	}
}
