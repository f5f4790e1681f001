package unpack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/layertar"
)

// What the names of a layer make this program look at is bounded for all of
// them together, and short ways are always free.
func TestLooksOfAllNamesAreBounded(t *testing.T) {
	deep := strings.Repeat("a/", 990)
	files := []fixtures.File{{Name: deep}}
	for i := range 300 {
		files = append(files, fixtures.File{Name: fmt.Sprint("s", i), Type: '2', Link: deep + strings.Repeat("../a/", 100)})
	}
	for i := range 2000 {
		files = append(files, fixtures.File{Name: fmt.Sprintf("s%d/%d", i%300, i)})
	}
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: files}}})))
	if _, err := ReadTree(context.Background(), b, img, TreeOptions{}); !errors.Is(err, error(errLongWay.Err)) {
		t.Error(err)
	}
	links := 0
	look := func(path string) (node, error) {
		if path == "lib" {
			links++
			return node{symlink, "usr/lib"}, nil
		}
		return node{kind: directory}, nil
	}
	var in search
	for range 100_000 {
		path, _, err := followFast("lib/x86_64-linux-gnu/perl/5.36/unicore/lib", &in, look, func(_, _ []string) int { return 0 })
		if err != nil || path != "usr/lib/x86_64-linux-gnu/perl/5.36/unicore/lib" {
			t.Fatal(path, err)
		}
	}
	if in.used.Load() > 0 || links != 100_000 {
		t.Error(in.used.Load(), links)
	}
}

// A name of a single entry may lead through a thousand directories.
func TestTreesCountWhatNamesLeadThrough(t *testing.T) {
	name := strings.Repeat("d/", 900) + "f"
	layer := fixtures.LayerSpec{Files: []fixtures.File{{Name: name}}}
	b := fixtures.NewBlobs()
	images := func(layers ...fixtures.LayerSpec) []TreeImage {
		return []TreeImage{{b, load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: layers})))}}
	}
	const all = 900*treeCost + 900*900 // with their names
	if _, err := ReadTrees(context.Background(), images(layer), TreeOptions{Memory: all - 900}); layertar.LimitPassed(err) != LimitMemory {
		t.Error(err)
	}
	again := layer
	again.Files = append(slices.Clone(layer.Files), fixtures.File{Name: "link", Type: '1', Link: "low"}) // taken twice
	low := fixtures.LayerSpec{Files: []fixtures.File{{Name: "low", Body: "x"}}}
	bounds := newTreeBounds(3 * all)
	img := images(low, layer, layer, layer, again, layer, again)[0]
	read, err := readLayers(context.Background(), []TreeImage{img}, TreeOptions{}, bounds)
	if err != nil {
		t.Fatal(err)
	}
	var layers [][]*record
	for _, l := range img.Image.Layers {
		layers = append(layers, read[l.DiffID])
	}
	before := bounds.held.Load()
	root, err := compose(context.Background(), img.Image, layers, bounds)
	if err != nil || root.at(name) == nil || root.at("link") == nil {
		t.Fatal(err)
	}
	if held := bounds.held.Load() - before; held < all-900 || held > all+900 {
		t.Errorf("%d bytes are held for directories that take %d", held, all)
	}
}

// A stack that grew says the same as one that is new, and asks lower layers once.
func TestStacksRememberWhatTheyFound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var dirs []string
	var metas []*layerMeta
	grown := newStack()
	defer grown.close()
	paths := []string{"."}
	for _, a := range []string{"a", "b", "c"} {
		paths = append(paths, a)
		for i := range 100 {
			paths = append(paths, fmt.Sprint(a, "/", i), fmt.Sprint(a, "/", i, "/x"))
		}
	}
	for range 24 {
		dir, m := randomLayer(t, r, paths)
		dirs, metas = append(dirs, dir), append(metas, m)
		if err := grown.push(dir, m); err != nil {
			t.Fatal(err)
		}
		fresh := newStack()
		for i, dir := range dirs {
			if err := fresh.push(dir, metas[i]); err != nil {
				t.Fatal(err)
			}
		}
		for _, path := range paths {
			if r.IntN(4) == 0 {
				continue
			}
			fresh.dirs = map[string]*found{}
			want, err := fresh.find(path)
			got, gerr := grown.find(path)
			if err != nil || gerr != nil || want.node != got.node || !reflect.DeepEqual(want.device, got.device) ||
				!slices.Equal(want.dirs, got.dirs) || !slices.Equal(want.all, got.all) || want.kind == symlink && want.layer != got.layer {
				t.Fatalf("%d layers: %s: %+v %v, want %+v %v", len(dirs), path, got, gerr, want, err)
			}
		}
		fresh.close()
	}
	learnt := 0
	for _, f := range grown.dirs {
		if f.in != nil && f.in.upTo > 0 {
			learnt++
		}
	}
	if learnt == 0 {
		t.Error("no names were looked through")
	}
	for i := range grown.layers {
		unix.Close(grown.layers[i].root)
		grown.layers[i].root = -1 // asking it is an error
	}
	top := t.TempDir()
	for path, f := range maps.Clone(grown.dirs) {
		if f.known == len(dirs) {
			continue
		}
		delete(grown.dirs, path)
	}
	if err := grown.push(top, &layerMeta{}); err != nil {
		t.Fatal(err)
	}
	for path := range maps.Clone(grown.dirs) {
		if _, err := grown.find(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// randomLayer makes some of the paths.
func randomLayer(t *testing.T, r *rand.Rand, paths []string) (string, *layerMeta) {
	dir, m := t.TempDir(), &layerMeta{}
	for _, path := range paths[1:] {
		st, err := os.Lstat(filepath.Join(dir, filepath.Dir(path)))
		if err != nil || !st.IsDir() || r.IntN(3) == 0 {
			continue
		}
		at := filepath.Join(dir, path)
		switch kind := r.IntN(40); {
		case kind == 0:
			err = os.WriteFile(at, nil, 0o600)
		case kind == 1:
			err = os.Symlink("x", at)
		case kind == 2:
			m.Devices = append(m.Devices, deviceNode{Path: rawPath(path), Major: 1})
		default:
			if err = os.Mkdir(at, 0o700); kind == 3 {
				m.Opaque = append(m.Opaque, rawPath(path))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir, m
}

// What insides drop is what lies inside, and nothing else is looked at.
func TestInsides(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	in, all := insides{}, pathSet{}
	for range 3000 {
		path := fmt.Sprint(r.IntN(4))
		for range r.IntN(4) {
			path += fmt.Sprint("/", r.IntN(4))
		}
		if r.IntN(8) > 0 {
			if !all[path] {
				all[path] = true
				in.add(path)
			}
			continue
		}
		in.drop(path, func(p string) {
			if !strings.HasPrefix(p, path+"/") {
				t.Fatalf("%s is not in %s", p, path)
			}
			delete(all, p)
		})
		for p := range all {
			if strings.HasPrefix(p, path+"/") {
				t.Fatalf("%s is still in %s", p, path)
			}
		}
	}
}

// Mount points, and what leads to them, are known by their directory.
func TestMountsAreFoundByDirectory(t *testing.T) {
	c := &Changes{}
	c.setMounts([]string{"/a/b/c", "/a/b", "/a/b/c", "a/d", "/", "/e"})
	want := insides{".": {"a", "e"}, "a": {"b", "d"}, "a/b": {"c"}}
	for dir, names := range c.leads {
		slices.Sort(names)
		c.leads[dir] = slices.Compact(names)
	}
	if !reflect.DeepEqual(c.leads, want) {
		t.Errorf("%v, want %v", c.leads, want)
	}
}

// A path is counted as it is recorded.
func TestRecordedPaths(t *testing.T) {
	for _, path := range []string{"usr/bin/env", strings.Repeat("\x01", 200), "a%b\"\\<>&", "\xff\xfe", "é中", "a\n\x7f", "\u2028"} {
		raw, err := json.Marshal(rawPath(path))
		if n := recorded(path); err != nil || n < len(raw)-2 || n > 2*len(raw) {
			t.Errorf("%q: %d, and is recorded in %d", path, n, len(raw))
		}
	}
	if n := recorded("usr/share/doc"); n != len("usr/share/doc") {
		t.Error(n)
	}
}

// Hard links to devices are held as devices are, and links that wait without
// what they do not need.
func TestLinksThatAreHeldAreCounted(t *testing.T) {
	files := []fixtures.File{{Name: "dev", Type: '3', Major: 1, Minor: 3}}
	for i := range 100 {
		files = append(files, fixtures.File{Name: fmt.Sprint(i), Type: '1', Link: "dev"})
	}
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: files}}})))
	_, err := WriteRootfs(context.Background(), b, img, t.TempDir()+"/rootfs", Options{Memory: 50 * rememberCost})
	if layertar.LimitPassed(err) != LimitMemory {
		t.Error(err)
	}
	x := newExtractor(-1, &budget{memory: 1000, dirs: 1})
	e := &layertar.Entry{Name: "a", Linkname: "b", Kind: layertar.Hardlink, Xattrs: []layertar.Xattr{{Name: "user.x", Value: "x"}}}
	if err := x.later(e, linkTry{}); err != nil || len(x.pending) != 1 || x.pending[0].Xattrs != nil {
		t.Error(err, x.pending)
	}
}

// The record that is written item by item is the one that package json writes.
func TestRecordsOfLayers(t *testing.T) {
	full := &layerMeta{
		Entries: 3, Implied: []rawPath{"a", "b\xff"}, Led: []rawPath{"c"}, Opaque: []rawPath{"d"}, Whiteouts: []rawPath{"e", "f"},
		Devices: []deviceNode{{Path: "g", Major: 1}}, Lost: []lostXattr{{Path: "h", Name: "user.x", Value: []byte{1}}},
		Owners: ownerMap{"i": "1:2", "%": "3:4"}, Skipped: []skipped{{"x", "y", "z"}}, Unlisted: 1, Fault: &layerFault{Path: "q", Why: "w"},
	}
	for _, m := range []*layerMeta{{}, full, {Owners: ownerMap{"a": "1:1"}}} {
		dir := t.TempDir()
		if err := m.save(dir); err != nil {
			t.Fatal(err)
		}
		var got, want any
		raw, err := os.ReadFile(dir + "/" + metaName)
		whole, werr := json.Marshal(m)
		if err := errors.Join(err, werr, json.Unmarshal(raw, &got), json.Unmarshal(whole, &want)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v\n%s\nwant\n%s", err, raw, whole)
		}
		if again, err := loadMeta(dir); err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%+v %v, want %+v", again, err, m)
		}
	}
}

// Owners go with what is removed, whatever removes it.
func TestOwnersOfWhatIsRemoved(t *testing.T) {
	f := &flattener{owners: map[rawPath]string{}, owned: insides{}}
	f.own(nil, map[rawPath]string{"a": "1:1", "a/b": "1:1", "a/b/c": "1:1", "ab": "1:1", "d": "1:1"})
	f.own(pathSet{"a/b": true, "d": true, "z": true}, map[rawPath]string{"a/b": "2:2"})
	if want := map[rawPath]string{"a": "1:1", "a/b": "2:2", "ab": "1:1"}; !maps.Equal(f.owners, want) {
		t.Errorf("%v, want %v", f.owners, want)
	}
	f.own(pathSet{"a": true}, nil)
	if want := map[rawPath]string{"ab": "1:1"}; !maps.Equal(f.owners, want) {
		t.Errorf("%v, want %v", f.owners, want)
	}
}

// Attributes of an entry are dropped or kept together.
func TestLostAttributesOfWhatIsReplaced(t *testing.T) {
	x := newExtractor(-1, &budget{memory: 1000, dirs: 1})
	x.cleared = map[string]int{"a": 5}
	for i, path := range []rawPath{"a/x", "b", "a/x", "a/y", "a"} {
		for _, name := range []rawPath{"user.1", "user.2"} {
			x.meta.Lost = append(x.meta.Lost, lostXattr{Path: path, Name: name, entry: 3 + i})
		}
	}
	x.dropLost()
	var got []string
	for _, l := range x.meta.Lost {
		got = append(got, fmt.Sprint(l.Path, " ", l.entry))
	}
	if want := "b 4 b 4 a/x 5 a/x 5 a/y 6 a/y 6 a 7 a 7"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
}
