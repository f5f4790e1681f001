package dedupe_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
)

func TestFullDiskShowsBeforeTheFirstBlob(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
			t.Fatal(err)
		}
		t.Skipf("a small file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	b := fixtures.NewBlobs()
	g := b.Graph(t, large(b)...)
	p := plan(t, g)
	for _, d := range g.Blobs() {
		b.Remove(d.Digest) // whoever asks for one gets another error
	}
	if _, err := p.WriteFile(t0, filepath.Join(dir, "x"), dedupe.Options{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want no space", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
