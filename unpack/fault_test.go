package unpack

import (
	"context"
	"strings"
	"testing"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// TestFaultOfALayerAlone: what looks wrong with a layer may be right on top of
// a symlink through which its names lead; where that is not there it is wrong,
// and the store has the same layer for both.
func TestFaultOfALayerAlone(t *testing.T) {
	symlink := []fixtures.File{{Name: "a/b", Link: ".."}}
	for name, files := range map[string][]fixtures.File{
		"its parent is not a directory": {
			{Name: "c", Body: "in the way, and longer than what follows"}, {Name: "a/b/c/"}, {Name: "c/f", Body: "here"}, {Name: "e", Body: "after"}},
		"a hard link into what it replaces": {
			{Name: "a/b/x/f", Body: "here"}, {Name: "a/b", Type: '1', Link: "a/b/x/f"}},
		"a hard link to a directory": {
			{Name: "x/"}, {Name: "a/b/x", Body: "here"}, {Name: "e", Type: '1', Link: "x"}},
	} {
		b := fixtures.NewBlobs()
		image := func(layers ...[]fixtures.File) *manifests.Image {
			var spec fixtures.ImageSpec
			for _, files := range layers {
				spec.Layers = append(spec.Layers, fixtures.LayerSpec{Files: append([]fixtures.File{}, files...)})
			}
			return load(t, b, fixtures.Root("", b.Image(spec)))
		}
		alone, upon := image(files), image(symlink, files)
		ctx := context.Background()
		store := NewLayerStore(t.TempDir())
		_, _, uponErr := store.Unpack(ctx, b, upon, Options{})
		_, _, aloneErr := store.Unpack(ctx, b, alone, Options{})
		_, treeErr := ReadTree(ctx, b, alone, TreeOptions{})
		_, rootErr := WriteRootfs(ctx, b, alone, t.TempDir()+"/rootfs", Options{})
		for what, err := range map[string]error{"store": aloneErr, "tree": treeErr, "rootfs": rootErr} {
			if !fixtures.Matches(err, manifests.KindMalformed) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %s, alone: %v", name, what, err)
			}
		}
		if uponErr != nil {
			t.Errorf("%s: %v", name, uponErr)
			continue
		}
		out := t.TempDir() + "/rootfs"
		if _, err := WriteRootfs(ctx, b, upon, out, Options{}); err != nil {
			t.Fatal(err)
		}
		sameTree(t, name, tree(t, out), listTree(t, readTree(t, b, upon)))
	}
}
