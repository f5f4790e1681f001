package unpack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// TestManyLayers mounts as many layers as an overlay takes by the line that
// WriteLayers leaves, and has one more refused.
func TestManyLayers(t *testing.T) {
	rootOnly(t)
	b := fixtures.NewBlobs()
	spec := fixtures.ImageSpec{}
	for i := range maxLower {
		spec.Layers = append(spec.Layers, fixtures.LayerSpec{Compression: manifests.Uncompressed, Files: []fixtures.File{{Name: "many/"}, {Name: fmt.Sprintf("many/%03d", i)}}})
	}
	dir := t.TempDir() + "/most"
	if _, _, err := writeLayers(context.Background(), b, load(t, b, fixtures.Root("", b.Image(spec))), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(dir + "/mount.txt")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", string(line)).CombinedOutput(); err != nil {
		requirePeer(t, fmt.Sprintf("cannot mount %d layers: %s", maxLower, out))
	}
	defer unix.Unmount(dir+"/merged", unix.MNT_DETACH)
	if many, err := os.ReadDir(dir + "/merged/many"); err != nil || len(many) != maxLower {
		t.Errorf("%d layers show: %v", len(many), err)
	}
	spec.Layers = append(spec.Layers, fixtures.LayerSpec{Files: []fixtures.File{{Name: "more"}}})
	img := load(t, b, fixtures.Root("", b.Image(spec)))
	var un *manifests.UnsupportedError
	if _, _, err := writeLayers(context.Background(), b, img, dir+"-more", Options{}); !errors.As(err, &un) || !strings.Contains(un.Error(), "501 layers") {
		t.Errorf("%v", err)
	}
	if _, err := WriteRootfs(context.Background(), b, img, dir+"-rootfs", Options{}); err != nil {
		t.Error(err)
	}
}
