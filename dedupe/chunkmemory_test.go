package dedupe_test

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"strings"
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

// squeezed is a layer of text, no tar, that is compressed: a file.
func squeezed(t testing.TB, seed byte, size int64) (open func() io.ReadCloser) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "layer"))
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	rng := rand.New(rand.NewChaCha8([32]byte{seed}))
	words := strings.Fields(fixtures.Text(uint64(seed), 20_000))
	line := make([]byte, 0, 1<<16)
	for left := size; left > 0 && err == nil; left -= int64(len(line)) {
		for line = line[:0]; len(line) < 1<<15; {
			line = append(append(line, words[rng.IntN(len(words))]...), ' ')
		}
		_, err = z.Write(line)
	}
	if err := errors.Join(err, z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return func() io.ReadCloser {
		f, err := os.Open(f.Name())
		if err != nil {
			t.Error(err)
		}
		return f
	}
}

// madeUp are layers that are not in memory.
type madeUp struct {
	*fixtures.Blobs
	open map[digest.Digest]func() io.ReadCloser
}

func (m *madeUp) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if open, ok := m.open[d.Digest]; ok {
		return manifests.VerifyReader(open(), d), nil
	}
	return m.Blobs.Fetch(ctx, d)
}

func (m *madeUp) Local(digest.Digest) bool { return true }

// layer adds a layer, which is or is not compressed.
func (m *madeUp) layer(t testing.TB, compressed bool, open func() io.ReadCloser) (d ocispec.Descriptor, diffID digest.Digest) {
	t.Helper()
	blob, content := digest.SHA256.Digester(), digest.SHA256.Digester()
	in := open()
	defer in.Close()
	counted := &counter{r: io.TeeReader(in, blob.Hash())}
	var plain io.Reader = counted
	d.MediaType = ocispec.MediaTypeImageLayer
	if compressed {
		z, err := gzip.NewReader(counted)
		if err != nil {
			t.Fatal(err)
		}
		plain, d.MediaType = z, ocispec.MediaTypeImageLayerGzip
	}
	if _, err := io.Copy(content.Hash(), plain); err != nil {
		t.Fatal(err)
	}
	d.Digest, d.Size = blob.Digest(), counted.n
	m.open[d.Digest] = open
	return d, content.Digest()
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// peak is the most memory that was in use while f ran, in bytes.
func peak(f func()) uint64 {
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
	f()
	close(stop)
	return <-most
}

func TestMemoryOfPackingIsBounded(t *testing.T) {
	if os.Getenv("IMGPACK_SOAK") == "" {
		t.Skip("packs 544 MiB, and 96 MiB of compressed layers: for a soak")
	}
	const bound = 512 << 20
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(400 << 20)) // as the program does
	for what, c := range map[string]struct {
		compressed bool
		layer      func(seed byte) (open func() io.ReadCloser)
		size       int64 // of the bundle, at least
	}{
		"noise": {false, func(seed byte) func() io.ReadCloser {
			return func() io.ReadCloser { return noise(seed, 272<<20) }
		}, 544 << 20},
		"text": {true, func(seed byte) func() io.ReadCloser { return squeezed(t, seed, 48<<20) }, 1 << 20},
	} {
		source := &madeUp{Blobs: fixtures.NewBlobs(), open: map[digest.Digest]func() io.ReadCloser{}}
		var layers []ocispec.Descriptor
		var diffIDs []digest.Digest
		for seed := range byte(2) {
			d, diffID := source.layer(t, c.compressed, c.layer(seed))
			layers, diffIDs = append(layers, d), append(diffIDs, diffID)
		}
		config := source.AddJSON(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
			RootFS: ocispec.RootFS{Type: "layers", DiffIDs: diffIDs}})
		manifest := source.AddJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers})
		g := graphOf(t, source, []manifests.Root{fixtures.Root("big:1", manifest)})
		debug.FreeOSMemory()
		var s *dedupe.Summary
		var err error
		most := peak(func() {
			s, err = chunkPlan(t, g).Write(t0, io.Discard, dedupe.Options{Jobs: 2, SpoolDir: t.TempDir()})
		})
		if err != nil || s.Size < c.size || s.Totals.Open != 2 {
			t.Fatalf("%s: %+v, %v", what, s, err)
		}
		if most > bound {
			t.Errorf("%s: %d MiB in use, want at most %d", what, most>>20, bound>>20)
		}
		t.Logf("%s: %d MiB in use at most", what, most>>20)
	}
}
