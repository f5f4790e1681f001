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

// smallDisk mounts a file system of a given size.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, size); err != nil {
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
	return dir
}

func TestFullDiskShowsBeforeTheFirstBlob(t *testing.T) {
	dir := smallDisk(t, "size=1m")
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

// TestFullDiskWhilePacking: the temporary data of chunk mode, and what is
// written after it, meet a full disk.
func TestFullDiskWhilePacking(t *testing.T) {
	for _, size := range []string{"size=1m", "size=3m", "size=4m"} {
		dir := smallDisk(t, size)
		b := fixtures.NewBlobs()
		var layers [][]byte
		for i := range uint64(3) {
			layers = append(layers, fixtures.Tar(fixtures.File{Name: "f", Body: fixtures.Noise(i, 800_000)}))
		}
		p := chunkPlan(t, b.Graph(t, image(b, "x:1", layers...)))
		if _, err := p.WriteFile(t0, filepath.Join(dir, "x"), dedupe.Options{}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v, want no space", size, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v, %v", size, left, err)
		}
	}
}
