package goflate

import (
	"compress/flate"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

func BenchmarkLevel6(b *testing.B) { beside(b, 6) }

func BenchmarkLevel1(b *testing.B) { beside(b, 1) }

// beside compares a model with the encoder, which also writes the stream.
func beside(b *testing.B, level uint16) {
	for _, c := range programs() {
		b.Run(c.name+"/encoder", func(b *testing.B) {
			w, err := flate.NewWriter(io.Discard, int(level))
			must(err)
			most(b, len(c.data), func() {
				w.Reset(io.Discard)
				_, err := w.Write(c.data)
				must(err)
				must(w.Close())
			})
		})
		b.Run(c.name+"/model", func(b *testing.B) {
			m := find(level).New()
			tokens := make([]deflate.Token, 0, deflate.MaxStored)
			most(b, len(c.data), func() { playAll(m, c.data, tokens) })
		})
	}
}

func find(id uint16) model.Spec {
	for _, s := range Specs() {
		if s.ID == id {
			return s
		}
	}
	panic("no such model")
}

// playAll plays content as recompress does where a model is always right.
func playAll(m model.Model, data []byte, tokens []deflate.Token) {
	m.Begin(model.Input{Data: data, To: len(data), Fresh: true, End: true})
	for at := 0; at < len(data); {
		from := at
		tokens = tokens[:0]
		for {
			t := m.Predict()
			m.Commit(t)
			if t == deflate.EndOfBlock {
				break
			}
			at += t.Length()
			tokens = append(tokens, t)
		}
		var h deflate.Header
		m.Header(&h, tokens, data[from:at])
	}
}

// most reports the most content for each second of a processor, of all rounds:
// the machine may have other work.
func most(b *testing.B, n int, f func()) {
	spent := func() float64 {
		var u syscall.Rusage
		must(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return float64(u.Utime.Nano()) / 1e9
	}
	top := 0.0
	for b.Loop() {
		had := spent()
		f()
		top = max(top, float64(n)/1e6/(spent()-had))
	}
	b.ReportMetric(top, "MB/cpu-s")
}

// programs are a program and sources of the toolchain.
var programs = sync.OnceValue(func() []content {
	const n = 8 << 20
	out, err := exec.Command("go", "env", "GOROOT").Output()
	must(err)
	root := strings.TrimSpace(string(out))
	program, err := os.ReadFile(filepath.Join(root, "bin", "go"))
	must(err)
	var sources []byte
	must(fs.WalkDir(os.DirFS(root), "src/net", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && len(sources) < n {
			var b []byte
			b, err = os.ReadFile(filepath.Join(root, path))
			sources = append(sources, b...)
		}
		return err
	}))
	return []content{{"program", program[:min(len(program), n)]}, {"sources", sources[:min(len(sources), n)]}}
})
