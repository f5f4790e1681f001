package dedupe

import (
	"bytes"
	"context"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// TestBoundsOfPacking: what passes a bound on memory is packed all the same,
// less well, and to the same bytes whatever the jobs.
func TestBoundsOfPacking(t *testing.T) {
	ctx := context.Background()
	blobs := fixtures.NewBlobs()
	g := blobs.Graph(t, fixtures.Series(blobs, 4, manifests.Uncompressed)...)
	var sizes []int64
	for _, l := range []packLimits{
		defaultLimits,
		{known: 100, pieces: 1 << 20, runs: 1 << 20},
		{known: 0, pieces: 1 << 20, runs: 1 << 20},
		{known: 1 << 20, pieces: 250, runs: 1 << 20},
		{known: 1 << 20, pieces: 100, runs: 1 << 20},
		{known: 10, pieces: 1, runs: 1 << 20},
		{known: 1 << 20, pieces: 1 << 20, runs: 20},
		{known: 20, pieces: 50, runs: 1},
	} {
		var digests []digest.Digest
		for _, jobs := range []int{1, 2, 8} {
			s, err := newSelection(g)
			if err != nil {
				t.Fatal(err)
			}
			p, err := newChunkPlan(s, PlanOptions{})
			if err != nil {
				t.Fatal(err)
			}
			p.limits = l
			var out bytes.Buffer
			sum, err := p.write(ctx, &out, Options{Jobs: jobs, SpoolDir: t.TempDir(), SpoolLimit: 400 << 10})
			if err != nil {
				t.Fatal(err)
			}
			digests = append(digests, sum.Digest)
			if jobs > 1 {
				continue
			}
			sizes = append(sizes, sum.Size)
			b, err := OpenReaderAt(bytes.NewReader(out.Bytes()), int64(out.Len()), "x", OpenOptions{SpoolDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Audit(ctx); err != nil {
				t.Errorf("%+v: %v", l, err)
			}
			for _, d := range g.Blobs() {
				r, err := b.Fetch(ctx, d)
				if err != nil {
					t.Fatal(err)
				}
				var got bytes.Buffer
				if _, err := got.ReadFrom(r); err != nil || !bytes.Equal(got.Bytes(), blobs.Bytes(d.Digest)) {
					t.Errorf("%+v: %s: %v", l, d.Digest, err)
				}
				r.Close()
			}
			b.Close()
		}
		if digests[0] != digests[1] || digests[1] != digests[2] {
			t.Errorf("%+v: %v", l, digests)
		}
	}
	if sizes[2] <= sizes[0] {
		t.Errorf("nothing was lost by remembering nothing: %v", sizes)
	}
}
