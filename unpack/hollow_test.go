package unpack

import (
	"context"
	"fmt"
	"testing"

	"github.com/imgpack/imgpack/fixtures"
)

// TestHiddenWhiteouts: a directory in which there are nothing but whiteouts,
// and which is hidden itself, is not there, in whichever order they come.
func TestHiddenWhiteouts(t *testing.T) {
	rootOnly(t)
	below := []fixtures.File{{Name: "d/", Mode: 0o700}, {Name: "d/x", Body: "1"}, {Name: "d/e/"}, {Name: "d/e/x", Body: "2"}, {Name: "f", Body: "3"}}
	hide := func(names ...string) (out []fixtures.File) {
		for _, n := range names {
			out = append(out, fixtures.File{Name: n})
		}
		return out
	}
	for i, c := range []struct {
		layer []fixtures.File
		there bool
	}{
		{hide("d/.wh.x", ".wh.d"), false},
		{hide(".wh.d", "d/.wh.x"), false},
		{hide("d/.wh..wh..opq", ".wh.d"), false},
		{hide(".wh.d", "d/.wh..wh..opq"), false},
		{hide("d/e/.wh.x", "d/.wh.e", ".wh.d"), false},
		{hide(".wh.d", "d/.wh.e", "d/e/.wh.x"), false},
		{hide("d/e/f/g/.wh.x", "d/e/.wh.f", ".wh.d"), false},
		{append(hide("d/.wh.x", ".wh.d"), fixtures.File{Name: "d/"}), true},
		{append(hide("d/e/.wh.x", "d/.wh.e"), fixtures.File{Name: "d/new", Body: "4"}), true},
	} {
		b := fixtures.NewBlobs()
		img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: below}, {Files: c.layer}}})))
		want := umociTree(t, b, img)
		if want["d"] != "" != c.there {
			t.Errorf("case %d: umoci makes %v", i, want)
		}
		dir := t.TempDir()
		if _, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{}); err != nil {
			t.Fatal(err)
		}
		sameTree(t, fmt.Sprint("rootfs of case ", i), want, tree(t, dir+"/rootfs"))
		r, _, err := NewLayerStore(dir+"/store").Unpack(context.Background(), b, img, Options{})
		if err != nil {
			t.Fatal(err)
		}
		sameTree(t, fmt.Sprint("overlay of case ", i), want, mounted(t, r))
	}
}
