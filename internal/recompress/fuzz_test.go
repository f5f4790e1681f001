package recompress

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// FuzzFind gives back whatever Find takes.
func FuzzFind(f *testing.F) {
	for seed := range uint64(20) {
		stream, _ := generate(seed, 4, 30)
		f.Add(stream)
	}
	text := texts()["text"][:3000]
	f.Add(zipped(f, text, 6))
	f.Add(framed(f, text, 2000, zstd.SpeedDefault))
	f.Fuzz(func(t *testing.T, stream []byte) {
		var content bytes.Buffer
		recipe, _, err := Find(context.Background(), bytes.NewReader(stream), &content, anyCost)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrHopeless) {
				t.Fatal(err)
			}
			return
		}
		var again bytes.Buffer
		if err := Restore(context.Background(), &again, bytes.NewReader(content.Bytes()), recipe, int64(len(stream)), anyCost); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), stream) {
			t.Fatal("another stream")
		}
	})
}

// FuzzRestore gives recipes that nobody made to Restore.
func FuzzRestore(f *testing.F) {
	add := func(stream []byte) {
		var content bytes.Buffer
		recipe, _, err := Find(context.Background(), bytes.NewReader(stream), &content, anyCost)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(recipe, content.Bytes(), uint16(len(stream)))
	}
	for seed := range uint64(40) {
		stream, _ := generate(seed, 4, 30)
		add(stream)
	}
	text := texts()["text"][:3000]
	for level := range 10 {
		add(zipped(f, text, level))
	}
	add(framed(f, text, 2000, zstd.SpeedDefault))
	f.Fuzz(func(t *testing.T, recipe, content []byte, size uint16) {
		for _, spec := range []int{-1, int(size) % len(specs())} {
			if spec >= 0 && len(recipe) > 2 && recipe[0] == recipeDeflate {
				recipe = bytes.Clone(recipe)
				recipe[2] = byte(specs()[spec].ID & 0x7f)
			}
			var out bytes.Buffer
			err := Restore(context.Background(), &out, bytes.NewReader(content), recipe, int64(size), anyCost)
			if err != nil && !errors.Is(err, ErrRecipe) && !errors.Is(err, ErrUnknown) {
				t.Fatal(err)
			}
			if out.Len() > int(size) || err == nil && out.Len() != int(size) {
				t.Fatalf("%d bytes, not %d: %v", out.Len(), size, err)
			}
			ModelOf(recipe)
		}
	})
}
