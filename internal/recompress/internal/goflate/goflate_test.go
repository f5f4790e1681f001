package goflate

import (
	"bytes"
	"compress/flate"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// TestExact has the models play what the standard library's encoder did.
func TestExact(t *testing.T) {
	live(t)
	for _, spec := range Specs() {
		t.Run(spec.Name, func(t *testing.T) {
			t.Parallel()
			m := spec.New()
			for _, c := range contents {
				for _, n := range sizes {
					if n > slow(spec, c.name) {
						continue
					}
					blocks := taken(t, encoded(t, c.data[:n], level(spec)))
					var r result
					r.play(m, c.data[:n], blocks, run{to: n, fresh: true, end: true})
					if r.tokens+r.headers > 0 {
						t.Errorf("%s of %d bytes: %v", c.name, n, r)
					}
				}
			}
		})
	}
}

// TestPieces gives content to the encoder as archivers and pipes do.
func TestPieces(t *testing.T) {
	live(t)
	content := tarred(500_000)
	if raceEnabled {
		content = content[:100_000]
	}
	for _, spec := range Specs() {
		for _, piece := range []int{512, 4096, 32768, 100_000} {
			blocks := taken(t, encoded(t, content, level(spec), pieces(len(content), piece)...))
			var r result
			r.play(spec.New(), content, blocks, run{to: len(content), fresh: true, end: true})
			if r.tokens+r.headers > 3 {
				t.Errorf("%s in pieces of %d: %v", spec.Name, piece, r)
			}
		}
	}
}

// TestParts begins in the midst of streams, with as little before as there is.
func TestParts(t *testing.T) {
	live(t)
	for _, spec := range Specs() {
		t.Run(spec.Name, func(t *testing.T) {
			t.Parallel()
			m := spec.New()
			for _, c := range contents {
				if slow(spec, c.name) < 100_000 && c.name != "text" {
					continue
				}
				blocks := taken(t, encoded(t, c.data, level(spec)))
				for _, least := range []int{100_000, 1_100_000} {
					var r result
					r.part(m, c.data, blocks, least, 200_000)
					if r.tokens+r.headers > partBound(spec.ID) {
						t.Errorf("%s from %d: %v", c.name, least, r)
					}
				}
			}
		})
	}
}

// slow is the length of content over which tests would take too long.
func slow(spec model.Spec, name string) int {
	switch {
	case raceEnabled:
		return 20_000
	case spec.ID > 7 && spec.ID < 10 && (name == "sparse" || name == "mixed"):
		return 20_000
	case spec.ID > 7 && spec.ID < 10:
		return 100_000
	case spec.ID == 7 && name == "sparse":
		return 20_000
	case spec.ID == 1 || spec.ID == 6 && name != "sparse" && name != "zeros":
		return 2 << 20
	}
	return 140_000
}

// partBound is what a part may cost because a model does not know what the
// encoder did before it, of which levels 1 to 3 never make good for all.
func partBound(id uint16) int {
	switch id {
	case 1:
		return 600
	case 2, 3:
		return 30
	}
	return 0
}

// TestFlushed has the encoder flush at odd places, and go on.
func TestFlushed(t *testing.T) {
	live(t)
	content := tarred(1 << 20)
	flushes := []int{1, 20, 400, 5000, 70_000, 70_001, 300_000, 300_100, 800_000}
	for _, spec := range Specs() {
		blocks := taken(t, encoded(t, content, level(spec), flushes...), flushes...)
		var r result
		r.flushed(spec.New(), content, blocks)
		if r.tokens+r.headers > partBound(spec.ID)+len(flushes) {
			t.Errorf("%s: %v", spec.Name, r)
		}
	}
}

// TestWrong tells models something else than they predicted. From there on they
// predict what they do if they begin there.
func TestWrong(t *testing.T) {
	for _, spec := range Specs() {
		if spec.ID < 4 || spec.ID > 9 {
			continue // they remember
		}
		m, other := spec.New(), spec.New()
		again := append(text(9000), random(21_000)...) // in long matches, a lot is planned ahead
		for _, c := range append(contents[:len(contents):len(contents)], content{"again", bytes.Repeat(again, 15)}) {
			in := model.Input{Data: c.data[:450_000], To: 450_000, Fresh: true, End: true}
			m.Begin(in)
			for i, at := 0, 0; at < 430_000; i++ {
				p := m.Predict()
				if i%600 != 599 || !p.IsMatch() || p.Length() < 6 {
					m.Commit(p)
					at += p.Length()
					continue
				}
				p = deflate.Match(p.Length()-3, p.Distance())
				m.Commit(p)
				at += p.Length()
				other.Begin(model.Input{Data: in.Data, From: at, To: in.To, End: true})
				for range 60 {
					p := m.Predict()
					if p == deflate.EndOfBlock {
						break // the other's block is not full
					}
					if q := other.Predict(); p != q {
						t.Fatalf("%s, %s: at %d it predicts %x and not %x", spec.Name, c.name, at, p, q)
					}
					m.Commit(p)
					other.Commit(p)
					at += p.Length()
				}
			}
		}
	}
}

// live skips what compares with the encoder of the toolchain, if that is
// another than the models are of.
func live(t *testing.T) {
	var minor int
	if _, err := fmt.Sscanf(strings.TrimPrefix(runtime.Version(), "devel "), "go1.%d", &minor); err != nil || minor > 26 {
		t.Skipf("the encoder of %s may be another than that of Go 1.8 to 1.26; the golden digests hold", runtime.Version())
	}
}

func level(spec model.Spec) int {
	switch spec.ID {
	case 10:
		return flate.HuffmanOnly
	case 11:
		return flate.NoCompression
	}
	return int(spec.ID)
}

// pieces are the places where pieces end.
func pieces(n, piece int) (at []int) {
	for i := piece; i < n; i += piece {
		at = append(at, -i)
	}
	return at
}

// encoded is content as the standard library's encoder writes it, which gets it
// piece by piece and flushes at places that are above 0.
func encoded(t testing.TB, content []byte, level int, at ...int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	had := 0
	for _, i := range at {
		_, err := w.Write(content[had:max(i, -i)])
		must(err)
		if had = max(i, -i); i > 0 {
			must(w.Flush())
		}
	}
	_, err = w.Write(content[had:])
	must(err)
	must(w.Close())
	return b.Bytes()
}

// block is a block of a stream, with the end of the block among its tokens
// unless it is stored.
type block struct {
	deflate.Header
	tokens   []deflate.Token
	from, to int
	flush    bool // marks a flush
}

// taken is a stream taken apart.
func taken(t testing.TB, stream []byte, flushes ...int) (blocks []block) {
	t.Helper()
	p := deflate.NewParser(bytes.NewReader(stream))
	var content []byte
	for {
		var b deflate.Block
		had := len(content)
		var tokens []deflate.Token
		var err error
		if content, tokens, err = p.Next(&b, content, nil); err != nil {
			t.Fatal(err)
		}
		if b.Final {
			return blocks
		}
		if b.Type != deflate.Stored {
			tokens = append(tokens, deflate.EndOfBlock)
		}
		blocks = append(blocks, block{b.Header, tokens, had, len(content), b.Type == deflate.Stored && b.Length == 0})
	}
}

// run is a run that begins with a block.
type run struct {
	from, to   int
	fresh, end bool
}

// result counts what a model predicted wrongly.
type result struct{ tokens, headers, of int }

// play has a model predict blocks, which make up a run.
func (r *result) play(m model.Model, content []byte, blocks []block, run run) {
	first := max(0, run.from-model.Prior)
	last := run.to
	if !run.end {
		last = min(len(content), run.to+model.Ahead)
	}
	m.Begin(model.Input{
		Data: bytes.Clone(content[first:last]), From: run.from - first, To: run.to - first,
		Fresh: run.fresh, End: run.end, Offset: int64(first),
	})
	var tokens []deflate.Token
	for _, b := range blocks {
		if b.Type == deflate.Stored {
			tokens = free(m)
			at := b.from
			for _, t := range tokens {
				at += t.Length()
			}
			if at != b.to {
				r.tokens++
			}
		} else {
			for _, t := range b.tokens {
				if m.Predict() != t {
					r.tokens++
				}
				m.Commit(t)
			}
			tokens = b.tokens[:len(b.tokens)-1]
		}
		r.of += len(tokens) + 1
		var h deflate.Header
		if m.Header(&h, tokens, content[b.from:b.to]); h != b.Header {
			r.headers++
		}
	}
}

// free has a model predict a block by itself.
func free(m model.Model) (tokens []deflate.Token) {
	for {
		t := m.Predict()
		m.Commit(t)
		if t == deflate.EndOfBlock {
			return tokens
		}
		tokens = append(tokens, t)
	}
}

// part plays blocks from least on that have n bytes or a little more.
func (r *result) part(m model.Model, content []byte, blocks []block, least, n int) {
	for len(blocks) > 0 && blocks[0].from < least {
		blocks = blocks[1:]
	}
	k := 0
	for k < len(blocks) && blocks[k].to < least+n {
		k++
	}
	k = min(k+1, len(blocks))
	if k > 0 {
		end := k == len(blocks)
		r.play(m, content, blocks[:k], run{from: blocks[0].from, to: blocks[k-1].to, end: end})
	}
}

// flushed plays a stream that has flushes.
func (r *result) flushed(m model.Model, content []byte, blocks []block) {
	for first := 0; first < len(blocks); {
		k := first
		for k < len(blocks) && !blocks[k].flush {
			k++
		}
		if k > first {
			from, to := blocks[first].from, blocks[k-1].to
			r.play(m, content, blocks[first:k], run{from: from, to: to, fresh: from == 0, end: true})
		}
		first = k + 1
	}
}
