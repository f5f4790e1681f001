package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// listTree is what tree says of the Tree made real by root, devices left out.
// Symlinks and fifos have no attributes on disk.
func listTree(t testing.TB, tr *Tree) map[string]string {
	t.Helper()
	out := map[string]string{}
	types := map[layertar.Kind]uint32{layertar.File: unix.S_IFREG, layertar.Dir: unix.S_IFDIR, layertar.Symlink: unix.S_IFLNK, layertar.Fifo: unix.S_IFIFO}
	own := func(n *Node) string {
		if os.Geteuid() != 0 {
			return fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid())
		}
		return fmt.Sprintf("%d:%d", n.UID, n.GID)
	}
	err := tr.Walk(func(n *Node) error {
		if n.Kind == layertar.Device {
			return nil
		}
		line := fmt.Sprintf("%o %s %d.%09d", types[n.Kind]|n.Mode, own(n), n.ModTime.Unix(), n.ModTime.Nanosecond())
		switch {
		case n.Path == ".":
			line = fmt.Sprintf("%o %s", types[n.Kind]|n.Mode, own(n))
		case n.Kind == layertar.File:
			line += fmt.Sprintf(" %d %s", n.Size, n.Digest.Encoded())
		case n.Kind == layertar.Symlink:
			line += " -> " + n.Linkname
		}
		if n.First != n.Path {
			line += " = " + n.First
		}
		if n.Kind == layertar.File || n.Kind == layertar.Dir {
			for _, a := range n.Xattrs {
				line += fmt.Sprintf(" %s=%q", a.Name, a.Value)
			}
		}
		out[n.Path] = line
		if found := tr.Find("/" + n.Path); found == nil || found.Path != n.Path || found.Kind != n.Kind {
			t.Errorf("Find(%q): %+v", n.Path, found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func readTree(t testing.TB, src manifests.Fetcher, img *manifests.Image) *Tree {
	t.Helper()
	tr, err := ReadTree(context.Background(), src, img, TreeOptions{Digests: true})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestTreeIsWhatIsUnpacked(t *testing.T) {
	rootOnly(t)
	b := fixtures.NewBlobs()
	for i, root := range images(t, b) {
		img := load(t, b, root)
		dir := t.TempDir()
		if _, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{}); err != nil {
			t.Fatal(err)
		}
		sameTree(t, fmt.Sprintf("image %d, %s", i, root.Display()), tree(t, dir+"/rootfs"), listTree(t, readTree(t, b, img)))
	}
}

// withDevices is decode with devices and fifos in it.
func withDevices(data []byte) [][]fixtures.File {
	layers := decode(data)
	i := 0
	for _, l := range layers {
		for k := range l {
			if i++; i < len(data) && data[i]%11 == 0 && l[k].Body != "" {
				l[k].Body, l[k].Type = "", "346"[data[i]%3]
				l[k].Major, l[k].Minor = 1, 3
			}
		}
	}
	return layers
}

// checkTree compares the tree with what WriteRootfs makes of random layers and
// with the model.
func checkTree(t testing.TB, data []byte) (checked bool) {
	t.Helper()
	layers := decode(data)
	devices := len(data) > 0 && data[0]%4 == 1
	if devices {
		layers = withDevices(data)
	}
	want, why := map[string]string(nil), "devices"
	if !devices {
		want, why = flattened(layers, fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid()))
	}
	b := fixtures.NewBlobs()
	var spec fixtures.ImageSpec
	for _, l := range layers {
		spec.Layers = append(spec.Layers, fixtures.LayerSpec{Files: append([]fixtures.File{}, l...), Compression: manifests.Uncompressed})
	}
	img := load(t, b, fixtures.Root("", b.Image(spec)))
	tr, err := ReadTree(context.Background(), b, img, TreeOptions{Digests: true, Jobs: 1})
	dir, derr := os.MkdirTemp("", "imgpack-test-")
	if derr != nil {
		t.Fatal(derr)
	}
	defer removePath(dir)
	_, werr := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{Jobs: 1})
	// Of several layers at fault either may be named.
	if (err == nil) != (werr == nil) || err != nil && err.Error()[:12] == werr.Error()[:12] && err.Error() != werr.Error() {
		t.Fatalf("tree:   %v\nrootfs: %v\n%s", err, werr, show(layers))
	}
	if err != nil {
		return false
	}
	got := listTree(t, tr)
	sameTree(t, "tree and rootfs", tree(t, dir+"/rootfs"), got)
	if why == "" && !maps.Equal(want, got) && orderCounts(t, b, img, layers, dir+"/store") {
		return false
	}
	if why == "" {
		sameTree(t, "tree and model", want, got)
	}
	if t.Failed() {
		t.Fatal(show(layers))
	}
	return why == ""
}

// orderCounts tells whether a layer has whiteouts behind the rest, and one does
// not stand alone: there the order of whiteouts counts.
func orderCounts(t testing.TB, b *fixtures.Blobs, img *manifests.Image, layers [][]fixtures.File, store string) bool {
	if !slices.ContainsFunc(layers, func(l []fixtures.File) bool { return !hidesFirst(l) }) {
		return false
	}
	if _, _, err := NewLayerStore(store).Unpack(context.Background(), b, img, Options{Jobs: 1}); err != nil {
		t.Fatal(err)
	}
	_, err := os.Stat(store + "/chained")
	return err == nil
}

func TestTreeOfRandomLayers(t *testing.T) {
	g := rand.New(rand.NewPCG(3, 4))
	checked, rounds := 0, soaked(200)
	for range rounds {
		data := make([]byte, 3*(4+g.IntN(14)))
		for i := range data {
			data[i] = byte(g.Uint32())
		}
		if checkTree(t, data) {
			checked++
		}
	}
	t.Logf("%d of %d compared with the model", checked, rounds)
	if checked < rounds/10 {
		t.Error("too few")
	}
}

func FuzzTree(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 3, 0, 7, 0, 0, 5, 3, 0, 2, 4, 0})
	f.Add([]byte{0, 0, 0, 3, 11, 0, 7, 0, 0, 2, 12, 0, 7, 0, 0, 4, 1, 3})
	f.Add([]byte{2, 0, 11, 2, 3, 0, 7, 0, 0, 4, 1, 0, 2, 4, 0})
	f.Add([]byte("200700$10000280")) // what a hard link means is in the way of later entries
	f.Add([]byte("%80X00280%00"))    // a whiteout of a device in which others lie
	f.Add([]byte("100070200700200&00"))
	f.Add([]byte("CC0700270$C7")) // a link over the symlink that leads to its target
	f.Add([]byte("CC2$71280"))    // what a name leads through is in the way of a later link
	f.Fuzz(func(t *testing.T, data []byte) { checkTree(t, data) })
}

// Whatever the extractor refuses ReadTree refuses for the same reason, unless
// it is the disk that is at fault.
func TestHostileTrees(t *testing.T) {
	for _, h := range fixtures.HostileLayers() {
		b := fixtures.NewBlobs()
		img := load(t, b, fixtures.Root("", h.Image(b)))
		start := processorTime()
		tr, err := ReadTree(context.Background(), b, img, TreeOptions{})
		if took := processorTime() - start; took > 10*time.Second {
			t.Errorf("%s: took %v", h.Name, took)
		}
		if !fixtures.Matches(err, h.Want) {
			t.Errorf("%s: %v, want %q", h.Name, err, h.Want)
		}
		if err != nil {
			checkMessage(t, h.Name, err)
			continue
		}
		if err := tr.Walk(func(*Node) error { return nil }); err != nil {
			t.Errorf("%s: %v", h.Name, err)
		}
	}
}

func TestTreesShareLayers(t *testing.T) {
	b := fixtures.NewBlobs()
	base := fixtures.LayerSpec{Files: []fixtures.File{{Name: "etc/"}, {Name: "etc/passwd", Body: "root"}}}
	one := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{base, {Files: []fixtures.File{{Name: "a", Body: "1"}}}}})))
	two := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{base, {Files: []fixtures.File{{Name: "b", Body: "2"}}}}})))
	var fetched []string
	src := manifests.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		fetched = append(fetched, string(d.Digest))
		return b.Fetch(ctx, d)
	})
	trees, err := ReadTrees(context.Background(), []TreeImage{{src, one}, {src, two}}, TreeOptions{Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(fetched) != 3 {
		t.Errorf("%d layers read, want 3", len(fetched))
	}
	for i, name := range []string{"a", "b"} {
		if n := trees[i].Find(name); n == nil || n.Layer != 2 || n.Size != 1 || n.Digest != "" {
			t.Errorf("%s: %+v", name, n)
		}
		if trees[i].Find("etc/passwd") == nil || trees[i].Find([]string{"b", "a"}[i]) != nil {
			t.Errorf("tree %d is wrong", i)
		}
	}
}

func TestTreeHasABoundOnMemory(t *testing.T) {
	r := &treeReader{bounds: newTreeBounds(1000)}
	r.bounds.held.Store(1000 - treeCost - 1)
	e := &layertar.Entry{Name: "x", Kind: layertar.Dir}
	if _, err := r.record(e, nil); err != nil {
		t.Error(err)
	}
	_, err := r.record(e, nil)
	if bad, ok := errors.AsType[*layertar.Error](err); !ok || bad.Kind != layertar.Limit {
		t.Error(err)
	}
}

func TestPartsOfSparseFiles(t *testing.T) {
	p := &parts{gap: hole}
	block := make([]byte, hole)
	block[1] = 1
	for i := range 3 * maxParts {
		if i%2 == 0 {
			p.add(block)
		} else {
			p.add(zeros[:])
		}
	}
	if len(p.list) > maxParts {
		t.Errorf("%d parts", len(p.list))
	}
	if p.list[0].at != 0 || p.list[len(p.list)-1].end < int64(3*maxParts-2)*hole || !slices.IsSortedFunc(p.list, func(a, b extent) int { return int(a.end - b.at) }) {
		t.Errorf("wrong parts: %v", p.list[:3])
	}
}

// A hard link to a device of its own layer is one, whatever lies below.
func TestLinkToADeviceOverAFile(t *testing.T) {
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: []fixtures.File{
		{Name: "a", Body: "file"}, {Name: "b", Body: "file"}, {Name: "c"},
	}}, {Files: []fixtures.File{
		{Name: "chained", Type: '1', Link: "c"}, {Name: "a", Type: '3', Major: 1, Minor: 3}, {Name: "b", Type: '1', Link: "a"}, {Name: "d", Type: '1', Link: "b"},
	}}}})))
	dir := t.TempDir()
	if _, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{}); err != nil {
		t.Fatal(err)
	}
	tr := readTree(t, b, img)
	for _, name := range []string{"a", "b", "d"} {
		if _, err := os.Lstat(dir + "/rootfs/" + name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		if n := tr.Find(name); n == nil || n.Kind != layertar.Device || n.Major != 1 || n.First != "a" {
			t.Errorf("%s: %+v", name, n)
		}
	}
}

// TestDeepLowerLayersTakeLittleTime follows deep names through the layers
// below, among what hides some of them.
func TestDeepLowerLayersTakeLittleTime(t *testing.T) {
	if testing.Short() {
		t.Skip("measures, and the race detector takes many times as long")
	}
	deep := strings.Repeat("a/", 950)
	lower := []fixtures.File{{Name: deep + "f", Body: "x"}, {Name: deep + "s", Link: "."}, {Name: deep + "t", Link: "/" + strings.TrimSuffix(deep, "/")}}
	upper := []fixtures.File{{Name: deep + "deeper/f"}, {Name: strings.Repeat("a/", 100) + ".wh.gone"}, {Name: "link", Link: "a/a"}}
	for i := range 300 {
		upper = append(upper, fixtures.File{Name: fmt.Sprint("l", i), Type: '1', Link: deep + []string{"", "s/", "t/", "s/t/s/"}[i%4] + "f"})
	}
	for i := range 50 {
		upper = append(upper, fixtures.File{Name: fmt.Sprint("link/", deep[:1800], i, "/f")})
	}
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: lower}, {Files: upper}}})))
	dir := t.TempDir() + "/rootfs"
	defer removePath(dir)
	start := processorTime()
	res, err := WriteRootfs(context.Background(), b, img, dir, Options{})
	if err != nil || res.Files != 52 {
		t.Fatal(res, err)
	}
	t.Log("unpack", processorTime()-start)
	readTree(t, b, img)
	if took := processorTime() - start; took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

// Names of a thousand components cost no more than they are long.
func TestDeepTreesTakeLittleTime(t *testing.T) {
	if testing.Short() {
		t.Skip("measures, and the race detector takes many times as long")
	}
	deep := strings.Repeat("a/", 990)
	for _, lower := range []*lowerTree{nil, newLowerTree(newTreeBounds(0))} {
		s := newShaper(1, lower, newTreeBounds(0))
		var records []*record
		for i := range 2000 {
			name := fmt.Sprint(deep, i, "/f")
			records = append(records, &record{name: name, kind: layertar.File}, &record{name: name + "2", link: name, kind: layertar.Hardlink})
		}
		start := processorTime()
		if err := s.shape(records); err != nil {
			t.Fatal(err)
		}
		if took := processorTime() - start; took > 20*time.Second {
			t.Errorf("took %v", took)
		}
	}
}
