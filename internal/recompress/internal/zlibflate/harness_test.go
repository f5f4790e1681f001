package zlibflate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"testing"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// block is one of a stream, and where its content begins.
type block struct {
	deflate.Block
	tokens []deflate.Token
	at     int
}

// takeApart parses all members of a gzip stream, which have no optional header
// fields but a name, or one raw deflate stream. It returns the blocks and where
// members begin.
func takeApart(t testing.TB, stream []byte, raw bool) (content []byte, blocks []block, members []int) {
	t.Helper()
	p := deflate.NewParser(bytes.NewReader(stream))
	for {
		if !raw && !gzipHeader(t, p) {
			return content, blocks, members
		}
		members = append(members, len(content))
		for {
			b := block{at: len(content)}
			var err error
			if content, b.tokens, err = p.Next(&b.Block, content, nil); err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks, b)
			if b.Final {
				break
			}
		}
		if raw {
			return content, blocks, members
		}
		p.Align()
		for range 8 {
			if _, err := p.Byte(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func gzipHeader(t testing.TB, p *deflate.Parser) bool {
	t.Helper()
	var h [10]byte
	for i := range h {
		c, err := p.Byte()
		if i == 0 && err == io.EOF {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		h[i] = c
	}
	if h == [10]byte{} {
		return false // bsdtar fills its last record
	}
	if h[0] != 0x1f || h[1] != 0x8b || h[3]&^8 != 0 {
		t.Fatalf("gzip header %x", h)
	}
	for c := byte(1); h[3]&8 != 0 && c != 0; {
		var err error
		if c, err = p.Byte(); err != nil {
			t.Fatal(err)
		}
	}
	return true
}

// run is a piece of a stream that one encoder took without a flush.
type run struct {
	blocks   []block
	from, to int
	fresh    bool
	began    int // where its member did
}

// runsOf splits blocks at members and at empty blocks, which are flushes.
func runsOf(blocks []block, members []int, restarts bool) []run {
	var all []run
	begin, began := true, 0
	for _, b := range blocks {
		member := false
		for len(members) > 0 && members[0] <= b.at && (begin || b.at == members[0]) {
			member, began = true, b.at
			members = members[1:]
		}
		if b.Length == 0 {
			begin = true
			continue
		}
		if begin || member {
			all = append(all, run{from: b.at, fresh: member || restarts, began: began})
			begin = false
		}
		r := &all[len(all)-1]
		r.blocks = append(r.blocks, b)
		r.to = b.at + b.Length
	}
	return all
}

// misses counts what a model did not foresee.
type misses struct {
	tokens, headers, of int
}

func (m *misses) add(n misses) {
	m.tokens += n.tokens
	m.headers += n.headers
	m.of += n.of
}

// compare plays a model over a run whose content lies in data.
func compare(t testing.TB, m model.Model, data []byte, r run, end bool) (n misses) {
	t.Helper()
	from := max(r.from-model.Prior, r.began)
	stop := r.to
	if !end {
		stop = min(r.to+model.Ahead, len(data))
	}
	began := func(at, from int) model.Input {
		in := model.Input{Data: data[from:stop], From: at - from, To: r.to - from, End: stop == r.to}
		if in.Fresh = r.fresh && at == r.from; !in.Fresh {
			in.Offset = int64(from - r.began)
		}
		return in
	}
	m.Begin(began(r.from, from))
	var tokens []deflate.Token
	for i := range r.blocks {
		b := &r.blocks[i]
		content := data[b.at : b.at+b.Length]
		n.of += len(b.tokens) + 1
		var h deflate.Header
		if b.Type == deflate.Stored {
			var ok bool
			if tokens, ok = free(m, tokens[:0], b.Length); ok {
				m.Header(&h, tokens, content)
				if h == (deflate.Header{}) {
					continue
				}
			}
			n.tokens++
			if behind := b.at + b.Length; behind < r.to {
				m.Begin(began(behind, from))
			}
			continue
		}
		for _, want := range append(b.tokens, deflate.EndOfBlock) {
			if m.Predict() != want {
				n.tokens++
			}
			m.Commit(want)
		}
		m.Header(&h, b.tokens, content)
		h.Final, h.Padding = b.Final, b.Padding
		if h != b.Header {
			n.headers++
		}
	}
	return n
}

// cut compares a model with parts of a run of about size bytes, for each of which
// it begins anew.
func cut(t testing.TB, m model.Model, data []byte, r run, size int) (n misses, parts int) {
	t.Helper()
	for len(r.blocks) > 0 {
		p, i := r, 0
		for p.to = r.from; i < len(r.blocks) && p.to-r.from < size; i++ {
			p.to += r.blocks[i].Length
		}
		p.blocks = r.blocks[:i]
		n.add(compare(t, m, data, p, p.to == r.to))
		r.blocks, r.from, r.fresh = r.blocks[i:], p.to, false
		parts++
	}
	return n, parts
}

// free lets the model run to the end of a block, which should have length bytes.
func free(m model.Model, tokens []deflate.Token, length int) ([]deflate.Token, bool) {
	for {
		t := m.Predict()
		m.Commit(t)
		if t == deflate.EndOfBlock {
			return tokens, length == 0
		}
		if length -= t.Length(); length < 0 {
			return tokens, false
		}
		tokens = append(tokens, t)
	}
}

func show(t deflate.Token) string {
	switch {
	case t == deflate.EndOfBlock:
		return "end"
	case t.IsMatch():
		return fmt.Sprintf("match %d from %d", t.Length(), t.Distance())
	}
	return fmt.Sprintf("literal %d", t)
}

// digest is that of blocks written one after the other, without what flushes and
// ends streams.
func digest(blocks []block, content []byte) string {
	var w deflate.Writer
	h := sha256.New()
	for i := range blocks {
		b := &blocks[i]
		b.Final, b.Padding = false, 0
		if b.Length == 0 {
			continue
		}
		if b.Type == deflate.Stored {
			w.Stored(&b.Header, content[b.at:b.at+b.Length])
		} else {
			w.Block(&b.Header, b.tokens)
		}
		h.Write(w.Out)
		w.Out = w.Out[:0]
	}
	h.Write([]byte{byte(w.Bits), byte(w.Count)})
	return hex.EncodeToString(h.Sum(nil))
}

// predicted lets a model make the blocks of a run by itself.
func predicted(m model.Model, data []byte, r run) (blocks []block) {
	from := max(r.from-model.Prior, r.began)
	m.Begin(model.Input{Data: data[from:r.to], From: r.from - from, To: r.to - from, Fresh: r.fresh, End: true})
	for at := r.from; at < r.to; {
		b := block{at: at}
		for {
			t := m.Predict()
			m.Commit(t)
			if t == deflate.EndOfBlock {
				break
			}
			b.tokens = append(b.tokens, t)
			at += t.Length()
		}
		b.Length = at - b.at
		m.Header(&b.Header, b.tokens, data[b.at:at])
		blocks = append(blocks, b)
	}
	return blocks
}
