package unpack

import (
	"context"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// TestSyncEarly looks for syncs beside the work, whose errors do not count and
// must not hide those of the last one.
func TestSyncEarly(t *testing.T) {
	layer := fixtures.Tar(fixtures.File{Name: "file", Body: strings.Repeat("0123456789abcdef", (syncStep+1<<20)/16)})
	b := fixtures.NewBlobs()
	root := fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Tar: layer, Compression: manifests.Uncompressed}}}))
	img := load(t, b, root)
	before := syncTree
	defer func() { syncTree = before }()
	for _, last := range []error{nil, unix.EIO} {
		var early, final atomic.Int32
		syncTree = func(fd int) error {
			if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil { // the workspace's own
				final.Add(1)
				return last
			}
			early.Add(1)
			return unix.EIO
		}
		dir := t.TempDir() + "/rootfs"
		_, err := WriteRootfs(context.Background(), b, img, dir, Options{})
		if early.Load() != 1 || final.Load() != 1 {
			t.Errorf("%d early syncs and %d last ones, want one of each", early.Load(), final.Load())
		}
		_, there := os.Stat(dir)
		if (err == nil) != (last == nil) || (there == nil) != (last == nil) {
			t.Errorf("%v, %v where the last sync says %v", err, there, last)
		}
	}
}
