package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// related are images that share layers: one that stands alone in both, one that
// does not, and one image that is there twice.
func related(t testing.TB, b *fixtures.Blobs) []*manifests.Image {
	base := fixtures.LayerSpec{Files: []fixtures.File{{Name: "etc/", Mode: 0o750}, {Name: "etc/file", Body: "base"}, {Name: "lib", Type: '2', Link: "usr/lib"}}}
	leans := fixtures.LayerSpec{Files: []fixtures.File{{Name: "link", Type: '1', Link: "etc/file"}, {Name: "lib/more", Body: "more"}, {Name: "etc/new", Body: "new"}}}
	own := func(name string) fixtures.LayerSpec {
		return fixtures.LayerSpec{Files: []fixtures.File{{Name: name, Body: name}, {Name: "etc/.wh.file"}}}
	}
	var images []*manifests.Image
	for _, layers := range [][]fixtures.LayerSpec{{base, leans}, {base, leans, own("a")}, {base, own("b")}, {base, leans}, {own("b")}} {
		images = append(images, load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: layers}))))
	}
	return images
}

func from(src manifests.Fetcher, images []*manifests.Image) []ImageFrom {
	var out []ImageFrom
	for _, img := range images {
		out = append(out, ImageFrom{src, img})
	}
	return out
}

// lasting leaves out the times of what a store makes, whiteouts among it.
func lasting(list map[string]string) map[string]string {
	for name, line := range list {
		if strings.HasPrefix(line, "20000 ") {
			list[name] = "whiteout"
		}
	}
	return times(list)
}

// TestUnpackAll holds several images in one operation to the same one after
// another: the store, what is returned, and how often layers are read.
func TestUnpackAll(t *testing.T) {
	b := fixtures.NewBlobs()
	images := related(t, b)
	dir := t.TempDir()
	each, whole := NewLayerStore(dir+"/each"), NewLayerStore(dir+"/all")
	defer removePath(dir) // which an ordinary user's t.TempDir cannot
	var wants []Unpacked
	for _, img := range images {
		r, res, err := each.Unpack(context.Background(), b, img, Options{})
		if err != nil {
			t.Fatal(err)
		}
		wants = append(wants, Unpacked{Rootfs: r, Result: res})
	}
	var mu sync.Mutex
	reads := map[digest.Digest]int{}
	counting := manifests.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		mu.Lock()
		defer mu.Unlock()
		reads[d.Digest]++
		return b.Fetch(ctx, d)
	})
	syncs := 0
	before := syncTree
	syncTree = func(int) error { syncs++; return nil }
	got, err := whole.UnpackAll(context.Background(), from(counting, images), Options{})
	syncTree = before
	if err != nil {
		t.Fatal(err)
	}
	if syncs != 1 {
		t.Errorf("%d syncs, want one", syncs)
	}
	// The layer that does not stand alone is read again, once, on what is below it.
	leaning := images[0].Layers[1].Blob.Digest
	if len(reads) != 4 || reads[leaning] != 2 {
		t.Errorf("reads: %v", reads)
	}
	fresh := 0
	for i, u := range got {
		same := strings.ReplaceAll(strings.Join(u.Rootfs.Lower, ":"), dir+"/all", dir+"/each") == strings.Join(wants[i].Rootfs.Lower, ":")
		if !same || u.Rootfs.Mode != wants[i].Rootfs.Mode || u.Result.Files != wants[i].Result.Files || u.Result.Bytes != wants[i].Result.Bytes {
			t.Errorf("image %d: %v %+v, want %v %+v", i, u.Rootfs, u.Result, wants[i].Rootfs, wants[i].Result)
		}
		if u.Result.LayersNew+u.Result.LayersShared != len(images[i].Layers) {
			t.Errorf("image %d: %+v of %d layers", i, u.Result, len(images[i].Layers))
		}
		fresh += u.Result.LayersNew
	}
	if fresh != 4 {
		t.Errorf("%d layers are new, want 4", fresh)
	}
	sameTree(t, "all at once", lasting(tree(t, each.dir)), lasting(tree(t, whole.dir)))
	if again, err := whole.UnpackAll(context.Background(), from(nil, images), Options{}); err != nil || again[1].Result.LayersShared != 3 {
		t.Errorf("again: %+v %v", again, err)
	}
}

// TestUnpackAllOrNothing breaks one of several images, each way an image can be
// broken at another stage.
func TestUnpackAllOrNothing(t *testing.T) {
	b := fixtures.NewBlobs()
	images := related(t, b)
	lost := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: []fixtures.File{{Name: "link", Type: '1', Link: "no/such"}}}}})))
	forged := *images[1]
	forged.Layers = append([]manifests.Layer{}, forged.Layers...)
	forged.Layers[2].DiffID = digest.FromString("something else")
	dir := t.TempDir() + "/store"
	store := NewLayerStore(dir)
	if _, _, err := store.Unpack(context.Background(), b, images[4], Options{}); err != nil {
		t.Fatal(err)
	}
	want := tree(t, dir)
	for _, c := range []struct {
		bad  *manifests.Image
		kind manifests.Kind
	}{{&forged, manifests.KindDiffID}, {lost, manifests.KindMissing}} {
		list := from(b, []*manifests.Image{images[0], c.bad, images[2]})
		_, err := store.UnpackAll(context.Background(), list, Options{})
		var one *ImageError
		var content *manifests.ContentError
		if !errors.As(err, &one) || one.Index != 1 || !errors.As(err, &content) || content.Kind != c.kind || !strings.HasPrefix(err.Error(), "image 2 of 3: layer ") {
			t.Errorf("%s: %v", c.kind, err)
		}
		sameTree(t, string(c.kind), times(want), times(tree(t, dir)))
		if _, err := WriteLayers(context.Background(), list, t.TempDir()+"/out", Options{}); !errors.As(err, &one) || one.Index != 1 {
			t.Errorf("%s: %v", c.kind, err)
		}
	}
	removePath(dir)
}

func TestWriteLayersOfSeveralImages(t *testing.T) {
	b := fixtures.NewBlobs()
	images := related(t, b)
	dir := t.TempDir() + "/it's, a: dir"
	all, err := WriteLayers(context.Background(), from(b, images), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(dir + "/mount.txt")
	lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
	if err != nil || len(lines) != len(images) {
		t.Fatalf("%q %v", raw, err)
	}
	for i, u := range all {
		at := fmt.Sprint(dir, "/", i+1)
		if lines[i] != u.Mount || u.Mount != u.Rootfs.MountLine(at+"/upper", at+"/work", at+"/merged") {
			t.Errorf("image %d: %q, want %q", i, lines[i], u.Mount)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	if out, err := exec.Command("sh", dir+"/mount.txt").CombinedOutput(); err != nil {
		requirePeer(t, "cannot mount: "+string(out))
	}
	for i, img := range images {
		merged := fmt.Sprint(dir, "/", i+1, "/merged")
		defer unix.Unmount(merged, unix.MNT_DETACH)
		rootfs := fmt.Sprint(t.TempDir(), "/rootfs")
		if _, err := WriteRootfs(context.Background(), b, img, rootfs, Options{}); err != nil {
			t.Fatal(err)
		}
		sameTree(t, fmt.Sprint("image ", i), tree(t, rootfs), tree(t, merged))
	}
}

// TestMemoryOfImagesTogether unpacks images whose names of directories are within
// the limit each, and past it together.
func TestMemoryOfImagesTogether(t *testing.T) {
	b := fixtures.NewBlobs()
	var images []*manifests.Image
	for i := range 4 {
		var files []fixtures.File
		for d := range 20 {
			files = append(files, fixtures.File{Name: fmt.Sprintf("%d-%d/", i, d)})
		}
		images = append(images, load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: files}}}))))
	}
	o := Options{Jobs: 1, Memory: 30 * rememberCost}
	if _, err := NewLayerStore(t.TempDir()+"/store").UnpackAll(context.Background(), from(b, images), o); err != nil {
		t.Error(err)
	}
	o.Memory = 10 * rememberCost
	if _, err := NewLayerStore(t.TempDir()+"/store").UnpackAll(context.Background(), from(b, images), o); err == nil {
		t.Error("no limit")
	}
}
