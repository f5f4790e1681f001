package recompress

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/imgpack/imgpack/internal/deflate"
)

// TestHopelessWork bounds what is done for streams that no encoder made, by
// what is counted, which is the same everywhere.
func TestHopelessWork(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const most = 1e9
	two := seeded(5)
	letters := make([]byte, 2_000_000)
	for i := range letters {
		letters[i] = "ab"[two.IntN(2)]
	}
	for name, content := range map[string][]byte{
		"text": bytes.Repeat(texts()["text"], 2), "two letters": letters, "period": bytes.Repeat([]byte("abcabd"), 300_000),
	} {
		for _, per := range []int{1, 1000, deflate.MaxBlockTokens} {
			f := newFinder(1)
			err := f.run(context.Background(), bytes.NewReader(strayed(content, per)), nil, Options{Jobs: 1})
			if !errors.Is(err, ErrHopeless) {
				t.Errorf("%s, %d tokens a block: %v", name, per, err)
			}
			if f.decider.work > most {
				t.Errorf("%s, %d tokens a block: %d, more than %d", name, per, f.decider.work, int(most))
			}
		}
	}
}

// strayed compresses with matches that no encoder would take, so many tokens in
// a fixed block.
func strayed(content []byte, per int) []byte {
	r, last := seeded(9), make(map[[3]byte]int)
	var tokens []deflate.Token
	for at := 0; at < len(content); {
		k := deflate.Literal(content[at])
		if rest := content[at:]; len(rest) >= deflate.MinLength {
			here := [3]byte(rest)
			if from, ok := last[here]; ok && at-from <= deflate.Window && r.IntN(3) > 0 {
				n := deflate.MinLength
				for n < min(len(rest), 40) && rest[n] == content[from+n] {
					n++
				}
				k = deflate.Match(deflate.MinLength+r.IntN(n-2), at-from)
			}
			if r.IntN(4) > 0 {
				last[here] = at
			}
		}
		tokens = append(tokens, k)
		at += k.Length()
	}
	w := deflate.Writer{Out: bytes.Clone(usualHead)}
	for len(tokens) > 0 {
		n := min(per, len(tokens))
		w.Block(&deflate.Header{Type: deflate.Fixed, Final: n == len(tokens)}, tokens[:n])
		tokens = tokens[n:]
	}
	if w.Count > 0 {
		w.Out = append(w.Out, byte(w.Bits))
	}
	end := deflate.GzipTrailer(crc32.ChecksumIEEE(content), uint32(len(content)))
	return append(w.Out, end[:]...)
}

// TestJobsAgree proves that the recipe does not depend on how many work on it,
// also where models are searched for again and again.
func TestJobsAgree(t *testing.T) {
	text := texts()["text"]
	var stream []byte
	for _, level := range []int{6, 1} {
		stream = append(stream, zipped(t, text, level)...)
		stream = append(stream, strayed(text[:100_000], 1000)...)
	}
	var first []byte
	for _, jobs := range []int{1, 5} {
		recipe, _, err := Find(context.Background(), bytes.NewReader(stream), nil, Options{Jobs: jobs, Spend: -1})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = recipe
		}
		if !bytes.Equal(recipe, first) {
			t.Errorf("%d jobs find another recipe", jobs)
		}
	}
}

// member is a part of one gzip member, in fixed blocks of so many tokens.
func member(content []byte, tokens []deflate.Token, per int) *part {
	q := &part{span: span{data: content, to: len(content)}, tokens: tokens}
	q.pieces = append(q.pieces, piece{kind: kindHead, raw: usualHead})
	for len(tokens) > 0 {
		b := piece{kind: kindBlock, block: deflate.Fixed, tokens: min(per, len(tokens))}
		for _, t := range tokens[:b.tokens] {
			b.n += t.Length()
		}
		tokens = tokens[b.tokens:]
		b.final = len(tokens) == 0
		q.pieces = append(q.pieces, b)
	}
	trailer := deflate.GzipTrailer(crc32.ChecksumIEEE(content), uint32(len(content)))
	q.pieces = append(q.pieces, piece{kind: kindTail, raw: trailer[:]})
	return q
}

// TestManyPieces refuses a recipe for a part of more blocks than Find puts in
// one.
func TestManyPieces(t *testing.T) {
	content := make([]byte, mostPieces+10)
	q := member(content, make([]deflate.Token, len(content)), 1)
	var p player
	s, c, _, err := p.pack(q, nothingSpec, limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.unpack(q.span, nothingSpec, bytes.Clone(s), bytes.Clone(c), nil); !errors.Is(err, ErrRecipe) {
		t.Error(err)
	}
}

// TestManyHops bounds the steps in dense parts, on both sides.
func TestManyHops(t *testing.T) {
	const distance = 250 // of which all that are shorter would do
	content := make([]byte, 300_000)
	tokens := make([]deflate.Token, distance, len(content))
	for at := distance; at < len(content); at += deflate.MinLength {
		tokens = append(tokens, deflate.Match(min(deflate.MinLength, len(content)-at), distance))
	}
	var p player
	q := member(content[:distance+3*((len(content)-distance)/3)], tokens[:distance+(len(content)-distance)/3], 10_000)
	if _, _, _, err := p.pack(q, nothingSpec, limits{dense: true}); err != errWork {
		t.Errorf("packed: %v", err)
	}
	s, c, _, err := p.pack(member(content[:distance+3000], tokens[:distance+1000], 10_000), nothingSpec, limits{dense: true})
	if err != nil {
		t.Fatal(err)
	}
	few := span{data: content[:distance+3000], to: distance + 3000, dense: true}
	if _, err := p.unpack(few, nothingSpec, bytes.Clone(s), bytes.Clone(c), nil); err != nil {
		t.Error(err)
	}
	if p.hops == 0 {
		t.Error("nothing is counted on restoring")
	}
}
