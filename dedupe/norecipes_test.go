package dedupe_test

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// Every member of a bundle without open layers is proven, though nothing is
// put together by its recipes.
func TestDamageWithoutOpenLayers(t *testing.T) {
	b := fixtures.NewBlobs()
	plan, err := dedupe.NewPlan(b.Graph(t, fixtures.Series(b, 1, manifests.Gzip)...), dedupe.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var good bytes.Buffer
	if _, err := plan.Write(t.Context(), &good, dedupe.Options{SpoolDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	in := bytes.NewReader(good.Bytes())
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(good.Bytes())
		bad[len(bad)-in.Len()+int(h.Size)/2] ^= 1
		if err := readImages(t, bad); err == nil {
			t.Errorf("%s damaged, and all is read", h.Name)
		} else if _, hex, ok := strings.Cut(h.Name, "sha256/"); ok && !strings.Contains(err.Error(), hex) {
			t.Errorf("%s damaged, not named: %v", h.Name, err)
		}
	}
}

// readImages opens a bundle and reads all its images.
func readImages(t *testing.T, raw []byte) error {
	b, err := dedupe.OpenReaderAt(bytes.NewReader(raw), int64(len(raw)), "bundle", dedupe.OpenOptions{SpoolDir: t.TempDir()})
	if err != nil {
		return err
	}
	defer b.Close()
	roots, err := b.Roots(t.Context())
	if err != nil {
		return err
	}
	g, err := manifests.NewGraph(t.Context(), manifests.Entries(b, roots), 1)
	if err != nil {
		return err
	}
	for _, d := range g.Blobs() {
		r, err := g.Fetch(t.Context(), d)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
