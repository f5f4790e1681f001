package dedupe

import (
	"context"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/segment"
)

// BenchmarkRestore restores tars of small and large files to nowhere. Each byte
// of the contents is used by one of them ("unique"), or by three on average
// ("shared"). IMGPACK_BENCH_FILE may name a file to take the contents from.
// It says how many bytes of tar come out in a second of processor time.
func BenchmarkRestore(b *testing.B) {
	for _, c := range []struct {
		name string
		uses int
	}{{"unique", 1}, {"shared", 3}} {
		b.Run(c.name, func(b *testing.B) {
			d := benchDraft(b)
			h := d.open(b, OpenOptions{})
			var size int64
			for _, tar := range d.tars {
				for _, r := range tar.Runs {
					size += r.Head + r.Body
				}
			}
			h.want = nil
			var used time.Duration
			for b.Loop() {
				bundle := *h.Bundle
				bundle.contents = newContents(&bundle, OpenOptions{SpoolDir: b.TempDir()})
				start := processorTime(b)
				for range c.uses {
					for i := range d.tars {
						r, err := bundle.contents.openTar(context.Background(), i)
						if err != nil {
							b.Fatal(err)
						}
						if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, 256<<10)); err != nil {
							b.Fatal(err)
						}
						r.Close()
					}
				}
				used += processorTime(b) - start
				bundle.contents.Close()
			}
			b.ReportMetric(float64(size)*float64(c.uses)*float64(b.N)/1e6/used.Seconds(), "MB/cpu-s")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchDraft is two segments and two tars, whose files lie in the contents in
// another order than in the tars, as those of several layers do.
func benchDraft(b *testing.B) *draft {
	const size = 64 << 20
	rng := newRand(30)
	text := words(rng, 2*size)
	if path := os.Getenv("IMGPACK_BENCH_FILE"); path != "" {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		if _, err := io.ReadFull(f, text); err != nil {
			b.Fatal(err)
		}
	}
	d := &draft{level: segment.Default, contents: [][]byte{text[:size], text[size:]}, tars: make([]recipe.Tar, 2)}
	heads, at := int64(0), int64(4<<20) // heads first
	for at < 2*size {
		n := min(fileSize(rng), 2*size-at)
		t := &d.tars[rng.IntN(2)]
		t.Runs = append(t.Runs, recipe.Run{Head: 512, Body: n})
		t.Heads = append(t.Heads, recipe.Extent{Offset: heads % (4 << 20), Length: 512})
		t.Bodies = append(t.Bodies, recipe.Extent{Offset: at, Length: n})
		heads, at = heads+512, at+n
	}
	return d
}

// fileSize is as in images: most files are small, most bytes are in large ones.
func fileSize(rng *rand.Rand) int64 {
	return 200 << min(14, int(rng.ExpFloat64()*4))
}
