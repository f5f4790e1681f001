package archive

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// TestHostileArchives opens every hostile archive and reads all of it: from a
// file, from a pipe, and into a store, which must stay as it was.
func TestHostileArchives(t *testing.T) {
	dir := t.TempDir()
	store, err := OpenStore(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	b := fixtures.NewBlobs()
	if _, err := store.Add(context.Background(), b.Graph(t, fixtures.Sample(b)...), AddOptions{}); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, store.Dir())
	t.Run("archives", func(t *testing.T) {
		for _, h := range fixtures.HostileArchives() {
			t.Run(h.Name, func(t *testing.T) {
				t.Parallel()
				hostile(t, h, dir)
			})
		}
	})
	if after := snapshot(t, store.Dir()); after != before {
		t.Errorf("the store changed:\n%s\nwas:\n%s", after, before)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func hostile(t *testing.T, h fixtures.HostileArchive, spool string) {
	src, err := openBytes(t, h.Tar, manifests.Path)
	if err == nil {
		defer src.Close()
		_, err = readAll(src)
	}
	if !fixtures.Matches(err, h.Want) {
		t.Errorf("%v, want %q", err, h.Want)
	}
	piped, perr := Open(context.Background(), manifests.Reference{Transport: manifests.Stdin}, OpenOptions{SpoolDir: spool, Stdin: bytes.NewReader(h.Tar)})
	if perr == nil {
		defer piped.Close()
		_, perr = readAll(piped)
	}
	if (err == nil) != (perr == nil) {
		t.Errorf("from a file %v, from a pipe %v", err, perr)
	}
	if err != nil {
		return
	}
	if err := writeEverywhere(t, src); err != nil {
		t.Logf("taken, and not written: %v", err)
	}
}

// writeEverywhere writes what an archive holds in every form, which must not
// panic and must give what can be read again.
func writeEverywhere(t *testing.T, src Source) error {
	ctx := context.Background()
	g, err := readAll(src)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := PlanTar(g, TarOptions{Kind: Hybrid})
	if err != nil {
		return err
	}
	path := filepath.Join(t.TempDir(), "x.tar")
	if err := plan.WriteFile(ctx, path, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	again, err := open(manifests.Reference{Transport: manifests.Path, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := readAll(again); err != nil {
		t.Fatal(err)
	}
	store, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Add(ctx, g, AddOptions{})
	return err
}
