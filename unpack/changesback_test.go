package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// membersOf says all of a tar by name. Names of one file are told by the first
// of them; devices of several names count as several.
func membersOf(t testing.TB, raw []byte) map[string]string {
	t.Helper()
	list, links := map[string]string{}, map[string][]string{}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		if h.Typeflag == tar.TypeLink {
			if list[h.Linkname] == "" {
				t.Errorf("%s links to %s, which comes later", h.Name, h.Linkname)
			}
			list[h.Name] = list[h.Linkname]
			if links[h.Linkname] == nil {
				links[h.Linkname] = []string{h.Linkname}
			}
			links[h.Linkname] = append(links[h.Linkname], h.Name)
			continue
		}
		sum := sha256.New()
		n, err := io.Copy(sum, r)
		must(t, err)
		var attrs []string
		for name, value := range h.PAXRecords {
			if strings.HasPrefix(name, "SCHILY.xattr.") {
				attrs = append(attrs, fmt.Sprintf("%s=%q", name, value))
			}
		}
		slices.Sort(attrs)
		list[h.Name] = fmt.Sprintf("%c %o %d:%d %v %d,%d %q %d %x %v", h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.UTC(), h.Devmajor, h.Devminor, h.Linkname, n, sum.Sum(nil)[:4], attrs)
	}
	for _, names := range links {
		slices.Sort(names)
		for _, name := range names {
			if !strings.HasPrefix(list[name], "3") && !strings.HasPrefix(list[name], "4") {
				list[name] += " = " + names[0]
			}
		}
	}
	return list
}

// withOwners gives entries owners and attributes that not everybody can give.
func withOwners(g *rand.Rand, files []fixtures.File) []fixtures.File {
	files = slices.Clone(files)
	for i := range files {
		f := &files[i]
		if g.IntN(3) > 0 {
			f.UID, f.GID = g.IntN(3)*1000, g.IntN(3)
		}
		if f.Body != "" && g.IntN(2) == 0 {
			f.Body, f.Type, f.Major, f.Minor = "", "34"[g.IntN(2)], int64(g.IntN(20)), int64(g.IntN(300))
		} else if f.Link == "" && g.IntN(4) == 0 {
			f.Xattrs = map[string]string{layertar.Capability: plainCap, "user.x": fmt.Sprint(i)}
		}
	}
	return files
}

const plainCap = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// TestRootlessExportIsTheImage: what a container that wrote nothing sees is the
// image as its tars have it, devices and all, for root and for ordinary users.
func TestRootlessExportIsTheImage(t *testing.T) {
	g := rand.New(rand.NewPCG(8, 9))
	odd := [][]fixtures.File{oddFiles(), {{Name: "closed/in/g", Body: "y", Mode: 0o200, GID: 9}, {Name: ".wh.fifo"}, {Name: "char2", Type: tar.TypeLink, Link: "char"}}}
	if os.Geteuid() != 0 { // what is closed to its owner takes a user namespace, which is cmd's to enter
		for i := range odd {
			odd[i] = slices.DeleteFunc(odd[i], func(f fixtures.File) bool { return strings.HasPrefix(f.Name, "closed/") })
		}
	}
	cases := [][][]fixtures.File{odd}
	for range soaked(80) {
		data := make([]byte, 3*(3+g.IntN(8)))
		for i := range data {
			data[i] = byte(g.Uint32())
		}
		data[0] = 1
		var layers [][]fixtures.File
		for _, l := range withDevices(data) {
			layers = append(layers, withOwners(g, l))
		}
		cases = append(cases, layers)
	}
	compared, devices := 0, 0
	for i, layers := range cases {
		b := fixtures.NewBlobs()
		var spec fixtures.ImageSpec
		for _, l := range layers {
			spec.Layers = append(spec.Layers, fixtures.LayerSpec{Files: l, Compression: manifests.Uncompressed})
		}
		img := load(t, b, fixtures.Root("", b.Image(spec)))
		tr, err := ReadTree(context.Background(), b, img, TreeOptions{})
		if err != nil {
			continue
		}
		raw, _ := exported(t, tr)
		dir, err := os.MkdirTemp("", "imgpack-test-")
		must(t, err)
		store := NewLayerStore(dir + "/store")
		if _, _, err := store.Unpack(context.Background(), b, img, Options{}); err != nil {
			t.Fatalf("case %d: %v\n%s", i, err, show(layers))
		}
		var ids []digest.Digest
		for _, l := range img.Layers {
			ids = append(ids, l.DiffID)
		}
		ch, err := store.OpenChanges(context.Background(), ids, dir+"/upper", ChangesOptions{})
		must(t, err)
		var out bytes.Buffer
		if _, err := ch.WriteTar(context.Background(), &out, TarOptions{}); err != nil {
			t.Fatalf("case %d: %v\n%s", i, err, show(layers))
		}
		must(t, ch.Close(), removePath(dir))
		want, got := membersOf(t, raw), membersOf(t, out.Bytes())
		if want["./"] == "" {
			delete(got, "./")
		}
		sameTree(t, fmt.Sprintf("case %d", i), want, got)
		if t.Failed() {
			t.Fatal(show(layers))
		}
		compared++
		for _, line := range want {
			if line[0] == '3' || line[0] == '4' {
				devices++
			}
		}
	}
	t.Logf("%d of %d compared, %d devices", compared, len(cases), devices)
	if compared < len(cases)/6 || devices < 5 {
		t.Error("too few")
	}
}

// TestRootlessCopies gives what a container copied from the image, and did not
// write to, the attributes back that it could not have on disk.
func TestRootlessCopies(t *testing.T) {
	b := fixtures.NewBlobs()
	attrs := map[string]string{layertar.Capability: plainCap}
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: []fixtures.File{
		{Name: "same", Body: "x", Mode: 0o755, Xattrs: attrs}, {Name: "mode", Body: "x", Mode: 0o755, Xattrs: attrs}, {Name: "other", Body: "x", Mode: 0o755, Xattrs: attrs},
		{Name: "longer", Body: "x", Mode: 0o755, Xattrs: attrs}, {Name: "link", Type: tar.TypeLink, Link: "longer"},
		{Name: "again", Body: "x", Mode: 0o755, Xattrs: attrs}, {Name: "again", Body: "y", Mode: 0o755},
		{Name: "dir/f", Body: "x", Mode: 0o755, Xattrs: attrs}, {Name: "dir", Body: "y"}, {Name: "dir/"}, {Name: "dir/f", Body: "z"},
	}}}})))
	dir, err := os.MkdirTemp("", "imgpack-test-")
	must(t, err)
	defer removePath(dir)
	store := NewLayerStore(dir + "/store")
	r, _, err := store.Unpack(context.Background(), b, img, Options{})
	must(t, err)
	copied := func(name, body string, mode os.FileMode) {
		at := dir + "/upper/" + name
		must(t, os.WriteFile(at, []byte(body), mode), os.Chmod(at, mode))
		var st unix.Stat_t
		must(t, unix.Stat(r.Lower[len(r.Lower)-1]+"/"+name, &st), unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{st.Mtim, st.Mtim}, 0))
		value := make([]byte, 64)
		if n, err := unix.Getxattr(r.Lower[len(r.Lower)-1]+"/"+name, layertar.Capability, value); err == nil && body == "x" {
			must(t, unix.Setxattr(at, layertar.Capability, value[:n], 0))
		} else if !errors.Is(err, unix.ENODATA) && body == "x" {
			t.Fatal(err)
		}
	}
	must(t, os.Mkdir(dir+"/upper", 0o755))
	copied("same", "x", 0o755)
	copied("mode", "x", 0o700)
	copied("other", "y", 0o755)
	copied("longer", "xy", 0o755)
	ch, err := store.OpenChanges(context.Background(), []digest.Digest{img.Layers[0].DiffID}, dir+"/upper", ChangesOptions{})
	must(t, err)
	defer ch.Close()
	var layer, all bytes.Buffer
	_, err = ch.WriteLayer(context.Background(), &layer)
	must(t, err)
	_, err = ch.WriteTar(context.Background(), &all, TarOptions{})
	must(t, err)
	has := func(raw []byte) (yes, no string) {
		list := membersOf(t, raw)
		for _, name := range sortedKeys(list) {
			if strings.Contains(list[name], "SCHILY") {
				yes += " " + name
			} else if !strings.HasSuffix(name, "/") {
				no += " " + name
			}
		}
		return yes, no
	}
	if yes, no := has(layer.Bytes()); yes != " mode" || no != " longer other" {
		t.Errorf("the layer has capabilities of%s, none of%s", yes, no)
	}
	if yes, no := has(all.Bytes()); yes != " link mode same" || no != " again dir/f longer other" {
		t.Errorf("the tar has capabilities of%s, none of%s", yes, no)
	}
}
