package dedupe_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// chunkBundle packs the roots in chunk mode.
func chunkBundle(t testing.TB, g *manifests.Graph, level dedupe.Level, jobs int, bases ...*dedupe.Base) ([]byte, *dedupe.Summary) {
	t.Helper()
	p, err := dedupe.NewPlan(g, dedupe.PlanOptions{Mode: dedupe.ModeChunk, Level: level, Bases: bases})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s, err := p.Write(t0, &out, dedupe.Options{SpoolDir: t.TempDir(), Jobs: jobs})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), s
}

// sameBlobs compares what a reader got with all of the graph.
func sameBlobs(t *testing.T, what string, g *manifests.Graph, got map[string][]byte) {
	t.Helper()
	want := map[string]bool{}
	for _, d := range append(descriptors(g.Docs()), g.Blobs()...) {
		want[string(d.Digest)] = true
		if b, ok := got[string(d.Digest)]; !ok || !bytes.Equal(b, fetch(t, g, d)) {
			t.Errorf("%s: %s: %d bytes, not those of the source", what, d.Digest, len(b))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d blobs, want %d", what, len(got), len(want))
	}
}

// TestSecondReader lets the reader of chunkspec_test.go read what pack writes.
func TestSecondReader(t *testing.T) {
	sources := map[string]func(*fixtures.Blobs) []manifests.Root{
		"sample": fixtures.Sample,
		"series": func(b *fixtures.Blobs) []manifests.Root { return fixtures.Series(b, 3, manifests.Uncompressed) },
	}
	levels := []dedupe.Level{dedupe.LevelFast, dedupe.LevelDefault, dedupe.LevelMax}
	read := func(what string, source func(*fixtures.Blobs) []manifests.Root, levels ...dedupe.Level) {
		b := fixtures.NewBlobs()
		g := b.Graph(t, source(b)...)
		for _, level := range levels {
			raw, _ := chunkBundle(t, g, level, 2)
			sameBlobs(t, fmt.Sprintf("%s, %s", what, level), g, specRead(t, raw, nil))
		}
	}
	for what, source := range sources {
		read(what, source, levels...)
	}
	for seed := range int64(6) {
		read(fmt.Sprintf("random %d", seed), func(b *fixtures.Blobs) []manifests.Root { return fixtures.Random(b, seed, 6) }, levels[seed%3])
	}
}

// TestSecondReaderOfDeltas does so with a delta and the receipt of its base.
func TestSecondReaderOfDeltas(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Series(b, 2, manifests.Uncompressed)
	before, now := b.Graph(t, roots[0]), b.Graph(t, roots[1])
	base, err := dedupe.NewBase(t0, before, dedupe.BaseOptions{ID: dedupe.BaseID{Name: "v1", Date: fixtures.Time}})
	if err != nil {
		t.Fatal(err)
	}
	have := map[string][]byte{}
	for _, d := range before.Blobs() {
		have[string(d.Digest)] = b.Bytes(d.Digest)
	}
	var receipt bytes.Buffer
	if err := base.WriteReceipt(&receipt); err != nil {
		t.Fatal(err)
	}
	if leaves, layers := specReceipt(t, receipt.Bytes(), have); len(layers) != 3 || len(leaves) != 3 {
		t.Errorf("the receipt has layers %v and leaves %v", layers, leaves)
	}
	raw, _ := chunkBundle(t, now, dedupe.LevelDefault, 2, base)
	whole, _ := chunkBundle(t, now, dedupe.LevelDefault, 2)
	if len(raw) > len(whole)/5 {
		t.Errorf("the delta has %d bytes, the whole %d", len(raw), len(whole))
	}
	sameBlobs(t, "delta", now, specRead(t, raw, have))
}
