package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// twoTrees reads two images of one layer each, on a layer both have.
func twoTrees(t testing.TB, base, a, b []fixtures.File) []*Tree {
	t.Helper()
	blobs := fixtures.NewBlobs()
	var images []TreeImage
	for _, files := range [][]fixtures.File{a, b} {
		spec := fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: base}, {Files: files}}}
		images = append(images, TreeImage{blobs, load(t, blobs, fixtures.Root("", blobs.Image(spec)))})
	}
	trees, err := ReadTrees(context.Background(), images, TreeOptions{Digests: true})
	if err != nil {
		t.Fatal(err)
	}
	return trees
}

func changes(t testing.TB, trees []*Tree, o DiffOptions) []string {
	t.Helper()
	list, err := Diff(trees[0], trees[1], o)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range list {
		line := c.Letter() + " " + c.Path()
		for _, w := range c.What {
			line += " " + string(w)
		}
		out = append(out, line)
	}
	return out
}

func TestDiff(t *testing.T) {
	at := func(sec int64) time.Time { return time.Unix(sec, 0) }
	base := []fixtures.File{{Name: "same", Body: "same"}, {Name: "usr/"}, {Name: "usr/lib/"}, {Name: "usr/lib/gone", Body: "x"}, {Name: "usr/lib/gone2", Body: "y"}, {Name: "touched", Body: "t", ModTime: at(1)}}
	trees := twoTrees(t, base, []fixtures.File{
		{Name: "size", Body: "1"}, {Name: "content", Body: "1"}, {Name: "mode", Mode: 0o600}, {Name: "owner", UID: 1}, {Name: "group", GID: 1}, {Name: "mtime", ModTime: time.Unix(1, 5)},
		{Name: "xattrs", Xattrs: map[string]string{"user.a": "1"}}, {Name: "target", Link: "a"}, {Name: "dev", Type: tar.TypeChar, Major: 1, Minor: 3}, {Name: "dev2", Type: tar.TypeChar, Major: 1, Minor: 3},
		{Name: "kind", Body: "file"}, {Name: "dir/", Mode: 0o700}, {Name: "tree/"}, {Name: "tree/in"}, {Name: "tree2", Body: "x"},
	}, []fixtures.File{
		{Name: "size", Body: "22"}, {Name: "content", Body: "2"}, {Name: "mode", Mode: 0o4600}, {Name: "owner", UID: 2}, {Name: "group", GID: 2}, {Name: "mtime", ModTime: time.Unix(1, 6)},
		{Name: "xattrs", Xattrs: map[string]string{"user.a": "2"}}, {Name: "target", Link: "b"}, {Name: "dev", Type: tar.TypeChar, Major: 1, Minor: 5}, {Name: "dev2", Type: tar.TypeBlock, Major: 1, Minor: 3},
		{Name: "kind", Link: "x"}, {Name: "dir/", Mode: 0o755}, {Name: "tree", Body: "file"}, {Name: "tree2/"}, {Name: "tree2/in"},
		{Name: "usr/.wh.lib"}, {Name: "touched", Body: "t", ModTime: at(2)}, {Name: "same", Body: "same"}, {Name: "new/"}, {Name: "new/f"},
	})
	want := []string{
		"C content content", "C dev device", "C dev2 device", "C dir mode", "C group owner", "C kind kind", "C mode mode", "C mtime mtime", "A new", "A new/f", "C owner owner",
		"C size size content", "C target target", "C touched mtime", "C tree kind", "D tree/in", "C tree2 kind", "A tree2/in", "D usr/lib", "D usr/lib/gone", "D usr/lib/gone2", "C xattrs xattrs",
	}
	if got := changes(t, trees, DiffOptions{}); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	want = []string{"A new", "A new/f", "C size size", "C touched mtime"}
	if got := changes(t, trees, DiffOptions{Paths: []string{"/new", "siz?", "touched", "nothing"}, Ignore: []Aspect{AspectContent, AspectOwner}}); !slices.Equal(got, want) {
		t.Errorf("of paths: got  %q\nwant %q", got, want)
	}
	if got := changes(t, []*Tree{trees[1], trees[1]}, DiffOptions{}); got != nil {
		t.Errorf("of one tree: %q", got)
	}
	for _, o := range []DiffOptions{{Ignore: []Aspect{"colour"}}, {Paths: []string{"["}}} {
		_, err := Diff(trees[0], trees[1], o)
		if _, ok := errors.AsType[*manifests.InputError](err); !ok {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// Two trees differ exactly where their listings do.
func TestDiffOfRandomLayers(t *testing.T) {
	g := rand.New(rand.NewPCG(7, 8))
	for range 300 {
		part := func() []fixtures.File {
			data := make([]byte, 3*(2+g.IntN(6)))
			for i := range data {
				data[i] = byte(g.Uint32())
			}
			return decode(data)[0]
		}
		base, a, b := part(), part(), part()
		blobs := fixtures.NewBlobs()
		var trees []*Tree
		for _, files := range [][]fixtures.File{a, b} {
			img := load(t, blobs, fixtures.Root("", blobs.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: base}, {Files: files}}})))
			if tr, err := ReadTree(context.Background(), blobs, img, TreeOptions{Digests: true}); err == nil {
				trees = append(trees, tr)
			}
		}
		if len(trees) < 2 {
			continue
		}
		var got, want []string
		for _, c := range changes(t, trees, DiffOptions{}) {
			f := strings.Fields(c)
			got = append(got, f[0]+" "+f[1])
		}
		from, to := lines(t, trees[0]), lines(t, trees[1])
		for path, line := range from {
			if now, ok := to[path]; !ok {
				want = append(want, "D "+path)
			} else if now != line {
				want = append(want, "C "+path)
			}
		}
		for path := range to {
			if _, ok := from[path]; !ok {
				want = append(want, "A "+path)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("got  %q\nwant %q\n%s", got, want, show([][]fixtures.File{base, a, b}))
		}
	}
}

// lines are all that is said of each path.
func lines(t testing.TB, tr *Tree) map[string]string {
	out := map[string]string{}
	err := tr.Walk(func(n *Node) error {
		n.First, n.Layer, n.Implied = "", 0, false
		out[n.Path] = fmt.Sprint(*n)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDiffConfig(t *testing.T) {
	b := fixtures.NewBlobs()
	image := func(c ocispec.ImageConfig) *manifests.Image {
		return load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Config: c, Layers: []fixtures.LayerSpec{{Files: []fixtures.File{{Name: "a"}}}}})))
	}
	one := image(ocispec.ImageConfig{Env: []string{"A=1", "B=x", "GONE"}, Cmd: []string{"sh"}, Labels: map[string]string{"l": "1"}, Volumes: map[string]struct{}{"/v": {}}, User: "root"})
	two := image(ocispec.ImageConfig{Env: []string{"B=x", "A=2=3", "NEW="}, Cmd: []string{"sh", "-c"}, Labels: map[string]string{"l": "2", "m": "1"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}, User: "root", WorkingDir: "/w"})
	list, err := DiffConfig(one, two)
	if err != nil {
		t.Fatal(err)
	}
	text := func(s *string) string {
		if s == nil {
			return "-"
		}
		return fmt.Sprintf("%q", *s)
	}
	var got []string
	for _, c := range list {
		got = append(got, fmt.Sprintf("%s %s %s %s", c.Field, c.Key, text(c.From), text(c.To)))
	}
	want := []string{
		`Cmd  "[\"sh\"]" "[\"sh\",\"-c\"]"`, `Env A "1" "2=3"`, `Env GONE "" -`, `Env NEW - ""`, `ExposedPorts 80/tcp - ""`, `Labels l "1" "2"`, `Labels m - "1"`, `Volumes /v "" -`, `WorkingDir  - "/w"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if list, err := DiffConfig(two, two); err != nil || list != nil {
		t.Errorf("of one image: %v %v", list, err)
	}
}
