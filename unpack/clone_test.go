package unpack

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// loopMount returns a directory on a new file system.
func loopMount(t *testing.T, kind string) string {
	t.Helper()
	rootOnly(t)
	dir := t.TempDir()
	file, at := dir+"/disk", dir+"/mnt"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const size = 320 << 20 // an xfs has at least 300 MiB
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"mkfs." + kind, "-q", file}, {"mount", "-o", "loop", file, at}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			requirePeer(t, fmt.Sprintf("no %s here: %s: %v: %s", kind, c[0], err, out))
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount: %v", err)
			unix.Unmount(at, unix.MNT_DETACH)
		}
	})
	return at
}

// TestClonesAreTheSameTree holds trees made of a store's layers to extracted
// ones, owners mapped and not, on the file systems that have it.
func TestClonesAreTheSameTree(t *testing.T) {
	for _, kind := range []string{"xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			at := loopMount(t, kind)
			b := fixtures.NewBlobs()
			store := NewLayerStore(at + "/store")
			shared := 0
			for i, root := range images(t, b) {
				img := load(t, b, root)
				if _, _, err := store.Unpack(context.Background(), b, img, Options{}); err != nil {
					t.Fatal(err)
				}
				for j, o := range []Options{{}, {IDs: halves}, {NoXattrs: true}} {
					if i%3 != j {
						continue
					}
					what := fmt.Sprintf("%s/%d-%d", at, i, j)
					if _, err := WriteRootfs(context.Background(), b, img, what+"-extracted", o); err != nil {
						t.Fatal(err)
					}
					o.Store = store
					res, err := WriteRootfs(context.Background(), b, img, what+"-cloned", o)
					if err != nil {
						t.Fatal(err)
					}
					shared += res.LayersShared
					sameTree(t, what, tree(t, what+"-extracted"), tree(t, what+"-cloned"))
				}
			}
			if shared == 0 {
				t.Error("nothing was cloned")
			}
		})
	}
}

// TestClonesAreApart writes to a clone, and reads no blob for it.
func TestClonesAreApart(t *testing.T) {
	at := loopMount(t, "xfs")
	b := fixtures.NewBlobs()
	store := NewLayerStore(at + "/store")
	img := load(t, b, fixtures.Sample(b)[0])
	r, _, err := store.Unpack(context.Background(), b, img, Options{})
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]map[string]string{}
	inodes := map[uint64]bool{}
	for _, dir := range r.Lower {
		before[dir] = tree(t, dir)
		eachFile(t, dir, func(_ string, st *unix.Stat_t) { inodes[st.Ino] = true })
	}
	none := manifests.FetcherFunc(func(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return nil, fmt.Errorf("%s was read", d.Digest)
	})
	res, err := WriteRootfs(context.Background(), none, img, at+"/cloned", Options{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	if res.LayersShared != len(img.Layers) || res.LayersNew != 0 || res.Files == 0 {
		t.Errorf("%+v", res)
	}
	eachFile(t, at+"/cloned", func(path string, st *unix.Stat_t) {
		if inodes[st.Ino] {
			t.Errorf("%s is the store's own file", path)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			if err := os.WriteFile(path, []byte("overwritten"), 0); err != nil {
				t.Error(err)
			}
		}
	})
	for dir, want := range before {
		sameTree(t, dir, want, tree(t, dir))
	}
}

func eachFile(t *testing.T, dir string, do func(path string, st *unix.Stat_t)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		do(path, &st)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNoClones extracts where files cannot share blocks.
func TestNoClones(t *testing.T) {
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Sample(b)[0])
	store := NewLayerStore(t.TempDir() + "/store")
	o := Options{Store: store}
	for range 2 { // without a store, and with one
		dir := t.TempDir()
		if shares(os.Args[0], mustOpen(t, dir)) {
			t.Skip("files share blocks here")
		}
		res, err := WriteRootfs(context.Background(), b, img, dir+"/out", o)
		if err != nil || res.LayersShared != 0 || res.LayersNew != len(img.Layers) {
			t.Errorf("%+v %v", res, err)
		}
		if _, _, err := store.Unpack(context.Background(), b, img, Options{}); err != nil {
			t.Fatal(err)
		}
	}
}

func mustOpen(t *testing.T, dir string) int {
	t.Helper()
	fd, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
