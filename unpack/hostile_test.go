package unpack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// sentinel makes a directory that nothing may touch, and returns the listing
// that must stay as it is.
func sentinel(t testing.TB) (dir string, untouched func(what string)) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "victim"), []byte("mine"), 0o640); err != nil {
		t.Fatal(err)
	}
	list := func() map[string]string {
		all := tree(t, filepath.Dir(dir))
		delete(all, ".")
		for name := range all {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(filepath.Dir(dir), name), &st); err != nil {
				t.Fatal(err)
			}
			all[name] += fmt.Sprintf(" links %d changed %d.%09d", st.Nlink, st.Ctim.Sec, st.Ctim.Nsec)
		}
		return all
	}
	want := list()
	return dir, func(what string) {
		t.Helper()
		sameTree(t, what+": outside", want, list())
	}
}

// clean checks that a target that failed left nothing.
func clean(t testing.TB, what, target string) {
	t.Helper()
	for _, path := range []string{target, atomicfile.TempPath(target)} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %s was left", what, filepath.Base(path))
		}
	}
}

func TestHostileLayers(t *testing.T) {
	outside, untouched := sentinel(t)
	dir := t.TempDir()
	store := NewLayerStore(dir + "/store")
	other := fixtures.NewBlobs()
	kept := fixtures.Sample(other)[0]
	if _, _, err := store.Unpack(context.Background(), other, load(t, other, kept), Options{}); err != nil {
		t.Fatal(err)
	}
	ways := map[string]func(*fixtures.Blobs, *manifests.Image) (*Result, error){
		"store": func(b *fixtures.Blobs, img *manifests.Image) (*Result, error) {
			_, res, err := store.Unpack(context.Background(), b, img, Options{})
			return res, err
		},
		"rootfs": func(b *fixtures.Blobs, img *manifests.Image) (*Result, error) {
			return WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{})
		},
	}
	for _, h := range fixtures.HostileLayersAt(outside) {
		b := fixtures.NewBlobs()
		img := load(t, b, fixtures.Root("", h.Image(b)))
		before := tree(t, dir+"/store")
		for way, unpack := range ways {
			what := h.Name + " to " + way
			start := processorTime()
			res, err := unpack(b, img)
			if took := processorTime() - start; took > 10*time.Second {
				t.Errorf("%s: took %v", what, took)
			} else if took > time.Second {
				t.Logf("%s: took %v", what, took)
			}
			if os.Geteuid() != 0 && errors.Is(err, unix.EACCES) && strings.HasPrefix(h.Name, "closed ") {
				continue // layers in a store have their modes, which close them to who has no rights
			}
			if !fixtures.Matches(err, h.Want) {
				t.Errorf("%s: %v, want %q", what, err, h.Want)
			}
			untouched(what)
			if err != nil {
				checkMessage(t, what, err)
				clean(t, what, dir+"/rootfs")
				after := tree(t, dir+"/store")
				if way == "store" {
					sameTree(t, what, times(before), times(after))
				}
				continue
			}
			if h.Note == "dropped" && len(res.Skipped) == 0 {
				t.Errorf("%s: nothing reported", what)
			}
			if err := removePath(dir + "/rootfs"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := store.gcAll(t, other, kept); err != nil {
			t.Fatal(err)
		}
	}
}

// processorTime is what this process has taken; unlike the clock it does not
// hang on what else the machine does.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestWithoutOpenat2 takes the way of old kernels.
func TestWithoutOpenat2(t *testing.T) {
	noOpenat2.Store(true)
	defer noOpenat2.Store(false)
	outside, untouched := sentinel(t)
	dir := t.TempDir()
	for _, h := range fixtures.HostileLayersAt(outside) {
		b := fixtures.NewBlobs()
		img := load(t, b, fixtures.Root("", h.Image(b)))
		_, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{})
		if !fixtures.Matches(err, h.Want) {
			t.Errorf("%s: %v, want %q", h.Name, err, h.Want)
		}
		untouched(h.Name)
		if err != nil {
			clean(t, h.Name, dir+"/rootfs")
			continue
		}
		got := tree(t, dir+"/rootfs")
		noOpenat2.Store(false)
		_, err = WriteRootfs(context.Background(), b, img, dir+"/usual", Options{})
		noOpenat2.Store(true)
		if err != nil {
			t.Errorf("%s: %v with openat2 alone", h.Name, err)
			continue
		}
		sameTree(t, h.Name, tree(t, dir+"/usual"), got)
		if err := errors.Join(removePath(dir+"/rootfs"), removePath(dir+"/usual")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := openBeneath(unix.AT_FDCWD, "../x", unix.O_PATH); err != unix.ENOENT {
		t.Errorf("a walk to the parent: %v", err)
	}
}

// gcAll removes all but one image.
func (s *LayerStore) gcAll(t testing.TB, b *fixtures.Blobs, keep manifests.Root) (int, error) {
	n, _, err := s.GC(context.Background(), load(t, b, keep).Config.RootFS.DiffIDs, false)
	return n, err
}

// times leaves out what a store's own directories may change in: times.
func times(list map[string]string) map[string]string {
	out := map[string]string{}
	for name, line := range list {
		if !strings.Contains(name, "/fs") {
			f := strings.Fields(line)
			line = f[0] + " " + f[1]
		}
		out[name] = line
	}
	return out
}

// checkMessage holds an error to what people and terminals can take.
func checkMessage(t testing.TB, what string, err error) {
	t.Helper()
	text := err.Error()
	if strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f || r > 0x7f && r != '…' }) || len(text) > 1500 {
		t.Errorf("%s: unsafe or long message %q", what, text)
	}
	var bad *manifests.ContentError
	if errors.As(err, &bad) && !strings.HasPrefix(text, "layer ") {
		t.Errorf("%s: the message does not name the layer: %s", what, text)
	}
	if strings.Contains(text, "failed to") {
		t.Errorf("%s: %s", what, text)
	}
}

// How many names a file may have is the file system's: ext4 stops at 65000,
// where others go on.
func TestTooManyLinks(t *testing.T) {
	e := &layertar.Entry{Name: "h", Kind: layertar.Hardlink}
	err := (&job{img: &manifests.Image{}}).fail(manifests.Layer{Blob: ocispec.Descriptor{Digest: digest.FromString("")}}, atEntry(e, unix.EMLINK))
	if !fixtures.Matches(err, manifests.KindLimit) || !strings.Contains(err.Error(), `entry "h"`) {
		t.Error(err)
	}
}

// A layer that is not the tar of its diffID is found out though another layer,
// which is, has the same.
func TestBorrowedDiffID(t *testing.T) {
	b := fixtures.NewBlobs()
	one := fixtures.LayerSpec{Files: []fixtures.File{{Name: "one"}}}
	_, diffID := b.Layer(one, false)
	desc := b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{one, {Files: []fixtures.File{{Name: "other"}}}}})
	img := load(t, b, fixtures.Root("", desc))
	img.Layers[1].DiffID = diffID
	_, _, err := NewLayerStore(t.TempDir()+"/store").Unpack(context.Background(), b, img, Options{})
	_, terr := ReadTree(context.Background(), b, img, TreeOptions{})
	for what, err := range map[string]error{"store": err, "tree": terr} {
		if !fixtures.Matches(err, manifests.KindDiffID) || !strings.Contains(err.Error(), "layer 2 of 2") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
