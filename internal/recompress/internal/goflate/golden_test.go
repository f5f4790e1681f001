package goflate

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

var update = flag.Bool("update", false, "write the golden digests anew")

// TestGolden holds the models to what they predicted when recipes were made
// with them. A digest may never change.
func TestGolden(t *testing.T) {
	const file = "testdata/golden.txt"
	var got bytes.Buffer
	for _, spec := range Specs() {
		m := spec.New()
		h := sha256.New()
		for _, c := range contents {
			data := c.data[:150_000]
			if c.name == "tar" {
				data = c.data[:400_000]
			}
			for _, in := range []model.Input{
				{Data: data, To: len(data), Fresh: true, End: true},
				{Data: data, From: 131_070, To: len(data) - model.Ahead, Offset: 1 << 33},
				{Data: data[:70_000], From: 40_000, To: 70_000, Fresh: true, End: true},
			} {
				h.Write(predicted(m, in))
			}
		}
		fmt.Fprintf(&got, "%d %x\n", spec.ID, h.Sum(nil))
	}
	if *update {
		must(os.WriteFile(file, got.Bytes(), 0o644))
	}
	want, err := os.ReadFile(file)
	must(err)
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got\n%swant\n%s", got.Bytes(), want)
	}
}

// predicted is what a model says if it is always right.
func predicted(m model.Model, in model.Input) (out []byte) {
	m.Begin(in)
	for at := in.From; at < in.To; {
		tokens, from := free(m), at
		for _, t := range tokens {
			out = binary.LittleEndian.AppendUint32(out, uint32(t))
			at += t.Length()
		}
		var h deflate.Header
		m.Header(&h, tokens, in.Data[from:at])
		out = append(out, byte(h.Type), byte(h.Trees.NumLit), byte(h.Trees.NumDist), byte(h.Trees.NumCode))
		out = append(append(append(out, h.Trees.Lit[:]...), h.Trees.Dist[:]...), h.Trees.Code[:]...)
		for _, r := range h.Trees.Runs[:h.Trees.NumRuns] {
			out = binary.LittleEndian.AppendUint16(out, r)
		}
	}
	return out
}
