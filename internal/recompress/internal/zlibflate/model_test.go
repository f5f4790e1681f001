package zlibflate

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

var update = flag.Bool("update", false, "write testdata anew: from the tools where a model is exact")

const golden = "testdata/golden.txt"

// TestGolden holds models to what the encoders made when they were written: zlib
// 1.2.13, pigz 2.6 and GNU gzip 1.12.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		id, digest, _ := strings.Cut(strings.TrimSpace(line), " ")
		want[id] = digest
	}
	if len(want) != len(Specs()) {
		t.Errorf("%d digests for %d models", len(want), len(Specs()))
	}
	for _, s := range Specs() {
		if got := digestOf(s); got != want[fmt.Sprint(s.ID)] {
			t.Errorf("%d (%s) predicts other streams: %s", s.ID, s.Name, got)
		}
	}
}

// names of the contents, in the order in which they are taken.
func names() []string { return slices.Sorted(maps.Keys(contents())) }

// digestOf is that of all contents as a model predicts them.
func digestOf(s model.Spec) string {
	all, m, h := contents(), s.New(), sha256.New()
	for _, name := range names() {
		data := all[name]
		fmt.Fprintln(h, name, digest(predicted(m, data, run{to: len(data), fresh: true}), data))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func writeGolden(t *testing.T) {
	digests := make(map[uint16]string)
	paths := files(t, names())
	for _, tool := range tools(t) {
		h := sha256.New()
		if digests[tool.id] != "" {
			continue
		}
		data, blocks, _ := takeApart(t, tool.make(t, paths...), false)
		for _, name := range names() {
			n := 1 + slices.IndexFunc(blocks, func(b block) bool { return b.Final })
			fmt.Fprintln(h, name, digest(blocks[:n], data))
			blocks = blocks[n:]
		}
		digests[tool.id] = hex.EncodeToString(h.Sum(nil))
	}
	var text strings.Builder
	for _, s := range Specs() {
		if digests[s.ID] == "" {
			digests[s.ID] = digestOf(s)
		}
		fmt.Fprintln(&text, s.ID, digests[s.ID])
	}
	if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestIDs: numbers and framing never change.
func TestIDs(t *testing.T) {
	seen := make(map[uint16]bool)
	for _, s := range Specs() {
		if s.ID < 128 || s.ID > 255 || seen[s.ID] {
			t.Errorf("%s has the number %d", s.Name, s.ID)
		}
		seen[s.ID] = true
		if want := s.ID > idPigz && s.ID < idGzip; s.Restarts != want {
			t.Errorf("%s restarts: %v", s.Name, s.Restarts)
		}
	}
}

// TestAgain: what a model predicts does not hang on what it did before.
func TestAgain(t *testing.T) {
	all := contents()
	text, mixed := all["text"], all["mixed"]
	for i, s := range Specs() {
		if i%4 != 1 {
			continue
		}
		m := s.New()
		r := run{to: len(text), fresh: true}
		want := digest(predicted(m, text, r), text)
		predicted(m, mixed[:len(mixed)/2+7], run{to: len(mixed)/2 + 7, fresh: true})
		if digest(predicted(m, text, r), text) != want {
			t.Errorf("%s predicts another stream the second time", s.Name)
		}
	}
}

// TestParts: a model that begins in the midst of a stream misses little.
func TestParts(t *testing.T) {
	all := contents()
	data := slices.Concat(all["mixed"], all["tar"], all["mixed"][:150<<10])
	for _, s := range Specs() {
		m := s.New()
		whole := run{to: len(data), fresh: true}
		whole.blocks = predicted(m, data, whole)
		if n := compare(t, m, data, whole, true); n.tokens+n.headers > 0 {
			t.Errorf("%s does not predict what it predicts", s.Name)
		}
		n, parts := cut(t, m, data, whole, 160<<10)
		most := 0
		if p := m.(*encoder).params; !p.slow {
			most = 80 * parts
		}
		if n.tokens > most || n.headers > 0 {
			t.Errorf("%s misses %d tokens and %d headers in %d parts", s.Name, n.tokens, n.headers, parts)
		}
	}
}

// FuzzModel: whatever models are told, they predict what fits.
func FuzzModel(f *testing.F) {
	all := contents()
	for i, name := range []string{"text 300", "mixed 300", "text 5", "zeros"} {
		f.Add(all[name][:min(len(all[name]), 3000)], uint16(100), uint8(i), int64(i)*30000-10000, []byte("abcdefg\x00\xff"))
	}
	var models []model.Model
	for _, s := range Specs() {
		models = append(models, s.New())
	}
	f.Fuzz(func(t *testing.T, data []byte, from uint16, flags uint8, offset int64, script []byte) {
		if len(data) > 20000 {
			data = data[:20000]
		}
		for i, m := range models {
			if i%7 == int(flags>>3)%7 {
				mislead(t, m, data, min(int(from), len(data)), flags, offset, script)
			}
		}
	})
}

// mislead plays a model, committing something else now and then.
func mislead(t *testing.T, m model.Model, data []byte, from int, flags uint8, offset int64, script []byte) {
	in := model.Input{Data: data, From: from, To: len(data), Fresh: flags&1 != 0, End: flags&2 != 0}
	if !in.Fresh {
		in.Offset = max(offset, -int64(from))
	}
	m.Begin(in)
	var tokens []deflate.Token
	at, block := from, from
	for step := 0; ; step++ {
		p := m.Predict()
		if m.Predict() != p {
			t.Fatal("predicts another token the second time")
		}
		if !fits(data, at, p) {
			t.Fatalf("predicts %s at %d of %d", show(p), at, len(data))
		}
		if len(script) > 0 && step%3 == 0 {
			p = other(data, at, p, script[step/3%len(script)])
		}
		m.Commit(p)
		if p != deflate.EndOfBlock {
			tokens = append(tokens, p)
			at += p.Length()
			continue
		}
		var h deflate.Header
		m.Header(&h, tokens, data[block:at])
		if h.Type == deflate.Dynamic {
			var w deflate.Writer
			w.Block(&h, tokens)
		}
		tokens, block = tokens[:0], at
		if at >= len(data) || step > 100000 {
			return
		}
	}
}

// fits tells whether a token may stand at a position.
func fits(data []byte, at int, t deflate.Token) bool {
	if t == deflate.EndOfBlock {
		return true
	}
	n, from := t.Length(), at
	if t.IsMatch() {
		from -= t.Distance()
	} else if at < len(data) {
		return t == deflate.Literal(data[at])
	}
	if from < 0 || at+n > len(data) {
		return false
	}
	for i := range n {
		if data[at+i] != data[from+i] {
			return false
		}
	}
	return true
}

// other is a token that fits, chosen by a byte.
func other(data []byte, at int, p deflate.Token, how byte) deflate.Token {
	if at >= len(data) {
		return p
	}
	switch {
	case how == 0:
		return deflate.EndOfBlock
	case how < 100:
		return deflate.Literal(data[at])
	case p.IsMatch() && p.Length() > 3 && how < 200:
		return deflate.Match(3+int(how)%(p.Length()-2), p.Distance())
	}
	for d := 1 + int(how)%50; d <= min(at, deflate.Window); d++ {
		if t := deflate.Match(3, d); fits(data, at, t) {
			return t
		}
	}
	return p
}
