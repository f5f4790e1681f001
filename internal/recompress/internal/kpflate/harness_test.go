package kpflate

import (
	"io"
	"testing"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// block is one of a stream taken apart.
type block struct {
	deflate.Block
	tokens []deflate.Token
}

// run is what an encoder took between flushes.
type run struct {
	from, to int
	blocks   []block
}

// takeApart parses a raw deflate stream.
func takeApart(t testing.TB, r io.Reader) (content []byte, runs []run) {
	t.Helper()
	p := deflate.NewParser(r)
	open := false
	for {
		var b block
		had := len(content)
		var err error
		if content, b.tokens, err = p.Next(&b.Block, content, nil); err != nil {
			t.Fatal(err)
		}
		if b.Length == 0 {
			open = false
		} else {
			if !open {
				runs = append(runs, run{from: had})
				open = true
			}
			r := &runs[len(runs)-1]
			r.to = len(content)
			r.blocks = append(r.blocks, b)
		}
		if b.Final {
			return content, runs
		}
	}
}

// misses is where a model was wrong.
type misses struct{ tokens, headers int }

func (m *misses) add(n misses) {
	m.tokens += n.tokens
	m.headers += n.headers
}

// play counts where a model is wrong about a stream, whose first runs are left
// out.
func play(t testing.TB, s model.Spec, content []byte, runs []run) (n misses) {
	t.Helper()
	m := s.New()
	for i, r := range runs {
		low := max(0, r.from-model.Prior)
		in := model.Input{Data: content[low:r.to], From: r.from - low, To: r.to - low, End: true}
		if in.Fresh = i == 0 || s.Restarts; !in.Fresh {
			in.Offset = int64(low)
		}
		n.add(playRun(m, in, content[r.from:r.to], r.blocks))
	}
	return n
}

func playRun(m model.Model, in model.Input, content []byte, blocks []block) (n misses) {
	m.Begin(in)
	for _, b := range blocks {
		tokens := b.tokens
		if b.Type != deflate.Stored {
			n.tokens += follow(m, tokens)
		} else if tokens = free(m, b.Length); tokens == nil {
			n.headers++
			in.From += b.Length
			in.Fresh = false
			content = content[b.Length:]
			m.Begin(in)
			continue
		}
		h := deflate.Header{Final: b.Final, Padding: b.Padding}
		if m.Header(&h, tokens, content[:b.Length]); h != b.Header {
			n.headers++
		}
		in.From += b.Length
		content = content[b.Length:]
	}
	return n
}

func follow(m model.Model, tokens []deflate.Token) (n int) {
	for _, k := range tokens {
		if m.Predict() != k {
			n++
		}
		m.Commit(k)
	}
	if m.Predict() != deflate.EndOfBlock {
		n++
	}
	m.Commit(deflate.EndOfBlock)
	return n
}

// free lets a model say how a stored block would be made; nil if it would not
// have that length.
func free(m model.Model, length int) []deflate.Token {
	tokens := []deflate.Token{}
	for n := 0; ; {
		k := m.Predict()
		m.Commit(k)
		if k == deflate.EndOfBlock {
			if n != length {
				return nil
			}
			return tokens
		}
		if n += k.Length(); n > length {
			return nil
		}
		tokens = append(tokens, k)
	}
}
