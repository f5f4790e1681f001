package archive

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// crashStore names, in the environment, the store that a child of the test
// works on until it is killed.
const crashStore = "IMGPACK_TEST_CRASH_STORE"

// crashImages are images of which each pair shares a layer.
func crashImages(b *fixtures.Blobs) []manifests.Root {
	var roots []manifests.Root
	for i := range 6 {
		layers := []fixtures.LayerSpec{
			{Files: []fixtures.File{{Name: "base", Body: strings.Repeat(fmt.Sprint("base ", i/2), 5000)}}, Compression: manifests.Uncompressed},
			{Files: []fixtures.File{{Name: "app", Body: strings.Repeat(fmt.Sprint("app ", i), 50000)}}, Compression: manifests.Uncompressed},
		}
		roots = append(roots, fixtures.Root(fmt.Sprintf("app:%d", i), b.Image(fixtures.ImageSpec{Layers: layers})))
	}
	return roots
}

// TestCrashChild is no test: it is the process that TestStoreSurvivesKill
// kills.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashStore)
	if dir == "" {
		t.Skip("only run by TestStoreSurvivesKill")
	}
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := fixtures.NewBlobs()
	roots := crashImages(b)
	fmt.Println("ready")
	for i := 0; ; i = (i + 1) % len(roots) {
		if _, err := s.Add(bg, b.Graph(t, roots[i], roots[(i+1)%len(roots)]), AddOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Tag(bg, roots[i].Name, roots[0].Name); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Remove(bg, []string{roots[i].Descriptor.Digest.Encoded()}, true, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.GC(bg, GCOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStoreSurvivesKill kills a process at random points of its work. All that
// is in the store must be whole each time, and the next process must get on.
func TestStoreSurvivesKill(t *testing.T) {
	s := newStore(t)
	for i := range 12 {
		child := exec.Command(os.Args[0], "-test.run=^TestCrashChild$", "-test.v")
		child.Env = append(os.Environ(), crashStore+"="+s.Dir())
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		for buf := make([]byte, 512); !strings.Contains(said.String(), "ready"); {
			n, err := out.Read(buf)
			said.Write(buf[:n])
			if err != nil {
				t.Fatalf("child: %v: %s", err, said.String())
			}
		}
		time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		child.Wait()
		if _, err := readAll(s); err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
	}
	b := fixtures.NewBlobs()
	roots := crashImages(b)
	if _, err := s.Add(bg, b.Graph(t, roots...), AddOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(bg, GCOptions{}); err != nil {
		t.Fatal(err)
	}
	g, err := readAll(s)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := filepath.Glob(filepath.Join(s.Dir(), "blobs", "sha256", "*"))
	if err != nil || len(blobs) != len(allBlobs(g)) {
		t.Errorf("%d blobs, want %d; %v", len(blobs), len(allBlobs(g)), err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.Dir(), "tmp")); len(left) > 0 {
		t.Errorf("left in tmp: %v", left)
	}
}
