package goflate

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// FuzzModel tells models whatever fits the content, at whatever place. They
// always predict what fits it, twice the same, and the same whatever they were
// told before they began.
func FuzzModel(f *testing.F) {
	specs := Specs()
	for i, c := range contents {
		for k := range specs {
			f.Add(c.data[:2000+i*1000], uint16(i*700), uint8(i+k<<2), uint64(i))
			f.Add(c.data[:i], uint16(0), uint8(3*i+k<<2), uint64(i))
		}
	}
	for k := range specs {
		f.Add(contents[4].data[:40_000], uint16(33_000), uint8(1+k<<2), uint64(7))
	}
	f.Fuzz(func(t *testing.T, data []byte, from uint16, flags uint8, seed uint64) {
		in := model.Input{
			Data: data, From: min(int(from), len(data)), To: len(data),
			Fresh: flags&1 != 0, End: flags&2 != 0,
		}
		if !in.Fresh {
			in.Offset = int64(seed >> 20)
		}
		if !in.End {
			in.To = max(in.From, in.To-model.Ahead)
		}
		spec := specs[int(flags>>2)%len(specs)]
		used := spec.New()
		first := told(t, used, in, seed)
		if second := told(t, used, in, seed); !bytes.Equal(first, second) {
			t.Fatalf("%s: it predicts something else the second time", spec.Name)
		}
		if third := told(t, spec.New(), in, seed); !bytes.Equal(first, third) {
			t.Fatalf("%s: a new one predicts something else", spec.Name)
		}
	})
}

// told has a model predict, and tells it by chance what it predicted or
// something else. It returns what was predicted.
func told(t *testing.T, m model.Model, in model.Input, seed uint64) (out []byte) {
	r := rand.New(rand.NewPCG(seed, 5))
	trust := 1 + r.IntN(300)
	m.Begin(in)
	var tokens []deflate.Token
	from := in.From
	for at := in.From; at < in.To; {
		p := m.Predict()
		if p != m.Predict() {
			t.Fatalf("at %d it predicts %x and then something else", at, p)
		}
		fits(t, in, at, p)
		out = append(out, byte(p), byte(p>>8), byte(p>>16))
		if r.IntN(trust) == 0 {
			p = other(r, in, at)
		}
		m.Commit(p)
		if at += p.Length(); p != deflate.EndOfBlock {
			tokens = append(tokens, p)
			continue
		}
		if from < at {
			var h deflate.Header
			m.Header(&h, tokens, in.Data[from:min(at, len(in.Data))])
			out = append(out, byte(h.Type), byte(h.Trees.NumRuns))
		}
		tokens, from = nil, at
	}
	return out
}

// fits fails unless a token may come next.
func fits(t *testing.T, in model.Input, at int, p deflate.Token) {
	n := p.Length()
	switch {
	case p == deflate.EndOfBlock:
	case at+n > len(in.Data):
		t.Fatalf("at %d of %d: %x reaches too far", at, len(in.Data), p)
	case !p.IsMatch():
		if p != deflate.Literal(in.Data[at]) {
			t.Fatalf("at %d: %x is not what is there", at, p)
		}
	case p.Distance() > at:
		t.Fatalf("at %d: %d is too far back", at, p.Distance())
	default:
		for i := at; i < at+n; i++ {
			if in.Data[i] != in.Data[i-p.Distance()] {
				t.Fatalf("at %d: %x is no match", at, p)
			}
		}
	}
}

// other is a token that fits: the end of the block, a literal, or a match that
// is found by chance.
func other(r *rand.Rand, in model.Input, at int) deflate.Token {
	kind := r.IntN(20)
	if kind == 0 {
		return deflate.EndOfBlock
	}
	for d := 1; kind > 5 && d <= min(at, deflate.Window); d += 1 + r.IntN(1+d/8) {
		n := 0
		for n < min(deflate.MaxLength, in.To-at) && in.Data[at+n] == in.Data[at+n-d] {
			n++
		}
		if n >= deflate.MinLength {
			return deflate.Match(deflate.MinLength+r.IntN(n-deflate.MinLength+1), d)
		}
	}
	return deflate.Literal(in.Data[at])
}
