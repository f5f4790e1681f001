package goflate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// TestRunner takes some of what models say at once, corrects them here and
// there, and hears from then on what those say that are asked for each token.
func TestRunner(t *testing.T) {
	for _, spec := range Specs() {
		if _, ok := spec.New().(model.Runner); !ok {
			continue
		}
		for i, content := range [][]byte{nil, text(1), text(70_000), tarred(150_000), mixed(200_000), random(70_000), sparse(100_000)} {
			t.Run(fmt.Sprint(spec.Name, i), func(t *testing.T) {
				single, several := spec.New(), spec.New().(model.Runner)
				in := model.Input{Data: content, To: len(content), Fresh: true, End: true}
				single.Begin(in)
				several.Begin(in)
				inStep(t, single, several, content)
			})
		}
	}
}

// inStep leads two models over content, in step.
func inStep(t *testing.T, single model.Model, several model.Runner, content []byte) {
	r := rand.New(rand.NewPCG(3, 4))
	var block []deflate.Token
	at, began := 0, 0
	for ended := false; !ended; {
		next := slices.Clone(several.Next())
		next = next[:r.IntN(len(next)+1)]
		for _, token := range next {
			if want := single.Predict(); token != want {
				t.Fatalf("at %d: %x, want %x", at, token, want)
			}
			single.Commit(token)
			at += token.Length()
		}
		several.Take(len(next))
		block = append(block, next...)
		token := single.Predict()
		if got := several.Predict(); got != token {
			t.Fatalf("at %d: %x, want %x", at, got, token)
		}
		if token.IsMatch() && r.IntN(50) == 0 {
			token = deflate.Literal(content[at])
		}
		single.Commit(token)
		several.Commit(token)
		at += token.Length()
		if token != deflate.EndOfBlock {
			block = append(block, token)
			continue
		}
		var want, got deflate.Header
		single.Header(&want, block, content[began:at])
		several.Header(&got, block, content[began:at])
		if got != want {
			t.Fatalf("at %d: another header", at)
		}
		block, began, ended = block[:0], at, at == len(content)
	}
}
