package unpack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/apex/log"
	umocidir "github.com/opencontainers/umoci/oci/cas/dir"
	"github.com/opencontainers/umoci/oci/layer"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// load returns an image of b.
func load(t testing.TB, b *fixtures.Blobs, root manifests.Root) *manifests.Image {
	t.Helper()
	img, err := manifests.LoadImage(context.Background(), b, root.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// requirePeer skips a test for want of something, unless nothing may be
// skipped.
func requirePeer(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// rootOnly skips a test for other users.
func rootOnly(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		requirePeer(t, "needs root")
	}
}

// images are those of the fixtures that have one platform.
func images(t testing.TB, b *fixtures.Blobs) []manifests.Root {
	roots := fixtures.Sample(b)[:3]
	for seed := range int64(12) {
		roots = append(roots, fixtures.Random(b, seed, 4)...)
	}
	return roots
}

// mounted lists what the overlay mount of r shows. The mount is made by the
// command that MountLine gives.
func mounted(t testing.TB, r *Rootfs) map[string]string {
	t.Helper()
	dir := t.TempDir()
	line := r.MountLine("", "", dir)
	if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
		requirePeer(t, "cannot mount an overlay: "+string(out)+line)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	return tree(t, dir)
}

// umociTree is what umoci's directory mode makes of an image, of which it is
// given a copy with plain OCI layers.
func umociTree(t testing.TB, b *fixtures.Blobs, img *manifests.Image) map[string]string {
	t.Helper()
	log.SetLevel(log.FatalLevel)
	copied := fixtures.NewBlobs()
	var spec fixtures.ImageSpec
	for _, l := range img.Layers {
		spec.Layers = append(spec.Layers, fixtures.LayerSpec{Tar: fixtures.Decompress(b.Bytes(l.Blob.Digest), l.Compression), Compression: manifests.Uncompressed})
	}
	root := fixtures.Root("", copied.Image(spec))
	dir := t.TempDir()
	copied.WriteLayout(t, dir+"/layout", root)
	engine, err := umocidir.Open(dir + "/layout")
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	if err := layer.UnpackRootfs(context.Background(), engine, dir+"/rootfs", load(t, copied, root).Manifest, nil); err != nil {
		t.Fatalf("umoci: %v", err)
	}
	return tree(t, dir+"/rootfs")
}

func TestTreesAreWhatUmociMakes(t *testing.T) {
	rootOnly(t)
	b := fixtures.NewBlobs()
	store := NewLayerStore(filepath.Join(t.TempDir(), "store"))
	for i, root := range images(t, b) {
		what := fmt.Sprintf("image %d, %s", i, root.Display())
		img := load(t, b, root)
		want := umociTree(t, b, img)
		dir := t.TempDir()
		if _, err := WriteRootfs(context.Background(), b, img, dir+"/ours", Options{}); err != nil {
			t.Fatal(err)
		}
		sameTree(t, what+": rootfs", want, tree(t, dir+"/ours"))
		r, _, err := store.Unpack(context.Background(), b, img, Options{})
		if err != nil {
			t.Fatal(err)
		}
		sameTree(t, what+": overlay", want, mounted(t, r))
	}
}
