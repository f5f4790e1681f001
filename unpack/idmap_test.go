package unpack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

func TestParseIDMaps(t *testing.T) {
	good, err := ParseIDMaps([]string{"0:100000:65536", "65536:4294901759:65536"})
	if err != nil || len(good) != 2 || good[0] != (IDMap{0, 100000, 65536}) || good[1].String() != "65536:4294901759:65536" {
		t.Errorf("%v %v", good, err)
	}
	for _, bad := range [][]string{
		{""}, {"0:1"}, {"0:1:2:3"}, {"a:0:1"}, {"0:0:-1"}, {"0:0:0"}, {"0:4294967295:1"}, {"4294967295:0:1"},
		{"0:0:4294967296"}, {"1:0:4294967295"}, {"0: 1:1"}, {"+0:1:1"}, {"0:0x1:1"}, {"0:0:10", "9:100:1"}, {"0:0:10", "10:9:1"},
		{"100:0:10", "95:50:6"},
	} {
		var input *manifests.InputError
		if got, err := ParseIDMaps(bad); !errors.As(err, &input) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
	var many []string
	for i := range maxExtents + 1 {
		many = append(many, fmt.Sprintf("%d:%d:1", i, i))
	}
	if _, err := ParseIDMaps(many); err == nil {
		t.Error("more ranges than the kernel takes")
	}
}

// halves maps ids below 1000 elsewhere than those from there on.
var halves = IDs{
	UIDs: []IDMap{{0, 100000, 1000}, {1000, 500000, 70000}},
	GIDs: []IDMap{{1000, 700000, 70000}, {0, 300000, 1000}},
}

var (
	ownerInTree      = regexp.MustCompile(`^(\d+) (\d+):(\d+)`)
	capabilityInTree = regexp.MustCompile(` security\.capability="[^ ]*`)
)

// remap is a listing as a map of ids would make it.
func remap(t *testing.T, plain map[string]string, ids *IDs) map[string]string {
	out := map[string]string{}
	for name, line := range plain {
		m := ownerInTree.FindStringSubmatch(line)
		uid, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		gid, err := strconv.ParseUint(m[3], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(m[1], "20000") { // a whiteout, which is nobody's
			out[name] = line
			continue
		}
		u, g, err := ids.outside(uint32(uid), uint32(gid))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = fmt.Sprintf("%s %d:%d%s", m[1], u, g, line[len(m[0]):])
	}
	return noCapabilities(out)
}

func noCapabilities(listing map[string]string) map[string]string {
	for name, line := range listing {
		listing[name] = capabilityInTree.ReplaceAllString(line, "")
	}
	return listing
}

// TestIDsMapOwners compares mapped trees with plain ones whose owners are
// mapped on paper, for each shape.
func TestIDsMapOwners(t *testing.T) {
	rootOnly(t)
	ctx := context.Background()
	b := fixtures.NewBlobs()
	for i, root := range images(t, b) {
		what := fmt.Sprintf("image %d, %s", i, root.Display())
		img := load(t, b, root)
		dir := t.TempDir()
		if _, err := WriteRootfs(ctx, b, img, dir+"/plain", Options{}); err != nil {
			t.Fatal(err)
		}
		want := remap(t, tree(t, dir+"/plain"), &halves)
		if _, err := WriteRootfs(ctx, b, img, dir+"/rootfs", Options{IDs: halves}); err != nil {
			t.Fatal(err)
		}
		sameTree(t, what+": rootfs", want, noCapabilities(tree(t, dir+"/rootfs")))
		r, _, err := writeLayers(ctx, b, img, dir+"/layers", Options{IDs: halves})
		if err != nil {
			t.Fatal(err)
		}
		sameTree(t, what+": overlay", want, noCapabilities(mounted(t, r)))
	}
}

func TestIDsCapabilitiesAreOfTheirRoot(t *testing.T) {
	rootOnly(t)
	const v2 = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{
		Tar: fixtures.Tar(fixtures.File{Name: "ping", Xattrs: map[string]string{"security.capability": v2}}),
	}}})))
	dir := t.TempDir() + "/rootfs"
	if _, err := WriteRootfs(context.Background(), b, img, dir, Options{IDs: halves}); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 64)
	n, err := unix.Lgetxattr(dir+"/ping", "security.capability", value)
	if err != nil {
		t.Fatal(err)
	}
	if want := "\x01\x00\x00\x03" + v2[4:] + "\xa0\x86\x01\x00"; string(value[:n]) != want {
		t.Errorf("%q, want %q", value[:n], want)
	}
}

func TestIDsRefuseOwnersOutside(t *testing.T) {
	rootOnly(t)
	b := fixtures.NewBlobs()
	of := func(files ...fixtures.File) *manifests.Image {
		return load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Tar: fixtures.Tar(files...)}}})))
	}
	small := IDs{UIDs: []IDMap{{0, 100000, 10}}, GIDs: []IDMap{{0, 100000, 20}}}
	for want, img := range map[string]*manifests.Image{
		`file "etc/x": its user 10 is not in the id map`:   of(fixtures.File{Name: "etc/x", UID: 10}),
		`symlink "l": its group 4000 is not in the id map`: of(fixtures.File{Name: "l", Link: "x", GID: 4000}),
		`directory "d": its group 20 is not in the id map`: of(fixtures.File{Name: "d/", GID: 20}),
	} {
		dir := t.TempDir()
		for _, write := range []func() error{
			func() error {
				_, err := WriteRootfs(context.Background(), b, img, dir+"/out", Options{IDs: small})
				return err
			},
			func() error {
				_, _, err := writeLayers(context.Background(), b, img, dir+"/out", Options{IDs: small})
				return err
			},
		} {
			err := write()
			var unmapped *UnmappedError
			if !errors.As(err, &unmapped) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("%s is left", left[0].Name())
			}
		}
	}
	for _, ids := range []IDs{{UIDs: small.UIDs}, {UIDs: []IDMap{{1, 1, 10}}, GIDs: small.GIDs}} {
		var input *manifests.InputError
		if _, err := WriteRootfs(context.Background(), b, of(), t.TempDir()+"/out", Options{IDs: ids}); !errors.As(err, &input) {
			t.Errorf("%v: %v", ids, err)
		}
	}
}

// TestIDsLeaveTheStoreAlone holds shared layers to the owners of the image.
func TestIDsLeaveTheStoreAlone(t *testing.T) {
	rootOnly(t)
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Sample(b)[0])
	store := NewLayerStore(t.TempDir() + "/store")
	r, _, err := store.Unpack(context.Background(), b, img, Options{IDs: halves})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range r.Lower {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil && unix.Lstat(path, &st) == nil && st.Uid >= 100000 {
				t.Errorf("%s belongs to %d", path, st.Uid)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
