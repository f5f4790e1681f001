package kpflate

import (
	"testing"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// FuzzModel commits what models do not predict, ends blocks anywhere and begins
// anew: predictions always fit the content, and no model panics.
func FuzzModel(f *testing.F) {
	specs := Specs()
	for i := range specs {
		f.Add(uint8(i), text(3000, uint64(i)), uint16(i*100), []byte{0, 1, 2, 3, 0, 0, 4, 5, 6, 7, 9, 200})
	}
	models := make(map[int]model.Runner)
	f.Fuzz(func(t *testing.T, which uint8, content []byte, from uint16, script []byte) {
		i := int(which) % len(specs)
		if models[i] == nil {
			models[i] = specs[i].New().(model.Runner)
		}
		for len(content) > 0 && len(content) < 80_000 && which&7 == 7 {
			content = append(content, content...)
		}
		if len(content) > 0 {
			stray(t, models[i], content, int(from)%len(content), script)
		}
	})
}

// stray plays a model and does what a script says where it differs from 0.
func stray(t *testing.T, m model.Runner, data []byte, from int, script []byte) {
	in := model.Input{Data: data, From: from, To: len(data), Fresh: len(script)%2 == 0, End: len(script)%3 != 0}
	if !in.End {
		in.To -= min(model.Ahead, len(data)-from-1)
	}
	m.Begin(in)
	var tokens []deflate.Token
	at, block := from, from
	for steps := 0; at < in.To; steps++ {
		p := m.Predict()
		if next := m.Next(); p != m.Predict() || len(next) > 0 && next[0] != p || len(next) == 0 && p != deflate.EndOfBlock {
			t.Fatal("other answer")
		}
		if p != deflate.EndOfBlock && !fits(data[:in.To], at, p) {
			t.Fatalf("%x does not fit at %d", p, at)
		}
		switch act := byte(0); {
		case len(script) > 0 && steps%3 == 0:
			act, script = script[0], script[1:]
			p = other(data[:in.To], at, p, act)
			if act == 7 {
				in.From, in.Fresh = at, false
				m.Begin(in)
				block, tokens = at, tokens[:0]
				continue
			}
		case len(script) == 0 && steps > 3*len(data):
			t.Fatal("no end")
		}
		m.Commit(p)
		if p != deflate.EndOfBlock {
			tokens = append(tokens, p)
			at += p.Length()
			continue
		}
		var h deflate.Header
		m.Header(&h, tokens, data[block:at])
		block, tokens = at, tokens[:0]
	}
	if p := m.Predict(); p != deflate.EndOfBlock {
		t.Fatalf("%x at the end", p)
	}
}

// other is another token than the one predicted.
func other(data []byte, at int, p deflate.Token, act byte) deflate.Token {
	switch act {
	case 0, 7:
		return p
	case 1:
		return deflate.EndOfBlock
	case 2:
		return deflate.Literal(data[at])
	}
	for d := 1 + int(act)*at/256; d <= min(at, deflate.Window); d += 1 + int(act)*3 + at/64 {
		n := min(common(data, at, at-d), deflate.MaxLength)
		if n >= deflate.MinLength {
			return deflate.Match(deflate.MinLength+int(act)%(n-2), d)
		}
	}
	return deflate.Literal(data[at])
}

func fits(data []byte, at int, t deflate.Token) bool {
	if !t.IsMatch() {
		return t == deflate.Literal(data[at])
	}
	d, n := t.Distance(), t.Length()
	return d <= at && at+n <= len(data) && common(data, at, at-d) >= n
}
