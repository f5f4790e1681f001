package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// exported is the tar of a tree.
func exported(t testing.TB, tr *Tree, paths ...string) ([]byte, *TarResult) {
	t.Helper()
	var b bytes.Buffer
	res, err := tr.WriteTar(context.Background(), &b, TarOptions{Paths: paths})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), res
}

// extracted is what GNU tar makes of a tar.
func extracted(t testing.TB, raw []byte, dir string) map[string]string {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "-xp", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--warning=no-timestamp", "-C", dir)
	cmd.Stdin = bytes.NewReader(raw)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	list := tree(t, dir)
	maps.DeleteFunc(list, func(_, line string) bool { return line[0] == '2' || line[0] == '6' && line[1] == '0' })
	return list
}

func TestTarIsWhatIsUnpacked(t *testing.T) {
	rootOnly(t)
	b := fixtures.NewBlobs()
	list := images(t, b)
	g := rand.New(rand.NewPCG(5, 6))
	for range 40 {
		data := make([]byte, 60)
		for i := range data {
			data[i] = byte(g.Uint32())
		}
		var spec fixtures.ImageSpec
		for _, l := range withDevices(data) {
			spec.Layers = append(spec.Layers, fixtures.LayerSpec{Files: append([]fixtures.File{}, l...)})
		}
		list = append(list, fixtures.Root("", b.Image(spec)))
	}
	for i, root := range list {
		what := fmt.Sprintf("image %d, %s", i, root.Display())
		img := load(t, b, root)
		dir := t.TempDir()
		if _, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{}); err != nil {
			continue
		}
		tr := readTree(t, b, img)
		raw, _ := exported(t, tr)
		if again, _ := exported(t, readTree(t, b, img)); !bytes.Equal(raw, again) {
			t.Errorf("%s: another tar the second time", what)
		}
		sameTree(t, what, tree(t, dir+"/rootfs"), extracted(t, raw, dir+"/tar"))
		// As a layer it means the same.
		one := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Tar: raw}}})))
		sameTree(t, what+" as a layer", listTree(t, tr), listTree(t, readTree(t, b, one)))
	}
}

// oddFiles are what tars find hard to say.
func oddFiles() []fixtures.File {
	long := strings.Repeat("long/", 60)
	return []fixtures.File{
		{Name: "./", Mode: 0o750, UID: 3, GID: 4},
		{Name: "closed/", Mode: 0o500, UID: 7}, {Name: "closed/in/", Mode: 0o111}, {Name: "closed/in/f", Body: "x", Mode: 0o400},
		{Name: "time", Body: "t", ModTime: time.Unix(1700000000, 123456789)}, {Name: "old", ModTime: time.Unix(-1000, 5)}, {Name: "new", ModTime: time.Unix(1<<33-1, 0)},
		{Name: long + "name", Body: "long"}, {Name: "to-long", Link: "../" + long + "name"}, {Name: "hard-to-long", Type: tar.TypeLink, Link: long + "name"},
		{Name: "bytes\xff\xfe", Body: "no text"}, {Name: "ünï/"}, {Name: "ünï/\n", Body: "newline"}, {Name: "-rf", Body: "flag"},
		{Name: "suid", Mode: 0o6755, UID: 1 << 30, GID: 1<<31 + 1, Body: "ids"}, {Name: "sticky/", Mode: 0o1777},
		{Name: "attrs", Body: "a", Xattrs: map[string]string{"user.a": "1\x002\n", "user.b": ""}},
		{Name: "attrs-dir/", Xattrs: map[string]string{"user.c": "3"}},
		{Name: "cap", Body: "c", Mode: 0o755, Xattrs: map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		{Name: "fifo", Type: tar.TypeFifo, Mode: 0o600}, {Name: "char", Type: tar.TypeChar, Major: 1, Minor: 3, Mode: 0o666}, {Name: "block", Type: tar.TypeBlock, Major: 7, Minor: 300},
		{Name: "link", Link: "/etc/passwd"}, {Name: "link2", Type: tar.TypeLink, Link: "link"}, {Name: "empty"}, {Name: "empty2", Type: tar.TypeLink, Link: "empty"},
	}
}

func TestTarSaysAll(t *testing.T) {
	rootOnly(t)
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: oddFiles()}}})))
	dir := t.TempDir()
	if _, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{}); err != nil {
		t.Fatal(err)
	}
	raw, res := exported(t, readTree(t, b, img))
	sameTree(t, "tar", tree(t, dir+"/rootfs"), extracted(t, raw, dir+"/tar"))
	for name, want := range map[string]string{"char": "21", "block": "60"} {
		var st unix.Stat_t
		if err := unix.Lstat(dir+"/tar/"+name, &st); err != nil || !strings.HasPrefix(fmt.Sprintf("%o", st.Mode), want[:1]) {
			t.Errorf("%s: %v %o", name, err, st.Mode)
		}
	}
	names := 0
	for r := tar.NewReader(bytes.NewReader(raw)); ; names++ {
		if _, err := r.Next(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if res.Entries != names {
		t.Errorf("%d entries told of, %d there", res.Entries, names)
	}
}

func TestTarKeepsHoles(t *testing.T) {
	rootOnly(t)
	var entries []fixtures.RawEntry
	entries = append(entries, fixtures.GNUSparse("old", 1<<20, strings.Repeat("x", 8192), [2]int64{0, 4096}, [2]int64{512 << 10, 4096}))
	entries = append(entries, fixtures.PAXSparse("new", 3<<20+5, strings.Repeat("y", 4096), [2]int64{1 << 20, 4096})...)
	entries = append(entries, fixtures.GNUSparse("hole", 1<<20, "", [2]int64{1 << 20, 0}))
	entries = append(entries, fixtures.RawEntry{Name: "after", Body: "plain"})
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Tar: fixtures.RawTar(entries...)}}})))
	dir := t.TempDir()
	if _, err := WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{}); err != nil {
		t.Fatal(err)
	}
	raw, _ := exported(t, readTree(t, b, img))
	if len(raw) > 64<<10 {
		t.Errorf("%d bytes: the holes are written out", len(raw))
	}
	sameTree(t, "tar", tree(t, dir+"/rootfs"), extracted(t, raw, dir+"/tar"))
	for _, name := range []string{"old", "new", "hole"} {
		var st unix.Stat_t
		if err := unix.Stat(dir+"/tar/"+name, &st); err != nil || st.Blocks > 64 {
			t.Errorf("%s: %v, %d blocks", name, err, st.Blocks)
		}
	}
	one := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Tar: raw}}})))
	sameTree(t, "as a layer", listTree(t, readTree(t, b, img)), listTree(t, readTree(t, b, one)))
}

func TestTarOfPaths(t *testing.T) {
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{
		{Files: []fixtures.File{
			{Name: "./"}, {Name: "usr/"}, {Name: "usr/bin/"}, {Name: "usr/bin/sh", Body: "sh"}, {Name: "bin", Link: "usr/bin"}, {Name: "usr/bin/dash", Type: tar.TypeLink, Link: "usr/bin/sh"},
			{Name: "etc/"}, {Name: "etc/a.conf", Body: "a"}, {Name: "etc/d/"}, {Name: "etc/d/b.conf", Body: "b"}, {Name: "etc/d/[x]", Body: "b"},
		}},
	}})))
	tr := readTree(t, b, img)
	for pattern, want := range map[string]string{
		"/etc/*.conf": "etc/a.conf", "**/*.conf": "etc/a.conf etc/d/b.conf", "/etc/**/*.conf": "etc/a.conf etc/d/b.conf", "etc/d": "etc/d/[x] etc/d/b.conf etc/d/",
		"/etc/d/": "etc/d/[x] etc/d/b.conf etc/d/", "/bin": "bin", "/bin/sh": "usr/bin/sh", "/usr/bin/dash": "usr/bin/dash", "/bin/*": "usr/bin/dash usr/bin/sh", `/etc/d/\[x\]`: "etc/d/[x]",
		"/etc/d/[[]x]": "etc/d/[x]", "/etc/[!d]*": "etc/a.conf", "/etc/[a-c]*": "etc/a.conf", "/etc/?": "etc/d/[x] etc/d/b.conf etc/d/", "/*": "bin etc/a.conf etc/d/[x] etc/d/b.conf usr/bin/dash usr/bin/sh usr/bin/ usr/ etc/d/ etc/",
	} {
		raw, _ := exported(t, tr, pattern)
		var got []string
		for r := tar.NewReader(bytes.NewReader(raw)); ; {
			h, err := r.Next()
			if err != nil {
				break
			}
			got = append(got, h.Name)
		}
		slices.SortFunc(got, func(a, b string) int { // dirs stay at the end
			if ad, bd := strings.HasSuffix(a, "/"), strings.HasSuffix(b, "/"); ad || bd {
				return 0
			}
			return strings.Compare(a, b)
		})
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %s, want %s", pattern, got, want)
		}
	}
	if whole, _ := exported(t, tr); !bytes.Equal(first(exported(t, tr, "/")), whole) || !bytes.Equal(first(exported(t, tr, "/**")), whole) {
		t.Error("/ and /** are not everything")
	}
	for _, pattern := range []string{"/nothing", "/etc/*.con"} {
		_, err := tr.WriteTar(context.Background(), io.Discard, TarOptions{Paths: []string{"/etc", pattern}})
		if _, ok := errors.AsType[*manifests.NotFoundError](err); !ok {
			t.Errorf("%s: %v", pattern, err)
		}
	}
	for _, pattern := range []string{"", `a\`, "[", "[]", "a[b", "[z-a]", "\xff"} {
		if err := CheckGlob(pattern); pattern != "" && err == nil || pattern == "" && err == nil {
			t.Errorf("%q is taken", pattern)
		}
	}
}

func first(raw []byte, _ *TarResult) []byte { return raw }

// failingWriter fails after some bytes.
type failingWriter struct{ left int }

func (f *failingWriter) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, unix.ENOSPC
	}
	return len(p), nil
}

func TestTarErrors(t *testing.T) {
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Sample(b)[0])
	tr := readTree(t, b, img)
	if _, err := tr.WriteTar(context.Background(), &failingWriter{100}, TarOptions{}); err != unix.ENOSPC {
		t.Errorf("a full disk: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := tr.WriteTar(ctx, io.Discard, TarOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	b.Corrupt(img.Layers[0].Blob.Digest, func(raw []byte) []byte {
		raw = slices.Clone(raw)
		raw[len(raw)/2] ^= 1
		return raw
	})
	if _, err := tr.WriteTar(context.Background(), io.Discard, TarOptions{}); !fixtures.Matches(err, manifests.KindDigest) {
		t.Errorf("a layer that changed: %v", err)
	}
}

// TestTarOfForgedLayers: a blob that has become another, of the same entries,
// between the two readings is told by its digest.
func TestTarOfForgedLayers(t *testing.T) {
	for _, c := range []manifests.Compression{manifests.Uncompressed, manifests.Gzip, manifests.Zstd} {
		b := fixtures.NewBlobs()
		image := func(body string) *manifests.Image {
			return load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: []fixtures.File{{Name: "f", Body: body}}, Compression: c}}})))
		}
		img, forged := image("true"), image("lies")
		tr := readTree(t, b, img)
		b.Corrupt(img.Layers[0].Blob.Digest, func([]byte) []byte { return b.Bytes(forged.Layers[0].Blob.Digest) })
		_, err := tr.WriteTar(context.Background(), io.Discard, TarOptions{})
		if !fixtures.Matches(err, manifests.KindDigest) && !fixtures.Matches(err, manifests.KindSize) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("/etc/**/*.conf", "etc/nginx/nginx.conf")
	f.Add(`[!a-z]\*?`, "x")
	f.Add("[]]", "]")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		g, err := parseGlob(pattern)
		if err == nil && g.match(path) && !g.match(path+"/below") && path != "." {
			t.Errorf("%q takes %q and not what is below", pattern, path)
		}
	})
}
