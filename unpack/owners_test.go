package unpack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// ownedLayers are layers in which owners are replaced in every way, and what
// is left of them in each layer and in the merged tree.
var ownedLayers = []struct {
	files []fixtures.File
	want  map[rawPath]string
}{
	{[]fixtures.File{
		{Name: "kept", UID: 1, GID: 2}, {Name: "link", Type: '1', Link: "kept"},
		{Name: "again", UID: 3}, {Name: "again"},
		{Name: "other", UID: 3}, {Name: "other", UID: 4},
		{Name: "unlinked", UID: 3}, {Name: "name", Type: '1', Link: "unlinked"}, {Name: "unlinked"},
		{Name: "linked", UID: 3}, {Name: "zero"}, {Name: "linked", Type: '1', Link: "zero"},
		{Name: "file", UID: 3}, {Name: "file/"}, {Name: "file/in", UID: 5},
		{Name: "implied", UID: 3}, {Name: "implied", Link: "other"},
		{Name: "dir/", UID: 6}, {Name: "dir/a", UID: 7}, {Name: "dir/b", UID: 7}, {Name: "dir"}, {Name: "dir/"}, {Name: "dir/b"},
		{Name: "device", UID: 3}, {Name: "device", Type: '3', Major: 1, Minor: 3},
		{Name: "way", Link: "real"}, {Name: "real/"}, {Name: "way/in", UID: 8},
		{Name: "symlink", Link: "nowhere", UID: 9}, {Name: "pipe", Type: '6', GID: 9},
		{Name: "below/", UID: 1}, {Name: "below/hidden", UID: 1}, {Name: "below/kept", UID: 1}, {Name: "below/new", UID: 1}, {Name: "below/dir/in/f", UID: 1},
		{Name: "opaque/", UID: 1}, {Name: "opaque/f", UID: 1}, {Name: "100%", UID: 1}, {Name: "\xff%41", UID: 1},
	}, map[rawPath]string{
		"kept": "1:2", "link": "1:2", "other": "4:0", "name": "3:0", "file/in": "5:0", "real/in": "8:0", "symlink": "9:0", "pipe": "0:9",
		"below": "1:0", "below/hidden": "1:0", "below/kept": "1:0", "below/new": "1:0", "below/dir/in/f": "1:0", "opaque": "1:0", "opaque/f": "1:0", "100%": "1:0", "\xff%41": "1:0",
	}},
	{[]fixtures.File{
		{Name: "below/.wh.hidden"}, {Name: "below/new", UID: 2}, {Name: "below/dir"}, {Name: "opaque/.wh..wh..opq"}, {Name: "opaque/g", UID: 2},
		{Name: "kept"}, {Name: "lower", Type: '1', Link: "below/kept"}, {Name: "moved/", UID: 5}, {Name: "moved/in/f", UID: 6},
	}, map[rawPath]string{"below/new": "2:0", "opaque/g": "2:0", "lower": "1:0", "moved": "5:0", "moved/in/f": "6:0"}},
}

// ownersOfBoth are those of the merged tree.
var ownersOfBoth = map[rawPath]string{
	"link": "1:2", "other": "4:0", "name": "3:0", "file/in": "5:0", "real/in": "8:0", "symlink": "9:0", "pipe": "0:9",
	"below": "1:0", "below/kept": "1:0", "below/new": "2:0", "opaque": "1:0", "opaque/g": "2:0", "lower": "1:0", "100%": "1:0", "\xff%41": "1:0", "moved": "5:0", "moved/in/f": "6:0",
}

// MarshalJSON escapes the paths, which package json does not do where keys are
// strings. It undoes it, though.
func (m ownerMap) MarshalJSON() ([]byte, error) {
	all := make(map[string]string, len(m))
	for path, by := range m {
		text, err := path.MarshalText()
		if err != nil {
			return nil, err
		}
		all[string(text)] = by
	}
	return json.Marshal(all)
}

// ownersRecord is the file.
type ownersRecord struct {
	Kind   string        `json:"kind"`
	Image  digest.Digest `json:"image"`
	Owners ownerMap      `json:"owners"`
}

func ownedImage(t testing.TB, b *fixtures.Blobs) *manifests.Image {
	var spec fixtures.ImageSpec
	for _, l := range ownedLayers {
		spec.Layers = append(spec.Layers, fixtures.LayerSpec{Files: l.files})
	}
	return load(t, b, fixtures.Root("", b.Image(spec)))
}

// TestRootlessOwners holds for root too, who has none to record.
func TestRootlessOwners(t *testing.T) {
	b := fixtures.NewBlobs()
	img := ownedImage(t, b)
	dir := t.TempDir()
	root := os.Geteuid() == 0
	check := func(what, file string, got, want map[rawPath]string) {
		t.Helper()
		if root {
			want = nil
		}
		if (file != "") == root || len(got)+len(want) > 0 && !maps.Equal(got, want) {
			t.Errorf("%s in %q: %v\nwant %v", what, file, got, want)
		}
	}
	record := func(file string) map[rawPath]string {
		t.Helper()
		if file == "" {
			return nil
		}
		raw, err := os.ReadFile(file)
		var r ownersRecord
		if err == nil {
			err = json.Unmarshal(raw, &r)
		}
		if err != nil || r.Image != img.Descriptor.Digest || r.Kind != ownersKind {
			t.Errorf("%s: %v %+v", file, err, r)
		}
		return r.Owners
	}
	store := NewLayerStore(dir + "/store")
	defer removePath(store.dir)
	if _, _, err := store.Unpack(context.Background(), b, img, Options{}); err != nil {
		t.Fatal(err)
	}
	places := []string{placeOf("layers", img.Layers[0].DiffID), placeOf("chained", img.Layers[1].ChainID)}
	for i, l := range ownedLayers {
		m, err := loadMeta(filepath.Join(store.dir, places[i]))
		if err != nil {
			t.Fatal(err)
		}
		if root {
			l.want = nil
		}
		if len(m.Owners)+len(l.want) > 0 && !maps.Equal(m.Owners, l.want) {
			t.Errorf("layer %d: %v\nwant %v", i+1, m.Owners, l.want)
		}
	}
	res, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{})
	if err != nil {
		t.Fatal(err)
	}
	check("rootfs", res.OwnersFile, record(res.OwnersFile), ownersOfBoth)
	if !root && res.OwnersFile != dir+"/rootfs.owners.json" {
		t.Error(res.OwnersFile)
	}
	if res, err = WriteRuntime(context.Background(), b, img, dir+"/bundle", Options{}); err != nil {
		t.Fatal(err)
	}
	check("bundle", res.OwnersFile, record(res.OwnersFile), ownersOfBoth)
	if !root && res.OwnersFile != dir+"/bundle/owners.json" {
		t.Error(res.OwnersFile)
	}
}

// TestRootlessOwnersBeside: what lies beside a tree is its own record, or none;
// nobody else's file is replaced.
func TestRootlessOwnersBeside(t *testing.T) {
	b := fixtures.NewBlobs()
	owned := ownedImage(t, b)
	plain := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: []fixtures.File{{Name: "f"}}}}})))
	dir := t.TempDir() + "/rootfs"
	write := func(img *manifests.Image) error {
		t.Helper()
		_, err := WriteRootfs(context.Background(), b, img, dir, Options{})
		return err
	}
	stale := append(append([]byte{}, ownersBegin...), "\"image\": \"\"}\n"...)
	for _, img := range []*manifests.Image{owned, plain} { // a record of a tree that was there before
		if err := os.WriteFile(dir+ownersSuffix, stale, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := write(img); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(dir + ownersSuffix)
		if none := img == plain || os.Geteuid() == 0; none != errors.Is(err, fs.ErrNotExist) || string(raw) == string(stale) {
			t.Errorf("%v %s", err, raw)
		}
		if err := removePath(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, make := range []func() error{
		func() error { return os.WriteFile(dir+ownersSuffix, []byte("{}\n"), 0o600) },
		func() error { return os.Symlink("/etc/passwd", dir+ownersSuffix) },
		func() error { return os.Mkdir(dir+ownersSuffix, 0o700) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		err := write(owned)
		var conflict *manifests.ConflictError
		if !errors.As(err, &conflict) {
			t.Errorf("%v", err)
		}
		clean(t, "in the way", dir)
		if err := removePath(dir + ownersSuffix); err != nil {
			t.Fatal(err)
		}
	}
	// What cannot be moved to its place leaves no record.
	syncTree = func(int) error { return os.WriteFile(dir, nil, 0o600) }
	defer func() { syncTree = func(int) error { return nil } }()
	if err := write(owned); err == nil {
		t.Error("replaced a file")
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 1 {
		t.Error(left, err)
	}
}

func TestOwnersFile(t *testing.T) {
	f := &flattener{img: &manifests.Image{}, owners: map[rawPath]string{"a/b": "1:2", "\x1b\"<\u202e": "3:4", "%": "5:6", "z\xff": "7:8"}}
	f.img.Descriptor.Digest = digest.FromString("x")
	var got bytes.Buffer
	if err := f.writeOwners(&got); err != nil {
		t.Fatal(err)
	}
	want, err := json.MarshalIndent(ownersRecord{ownersKind, f.img.Descriptor.Digest, f.owners}, "", " ")
	if err != nil || got.String() != string(want)+"\n" || !bytes.HasPrefix(want, ownersBegin) {
		t.Errorf("%v\n%s\nwant\n%s", err, got.String(), want)
	}
}

// What a layer has this program remember is counted, whatever it is.
func TestBoundsOnMemory(t *testing.T) {
	s := setter{budget: &budget{memory: 2 * (ownerCost + 1)}, meta: &layerMeta{}}
	for _, path := range []string{"a", "b", "a"} {
		if err := s.squash(path, 1, 1); err != nil {
			t.Error(err)
		}
	}
	if err := s.squash("c", 1, 1); layertar.LimitPassed(err) != LimitMemory {
		t.Errorf("owners: %v", err)
	}
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: []fixtures.File{
		{Name: "d/", Xattrs: map[string]string{"user.x": strings.Repeat("x", 3000)}},
	}}}})))
	_, err := WriteRootfs(context.Background(), b, img, t.TempDir()+"/rootfs", Options{Memory: 3000})
	_, terr := ReadTree(context.Background(), b, img, TreeOptions{Memory: 3000})
	if layertar.LimitPassed(err) != LimitMemory || layertar.LimitPassed(terr) != LimitMemory {
		t.Errorf("attributes of directories: %v, %v", err, terr)
	}
}
