package recompress

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "add recipes of models that have none yet")

const (
	goldenStream  = "testdata/stream.gz"
	goldenRecipes = "testdata/recipes.txt"
)

// TestGolden gives back one stream from a recipe of each model. Recipes once
// written stay: what a model predicts never changes.
func TestGolden(t *testing.T) {
	stream, err := os.ReadFile(goldenStream)
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(goldenRecipes)
	if err != nil && !*update {
		t.Fatal(err)
	}
	there := make(map[uint16]bool)
	for line := range strings.Lines(string(file)) {
		var id uint16
		var text string
		if _, err := fmt.Sscan(line, &id, &text); err != nil {
			t.Fatal(err)
		}
		recipe, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		there[id] = true
		var again bytes.Buffer
		if err := Restore(t.Context(), &again, bytes.NewReader(content), recipe, int64(len(stream)), anyCost); err != nil {
			t.Errorf("model %d: %v", id, err)
		} else if !bytes.Equal(again.Bytes(), stream) {
			t.Errorf("model %d gives another stream", id)
		}
	}
	for _, spec := range specs() {
		if there[spec.ID] {
			continue
		}
		if !*update {
			t.Errorf("model %d, %s, has no recipe: run with -update", spec.ID, spec.Name)
			continue
		}
		file = fmt.Appendf(file, "%d %s\n", spec.ID, base64.StdEncoding.EncodeToString(recipeBy(t, stream, spec.ID)))
	}
	if *update {
		if err := os.WriteFile(goldenRecipes, file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// recipeBy is the recipe of a stream of one part by a model.
func recipeBy(t *testing.T, stream []byte, id uint16) []byte {
	t.Helper()
	recipe := []byte{recipeDeflate}
	err := newSplitter(bytes.NewReader(stream), func(q *part) error {
		var p player
		s, c, _, err := p.pack(q, known()[id], limits{})
		r := q.record(id, false, s, c)
		recipe = r.append(recipe)
		return err
	}).split()
	if err != nil {
		t.Fatal(err)
	}
	return recipe
}

// TestNumbers proves that numbers of models are theirs alone.
func TestNumbers(t *testing.T) {
	names := make(map[string]bool)
	if len(known()) != len(specs()) {
		t.Error("two models have one number")
	}
	for _, s := range specs() {
		if names[s.Name] || s.New == nil {
			t.Errorf("model %d, %s", s.ID, s.Name)
		}
		names[s.Name] = true
	}
}

// TestGoldenOdd gives back streams that no encoder makes from recipes that were
// written long ago.
func TestGoldenOdd(t *testing.T) {
	const name = "testdata/odd.txt"
	file, err := os.ReadFile(name)
	if err != nil && !*update {
		t.Fatal(err)
	}
	if *update && err != nil {
		for seed := uint64(2000); seed < 2024; seed++ {
			stream, content := generate(seed, 4, 40)
			recipe, _ := giveBack(t, stream, content, anyCost)
			file = fmt.Appendf(file, "%d %s\n", seed, base64.StdEncoding.EncodeToString(recipe))
		}
		if err := os.WriteFile(name, file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(string(file)) {
		var seed uint64
		var text string
		if _, err := fmt.Sscan(line, &seed, &text); err != nil {
			t.Fatal(err)
		}
		recipe, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		stream, content := generate(seed, 4, 40)
		var again bytes.Buffer
		if err := Restore(t.Context(), &again, bytes.NewReader(content), recipe, int64(len(stream)), anyCost); err != nil {
			t.Errorf("stream %d: %v", seed, err)
		} else if !bytes.Equal(again.Bytes(), stream) {
			t.Errorf("stream %d: another one", seed)
		}
	}
}

// TestVectors proves the vectors of docs/recipe-format.md.
func TestVectors(t *testing.T) {
	for _, v := range [][3]string{
		{"", "1f8b08000000000000ff010000ffff0000000000000000", "0140000000010092"},
		{"a", "1f8b08000000000000ff4a04040000ffff43beb7e801000000", "014006010002000090"},
		{"hello, hello, hello\n", "1f8b08000000000000ffca48cdc9c9d75140a6b800010000ffffe7426e5214000000", "014006140002000090"},
		{"abcabcabcabc", "1f8b080801000000000378004a4c4a062100fe0000ffff000400fbff626361624b0600342a6e5a0c000000000000", "0140000c000f034943a202103780063c47f87182b190190780"},
	} {
		stream, err := hex.DecodeString(v[1])
		if err != nil {
			t.Fatal(err)
		}
		recipe, err := hex.DecodeString(v[2])
		if err != nil {
			t.Fatal(err)
		}
		var again bytes.Buffer
		if err := Restore(t.Context(), &again, strings.NewReader(v[0]), recipe, int64(len(stream)), anyCost); err != nil {
			t.Errorf("%q: %v", v[0], err)
		}
		if !bytes.Equal(again.Bytes(), stream) {
			t.Errorf("%q gives %x", v[0], again.Bytes())
		}
	}
}
