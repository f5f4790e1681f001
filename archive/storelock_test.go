package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// TestStoreManyWriters adds, removes and collects from many goroutines with
// stores of their own. Nothing that is there may ever lack a blob.
func TestStoreManyWriters(t *testing.T) {
	s := newStore(t)
	b := fixtures.NewBlobs()
	var wg sync.WaitGroup
	for i := range 4 {
		r := fixtures.Root(fmt.Sprintf("app:%d", i), small(b, fmt.Sprint("text", i%2)))
		g := b.Graph(t, r)
		wg.Go(func() {
			own, err := OpenStore(s.Dir())
			if err != nil {
				t.Error(err)
				return
			}
			for range 5 {
				if _, err := own.Add(bg, g, AddOptions{}); err != nil {
					t.Error(err)
				}
				if _, err := own.Remove(bg, []string{r.Name.String()}, false, nil); err != nil {
					t.Error(err)
				}
				if _, err := own.GC(bg, GCOptions{}); err != nil {
					t.Error(err)
				}
			}
			if _, err := own.Add(bg, g, AddOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	g, err := readAll(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Roots()) != 4 {
		t.Errorf("%d images, want 4", len(g.Roots()))
	}
}

// TestOpenWhileReplaced reads a document that a writer renames over all the
// time: a reader gets the old or the new one, never an error.
func TestOpenWhileReplaced(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	name, next := filepath.Join(dir, "index.json"), filepath.Join(dir, "next")
	replace := func() error {
		return errors.Join(os.WriteFile(next, []byte("{}"), 0o600), os.Rename(next, name))
	}
	if err := replace(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if err := replace(); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for range 20000 {
		if raw, err := readDocument(root, "index.json"); err != nil || string(raw) != "{}" {
			t.Errorf("%q, %v", raw, err)
			break
		}
	}
	close(done)
	wg.Wait()
}

func TestStoreLock(t *testing.T) {
	was := lockWait
	defer func() { lockWait = was }()
	lockWait = 2 * lockPoll
	s := newStore(t)
	unlock, err := s.lock(bg)
	if err != nil {
		t.Fatal(err)
	}
	b := fixtures.NewBlobs()
	g := b.Graph(t, fixtures.Sample(b)...)
	_, err = s.Add(bg, g, AddOptions{})
	var conflict *manifests.ConflictError
	if !errors.As(err, &conflict) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("%v, want a ConflictError with our process id", err)
	}
	lockWait = time.Hour
	ctx, cancel := context.WithTimeout(bg, lockPoll)
	defer cancel()
	if _, err := s.Add(ctx, g, AddOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the error of the context", err)
	}
	if roots, err := s.Roots(bg); err != nil || len(roots) != 0 {
		t.Errorf("readers: %v, %v", roots, err)
	}
	unlock()
	if _, err := s.Add(bg, g, AddOptions{}); err != nil {
		t.Error(err)
	}
}

// TestStoreRecovers leaves in tmp what a killed process would, and what a
// running one has.
func TestStoreRecovers(t *testing.T) {
	s := newStore(t)
	running, err := s.begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	defer running.end()
	tmp := filepath.Join(s.Dir(), "tmp")
	if err := errors.Join(os.MkdirAll(filepath.Join(tmp, "add-1", "blobs"), 0o700), os.WriteFile(filepath.Join(tmp, "index.json"), nil, 0o600), os.Symlink("/etc", filepath.Join(tmp, "link"))); err != nil {
		t.Fatal(err)
	}
	if r, err := s.GC(bg, GCOptions{DryRun: true}); err != nil || r.Temps != 3 {
		t.Errorf("dry run: %+v, %v", r, err)
	}
	if r, err := s.GC(bg, GCOptions{}); err != nil || r.Temps != 3 {
		t.Errorf("gc: %+v, %v", r, err)
	}
	left, _ := os.ReadDir(tmp)
	if len(left) != 1 || left[0].Name() != filepath.Base(running.path) {
		t.Errorf("left: %v", left)
	}
}

// smallDisk mounts a file system of some bytes and files.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
			t.Fatalf("mount a small file system: %v", err)
		}
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// TestDiskFull fills file systems by bytes, seen before the first is written,
// and by files, seen in the middle.
func TestDiskFull(t *testing.T) {
	for name, options := range map[string]string{"bytes": "size=256k", "files": "size=8m,nr_inodes=24"} {
		t.Run(name, func(t *testing.T) {
			dir := smallDisk(t, options)
			s, err := OpenStore(filepath.Join(dir, "store"))
			if err != nil {
				t.Fatal(err)
			}
			b := fixtures.NewBlobs()
			add(t, s, b, AddOptions{}, fixtures.Root("there:1", small(b, "there")))
			before := snapshot(t, dir)
			var roots []manifests.Root
			for i := range 10 {
				layer := fixtures.LayerSpec{Compression: manifests.Uncompressed, Files: []fixtures.File{{Name: "f", Body: strings.Repeat(fmt.Sprint(i), 40<<10)}}}
				roots = append(roots, fixtures.Root(fmt.Sprintf("app:%d", i), b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{layer}})))
			}
			g := b.Graph(t, roots...)
			if _, err := s.Add(bg, g, AddOptions{}); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("add: %v, want ENOSPC", err)
			}
			if err := WriteLayout(bg, filepath.Join(dir, "layout"), g, WriteOptions{}); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("layout: %v, want ENOSPC", err)
			}
			plan, err := PlanTar(g, TarOptions{Kind: Hybrid})
			if err != nil {
				t.Fatal(err)
			}
			if err := plan.WriteFile(bg, filepath.Join(dir, "x.tar"), WriteOptions{}); name == "bytes" && !errors.Is(err, unix.ENOSPC) {
				t.Errorf("tar: %v, want ENOSPC", err)
			}
			os.Remove(filepath.Join(dir, "x.tar")) // one file does fit
			if after := snapshot(t, dir); after != before {
				t.Errorf("something was left:\n%s\nwas:\n%s", after, before)
			}
			if _, err := s.Remove(bg, []string{"there:1"}, false, nil); err != nil {
				t.Error(err)
			}
			if r, err := s.GC(bg, GCOptions{}); err != nil || r.Blobs != 3 {
				t.Errorf("gc on a full disk: %+v, %v", r, err)
			}
		})
	}
}

// TestForsakenStore: of a store that was made for images which were then
// refused nothing is left, and who begins to use it meanwhile is not in the way.
func TestForsakenStore(t *testing.T) {
	b := fixtures.NewBlobs()
	good, bad := fixtures.Root("good:1", small(b, "good")), fixtures.Root("bad:1", small(b, "bad"))
	fine, refused := b.Graph(t, good), b.Graph(t, bad)
	for _, d := range refused.Blobs() {
		b.Corrupt(d.Digest, func(p []byte) []byte { return append(p, 0) })
	}
	top := t.TempDir()
	for range 20 {
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				s, err := OpenStore(filepath.Join(top, "new", "store"))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Add(bg, refused, AddOptions{}); !errors.As(err, new(*manifests.ContentError)) {
					t.Error(err)
				}
				if i == 0 {
					return
				}
				if _, err := s.Add(bg, fine, AddOptions{}); err != nil {
					t.Error(err)
				}
				if roots, err := s.Roots(bg); err != nil || len(roots) != 1 {
					t.Errorf("%v, %v", roots, err)
				}
			})
		}
		wg.Wait()
		if err := os.RemoveAll(filepath.Join(top, "new")); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"new/store", "."} {
		s, err := OpenStore(filepath.Join(top, dir))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Add(bg, refused, AddOptions{}); err == nil {
			t.Error("it was taken")
		}
		if _, err := os.Stat(filepath.Join(top, "new")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v, want nothing left", err)
		}
	}
}
