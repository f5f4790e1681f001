package unpack

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// childMode makes the test binary do one thing and end.
const childMode = "IMGPACK_UNPACK_CHILD"

// child unpacks the fixtures' images: "store DIR" or "rootfs DIR" one, "several
// DIR" some that share layers.
func child() int {
	way, dir, _ := strings.Cut(os.Getenv(childMode), " ")
	b := fixtures.NewBlobs()
	var images []ImageFrom
	for _, root := range manyFiles(b) {
		img, err := manifests.LoadImage(context.Background(), b, root.Descriptor)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		images = append(images, ImageFrom{b, img})
	}
	var err error
	switch way {
	case "several":
		_, err = NewLayerStore(dir).UnpackAll(context.Background(), images, Options{})
	case "store":
		_, _, err = NewLayerStore(dir).Unpack(context.Background(), b, images[0].Image, Options{})
	default:
		_, err = WriteRootfs(context.Background(), b, images[0].Image, dir, Options{})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// manyFiles are an image that takes a moment to unpack, and others that have some
// of its layers, and one more that leans on them.
func manyFiles(b *fixtures.Blobs) []manifests.Root {
	var spec fixtures.ImageSpec
	for l := range 3 {
		var files []fixtures.File
		for d := range 10 {
			dir := fmt.Sprintf("l%d/d%d/", l, d)
			files = append(files, fixtures.File{Name: dir, Mode: 0o555})
			for f := range 30 {
				files = append(files, fixtures.File{Name: fmt.Sprint(dir, f), Body: strings.Repeat("x", 100*f)})
			}
		}
		spec.Layers = append(spec.Layers, fixtures.LayerSpec{Files: files, Compression: manifests.Uncompressed})
	}
	roots := []manifests.Root{fixtures.Root("", b.Image(spec))}
	for l := range spec.Layers {
		own := fixtures.LayerSpec{Files: []fixtures.File{{Name: "own", Body: fmt.Sprint(l)}, {Name: "link", Type: '1', Link: "l0/d0/7"}}}
		layers := append(spec.Layers[:l+1:l+1], own)
		roots = append(roots, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: layers})))
	}
	return roots
}

// soaked is how many rounds a test of chance has: many in a soak.
func soaked(rounds int) int {
	if os.Getenv("IMGPACK_SOAK") != "" {
		return 20 * rounds
	}
	return rounds
}

func command(t testing.TB, mode string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childMode+"="+mode)
	return cmd
}

func TestKilled(t *testing.T) {
	for _, way := range []string{"store", "several", "rootfs"} {
		t.Run(way, func(t *testing.T) {
			dir := t.TempDir() + "/out"
			start := time.Now()
			if out, err := command(t, way+" "+dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			took := time.Since(start)
			want := tree(t, dir)
			killed, rounds := 0, soaked(4)
			for range rounds {
				if err := removePath(dir); err != nil {
					t.Fatal(err)
				}
				cmd := command(t, way+" "+dir)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(rand.Int64N(int64(took) + 1)))
				cmd.Process.Kill()
				if cmd.Wait() != nil {
					killed++
				}
				if way == "rootfs" {
					if _, err := os.Lstat(dir); err == nil {
						sameTree(t, "after kill", want, tree(t, dir))
						continue
					}
				} else {
					partOf(t, want, dir)
				}
				if out, err := command(t, way+" "+dir).CombinedOutput(); err != nil {
					t.Fatalf("second run: %v: %s", err, out)
				}
				sameTree(t, "second run", times(want), times(tree(t, dir)))
			}
			t.Logf("%d of %d were killed", killed, rounds)
			defer removePath(dir) // which an ordinary user's t.TempDir cannot
			left, err := os.ReadDir(filepath.Dir(dir))
			if err != nil || len(left) != 1 {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
}

// partOf checks that what lies at its place in a store is whole and as it should
// be.
func partOf(t *testing.T, want map[string]string, dir string) {
	t.Helper()
	made, err := filepath.Glob(filepath.Join(dir, "[li]*s", "*", "*")) // layers and images
	more, merr := filepath.Glob(filepath.Join(dir, "chained", "*", "*"))
	if err != nil || merr != nil {
		t.Fatal(err, merr)
	}
	for _, place := range append(made, more...) {
		rel, _ := filepath.Rel(dir, place)
		part := map[string]string{}
		for name, line := range want {
			if below, ok := strings.CutPrefix(name, rel+"/"); ok {
				part["/"+below] = single(line)
			}
		}
		got := map[string]string{}
		for name, line := range tree(t, place) {
			if name != "." {
				got["/"+name] = single(line)
			}
		}
		sameTree(t, "after kill: "+rel, times(part), times(got))
	}
}

// single leaves out which other name a file is another of.
func single(line string) string {
	line, _, _ = strings.Cut(line, " = ")
	return line
}

func TestTwoProcessesAtOnce(t *testing.T) {
	dir := t.TempDir() + "/store"
	defer removePath(dir) // which an ordinary user's t.TempDir cannot
	var cmds []*exec.Cmd
	var outs []*bytes.Buffer
	for range 4 {
		cmd, out := command(t, "store "+dir), &bytes.Buffer{}
		cmd.Stderr = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, outs[i])
		}
	}
	left, err := os.ReadDir(dir + "/tmp")
	if err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v %v", left, err)
	}
}

// TestOrdinaryUser runs the tests of this package as nobody.
func TestOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("is one already")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "imgpack-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	raw, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(dir+"/unpack.test", raw, 0o755)
	}
	if err == nil {
		err = os.Chown(dir, nobody, nobody)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(dir+"/unpack.test", "-test.run", "TestHostileLayers|Rootless|Store|Killed/store|TestFlatten", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir, "IMGPACK_REQUIRE_PEERS=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("--- PASS: TestRootless")) {
		t.Errorf("did not run:\n%s", out)
	}
}

const nobody = 65534

// TestFullDisk unpacks onto a file system that is too small.
func TestFullDisk(t *testing.T) {
	rootOnly(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=300k"); err != nil {
		requirePeer(t, "cannot mount a tmpfs: "+err.Error())
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	b := fixtures.NewBlobs()
	big := b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: []fixtures.File{
		{Name: "a/"}, {Name: "a/f", Body: strings.Repeat("zeros", 200_000)}, // compresses to less than there is room for
	}}}})
	img := load(t, b, fixtures.Root("", big))
	if _, _, err := NewLayerStore(dir+"/store").Unpack(context.Background(), b, img, Options{}); !isFull(err) {
		t.Errorf("store: %v", err)
	}
	for _, name := range []string{"layers", "images", "tmp"} {
		if left, err := os.ReadDir(dir + "/store/" + name); err == nil && len(left) > 0 {
			t.Errorf("left in %s: %v", name, left)
		}
	}
	small := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: []fixtures.File{{Name: "fits", Body: "x"}}}}})))
	several := []ImageFrom{{b, small}, {b, img}}
	if _, err := NewLayerStore(dir+"/store").UnpackAll(context.Background(), several, Options{}); !isFull(err) || !strings.HasPrefix(err.Error(), "image 2 of 2: ") {
		t.Errorf("several: %v", err)
	}
	if _, ok := NewLayerStore(dir + "/store").Lookup(small); ok {
		t.Error("one of several is there")
	}
	if _, err := WriteLayers(context.Background(), several, dir+"/layers", Options{}); !isFull(err) {
		t.Errorf("layers of several: %v", err)
	}
	clean(t, "full disk", dir+"/layers")
	if _, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{}); !isFull(err) {
		t.Errorf("rootfs: %v", err)
	}
	clean(t, "full disk", dir+"/rootfs")
	// One that cannot fit is refused before anything is written.
	huge := load(t, b, manyFiles(b)[0])
	if _, err := WriteRootfs(context.Background(), b, huge, dir+"/rootfs", Options{}); !isFull(err) || !strings.Contains(err.Error(), "at least") {
		t.Errorf("too large from the start: %v", err)
	}
}

func isFull(err error) bool {
	return err != nil && strings.Contains(err.Error(), unix.ENOSPC.Error())
}
