package deflate

import (
	"bytes"
	"testing"
)

func BenchmarkWriter(b *testing.B) {
	text := texts()["text"]
	p := NewParser(bytes.NewReader(deflated(b, text, 6)))
	var block Block
	_, tokens, err := p.Next(&block, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	var w Writer
	for b.Loop() {
		w.Out = w.Out[:0]
		w.Block(&block.Header, tokens)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(tokens)), "ns/token")
}

// TestNoCode tells tokens that a block has no code for.
func TestNoCode(t *testing.T) {
	h := Header{Type: Dynamic}
	h.Trees = Trees{NumLit: 257, NumDist: 1, NumCode: 4}
	h.Trees.Lit['a'], h.Trees.Lit[EndSymbol] = 1, 1
	for _, test := range []struct {
		tokens []Token
		ok     bool
	}{
		{nil, true}, {[]Token{'a'}, true}, {[]Token{'b'}, false},
		{[]Token{'a', Match(3, 1), 'a'}, false}, {[]Token{'a', Match(258, 1) | LongForm}, false},
	} {
		var w Writer
		if ok := w.Block(&h, test.tokens); ok != test.ok {
			t.Errorf("%v: %v", test.tokens, ok)
		}
	}
	h.Trees.Lit[FirstMatch] = 2
	var w Writer
	if w.Block(&h, []Token{'a', Match(3, 1)}) {
		t.Error("a match without a distance")
	}
}
