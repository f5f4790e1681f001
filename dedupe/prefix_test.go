package dedupe_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// rebuiltProgram is noise in which every 3000th byte depends on the version, so
// that no chunk of two versions is the same.
func rebuiltProgram(seed uint64, n int, version byte) string {
	p := []byte(fixtures.Noise(seed, n))
	for i := 0; i < n; i += 3000 {
		p[i] = version
	}
	return string(p)
}

func programs(b *fixtures.Blobs, version byte, c manifests.Compression) manifests.Root {
	files := []fixtures.File{{Name: "usr/"}, {Name: "usr/lib/"}}
	for i := range 12 {
		files = append(files, fixtures.File{Name: fmt.Sprintf("usr/lib/lib%c.so.1.%d", 'a'+i, 7*int(version)), Body: rebuiltProgram(uint64(i), 90_000+i*9_000, version)})
	}
	files = append(files, fixtures.File{Name: "usr/program", Body: rebuiltProgram(99, 400_000, version)})
	image := b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{
		{Compression: c, Files: files[:8]},
		{Compression: c, Files: append(files[8:], fixtures.File{Name: "version", Body: string(version)})},
	}})
	return fixtures.Root(fmt.Sprintf("programs:%c", version), image)
}

func baseOfGraph(t testing.TB, g *manifests.Graph) *dedupe.Base {
	t.Helper()
	base, err := dedupe.NewBase(t0, g, dedupe.BaseOptions{ID: dedupe.BaseID{Name: "old"}})
	if err != nil {
		t.Fatal(err)
	}
	return base
}

// Files that changed all over cost what changed, also where a number in their
// name did, if the base can be read; a receipt cannot.
func TestChangedFilesLeanOnTheirOldSelves(t *testing.T) {
	for _, c := range []manifests.Compression{manifests.Uncompressed, manifests.Gzip, manifests.Zstd} {
		b := fixtures.NewBlobs()
		have, now := b.Graph(t, programs(b, '1', c)), b.Graph(t, programs(b, '2', manifests.Uncompressed))
		base := baseOfGraph(t, have)
		path, s := packed(t, chunkPlan(t, now, base), dedupe.Options{})
		adds(t, s)
		if whole := s.Totals.Bytes; s.Size > whole/20 {
			t.Errorf("%s: delta of %d bytes for %d", c, s.Size, whole)
		}
		comesBack(t, opened(t, path, have), now)

		var receipt bytes.Buffer
		if err := base.WriteReceipt(&receipt); err != nil {
			t.Fatal(err)
		}
		blind, err := dedupe.ReadReceipt(&receipt, "receipt")
		if err != nil {
			t.Fatal(err)
		}
		path, s = packed(t, chunkPlan(t, now, blind), dedupe.Options{})
		if s.Size < s.Totals.Bytes/2 {
			t.Errorf("%s: delta on a receipt of %d bytes for %d", c, s.Size, s.Totals.Bytes)
		}
		comesBack(t, opened(t, path, have), now)
	}
}

// The same bytes whatever happens first, and with every window.
func TestPrefixesAreDeterministic(t *testing.T) {
	b := fixtures.NewBlobs()
	have := b.Graph(t, append(fixtures.Series(b, 2, manifests.Gzip), programs(b, '1', manifests.Gzip))...)
	now := b.Graph(t, append(fixtures.Series(b, 4, manifests.Uncompressed)[2:], programs(b, '2', manifests.Uncompressed))...)
	base := baseOfGraph(t, have)
	for _, window := range []int64{0, 1 << 20} {
		var first []byte
		for jobs := 1; jobs <= 8; jobs += 3 {
			path, _ := packed(t, chunkPlan(t, now, base), dedupe.Options{Jobs: jobs, SpoolLimit: window})
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = raw
				comesBack(t, opened(t, path, have), now)
			}
			if !bytes.Equal(raw, first) {
				t.Errorf("window %d: %d jobs make another file", window, jobs)
			}
		}
	}
}

// A base that can no longer be read is an error, and nothing is left.
func TestBaseThatIsGone(t *testing.T) {
	b := fixtures.NewBlobs()
	have, now := b.Graph(t, programs(b, '1', manifests.Gzip)), b.Graph(t, programs(b, '2', manifests.Uncompressed))
	plan := chunkPlan(t, now, baseOfGraph(t, have))
	b.Corrupt(have.Blobs()[0].Digest, func(p []byte) []byte { p[len(p)/2] ^= 1; return p })
	dir := t.TempDir()
	if _, err := plan.WriteFile(t0, dir+"/x", dedupe.Options{}); !fixtures.Matches(err, manifests.KindDigest) && !fixtures.Matches(err, manifests.KindMalformed) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// What several layers of a base have is taken of as few as will do, whatever
// their order.
func TestDeltasLeanOnFewLayers(t *testing.T) {
	b := fixtures.NewBlobs()
	image := func(name string, from, to int) manifests.Root {
		files := []fixtures.File{{Name: name, Body: name}}
		for i := from; i < to; i++ {
			files = append(files, fixtures.File{Name: fmt.Sprintf("f%d", i), Body: fixtures.Noise(uint64(i), 30_000)})
		}
		return fixtures.Root(name+":1", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Compression: manifests.Uncompressed, Files: files}}}))
	}
	some, most, rest := image("some", 0, 6), image("most", 2, 10), image("rest", 6, 8)
	now := b.Graph(t, image("now", 0, 10))
	for _, order := range [][]manifests.Root{{some, most, rest}, {rest, some, most}} {
		path, _ := packed(t, chunkPlan(t, now, baseOfGraph(t, b.Graph(t, order...))), dedupe.Options{})
		bundle := opened(t, path, b.Graph(t, some, most))
		if n := bundle.Needs(); len(n.Layers) != 2 {
			t.Errorf("it leans on %d layers: %+v", len(n.Layers), n.Layers)
		}
		comesBack(t, bundle, now)
	}
}
