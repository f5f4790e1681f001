package dedupe_test

import (
	"context"
	"io"
	"math/rand/v2"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// noise is a layer, no tar, that is made up while it is read.
func noise(seed byte, size int64) io.ReadCloser {
	return io.NopCloser(io.LimitReader(rand.NewChaCha8([32]byte{seed}), size))
}

func TestMemoryOfPackingIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("packs 544 MiB")
	}
	const size, bound = 272 << 20, 512 << 20
	b := fixtures.NewBlobs()
	var layers []ocispec.Descriptor
	seeds := map[digest.Digest]byte{}
	for seed := range byte(2) {
		d, err := digest.FromReader(noise(seed, size))
		if err != nil {
			t.Fatal(err)
		}
		seeds[d] = seed
		layers = append(layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: size})
	}
	config := b.AddJSON(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layers[0].Digest, layers[1].Digest}}})
	manifest := b.AddJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers})
	source := manifests.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		if seed, ok := seeds[d.Digest]; ok {
			return manifests.VerifyReader(noise(seed, size), d), nil
		}
		return b.Fetch(ctx, d)
	})
	g, err := manifests.NewGraph(t0, []manifests.Entry{{Source: source, Root: fixtures.Root("noise:1", manifest)}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	stop, most := make(chan bool), make(chan uint64)
	go func() {
		sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		peak := uint64(0)
		for {
			metrics.Read(sample)
			peak = max(peak, sample[0].Value.Uint64()-sample[1].Value.Uint64())
			select {
			case <-stop:
				most <- peak
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	s, err := chunkPlan(t, g).Write(t0, io.Discard, dedupe.Options{Jobs: 2, SpoolDir: t.TempDir()})
	close(stop)
	peak := <-most
	if err != nil || s.Size < 2*size {
		t.Fatalf("%+v, %v", s, err)
	}
	if peak > bound {
		t.Errorf("%d MiB in use, want at most %d", peak>>20, bound>>20)
	}
	t.Logf("%d MiB in use at most", peak>>20)
}
