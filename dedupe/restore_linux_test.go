package dedupe

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/segment"
	"github.com/imgpack/imgpack/manifests"
)

func TestFullDiskWhileUnpacking(t *testing.T) {
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
	d := &draft{level: segment.Fast, contents: [][]byte{words(newRand(1), 400_000), words(newRand(2), 900_000)}}
	d.tars = []recipe.Tar{whole(0, 400_000), whole(0, 1_300_000)}
	h := d.open(t, OpenOptions{SpoolDir: dir})
	h.restored(t, 0)
	for range 2 {
		_, err := h.read(context.Background(), 1)
		var bad *manifests.ContentError
		if !errors.Is(err, syscall.ENOSPC) || errors.As(err, &bad) || !strings.Contains(err.Error(), "site.imgpack, which need up to 1300000 bytes in "+dir) {
			t.Errorf("%v, want no space", err)
		}
	}
	h.restored(t, 0)
	if err := h.contents.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
