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
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// container is an image that is mounted with a kept upper directory.
type container struct {
	t       testing.TB
	b       *fixtures.Blobs
	layers  []fixtures.LayerSpec
	store   *LayerStore
	img     *manifests.Image
	upper   string
	merged  string
	options ChangesOptions
}

// newContainer mounts the image of layers as package sandbox does.
func newContainer(t testing.TB, layers ...[]fixtures.File) *container {
	t.Helper()
	rootOnly(t)
	c := &container{t: t, b: fixtures.NewBlobs()}
	for _, files := range layers {
		c.layers = append(c.layers, fixtures.LayerSpec{Files: files})
	}
	c.img = load(t, c.b, fixtures.Root("", c.b.Image(fixtures.ImageSpec{Layers: c.layers})))
	dir, err := os.MkdirTemp("", "imgpack-test-")
	if err != nil {
		t.Fatal(err)
	}
	c.store = NewLayerStore(dir + "/store")
	r, _, err := c.store.Unpack(context.Background(), c.b, c.img, Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.upper, c.merged = dir+"/upper", dir+"/merged"
	for _, d := range []string{c.upper, dir + "/work", c.merged} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var top unix.Stat_t
	if err := errors.Join(unix.Stat(r.Lower[0], &top), unix.Chmod(c.upper, top.Mode&0o7777), unix.Chown(c.upper, int(top.Uid), int(top.Gid))); err != nil {
		t.Fatal(err)
	}
	data := "userxattr,redirect_dir=nofollow,metacopy=off,index=off,xino=off,lowerdir=" + strings.Join(r.Lower, ":") + ",upperdir=" + c.upper + ",workdir=" + dir + "/work"
	if err := unix.Mount("overlay", c.merged, "overlay", 0, data); err != nil {
		requirePeer(t, "cannot mount an overlay: "+err.Error())
	}
	t.Cleanup(func() {
		unix.Unmount(c.merged, unix.MNT_DETACH)
		removePath(dir)
	})
	return c
}

func (c *container) diffIDs() (ids []digest.Digest) {
	for _, l := range c.img.Layers {
		ids = append(ids, l.DiffID)
	}
	return ids
}

func (c *container) open() *Changes {
	c.t.Helper()
	ch, err := c.store.OpenChanges(context.Background(), c.diffIDs(), c.upper, c.options)
	if err != nil {
		c.t.Fatal(err)
	}
	return ch
}

// layer is the layer of what was changed.
func (c *container) layer() ([]byte, *LayerResult) {
	c.t.Helper()
	ch := c.open()
	defer ch.Close()
	var b bytes.Buffer
	res, err := ch.WriteLayer(context.Background(), &b)
	if err != nil {
		c.t.Fatal(err)
	}
	return b.Bytes(), res
}

// list is what List says, a line each.
func (c *container) list() string {
	c.t.Helper()
	ch := c.open()
	defer ch.Close()
	all, err := ch.List(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	var b strings.Builder
	for _, p := range all {
		fmt.Fprintf(&b, "%s /%s\n", p.Letter, p.Path)
	}
	return b.String()
}

// export is the tar of what the container sees.
func (c *container) export(paths ...string) []byte {
	c.t.Helper()
	ch := c.open()
	defer ch.Close()
	var b bytes.Buffer
	if _, err := ch.WriteTar(context.Background(), &b, TarOptions{Paths: paths}); err != nil {
		c.t.Fatal(err)
	}
	return b.Bytes()
}

// committed is the tree of the image with the layer on top.
func (c *container) committed(layer []byte) map[string]string {
	c.t.Helper()
	img := load(c.t, c.b, fixtures.Root("", c.b.Image(fixtures.ImageSpec{Layers: append(c.layers[:len(c.layers):len(c.layers)], fixtures.LayerSpec{Tar: layer})})))
	dir, err := os.MkdirTemp("", "imgpack-test-")
	if err != nil {
		c.t.Fatal(err)
	}
	defer removePath(dir)
	if _, err := WriteRootfs(context.Background(), c.b, img, dir+"/rootfs", Options{}); err != nil {
		c.t.Fatal(err)
	}
	return tree(c.t, dir+"/rootfs")
}

// check compares what the container sees with the image that is made of it.
func (c *container) check(what string) (layer []byte) {
	c.t.Helper()
	want := tree(c.t, c.merged)
	layer, _ = c.layer()
	plain := maps.Clone(want)
	maps.DeleteFunc(plain, func(_, line string) bool { return line[0] == '2' }) // devices are not unpacked
	sameTree(c.t, what, plain, c.committed(layer))
	if again, _ := c.layer(); !bytes.Equal(layer, again) {
		c.t.Errorf("%s: another layer the second time", what)
	}
	dir, err := os.MkdirTemp("", "imgpack-test-")
	if err != nil {
		c.t.Fatal(err)
	}
	defer removePath(dir)
	maps.DeleteFunc(want, func(_, line string) bool { return line[0] == '2' || line[0] == '6' && line[1] == '0' })
	sameTree(c.t, what+" exported", want, extracted(c.t, c.export(), dir+"/tar"))
	return layer
}

// entries lists the names of a tar.
func entries(t testing.TB, raw []byte) (names []string) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func baseFiles() []fixtures.File {
	return []fixtures.File{
		{Name: "./", Mode: 0o755}, {Name: "etc/"}, {Name: "etc/passwd", Body: "root:x:0:0\n"}, {Name: "etc/shadow", Body: "s", Mode: 0o640, GID: 42}, {Name: "etc/mtab", Link: "/proc/mounts"},
		{Name: "tmp/", Mode: 0o1777}, {Name: "var/"}, {Name: "var/cache/", UID: 7, GID: 8}, {Name: "var/cache/a", Body: "a"}, {Name: "var/cache/b", Body: "b"}, {Name: "var/cache/d/"}, {Name: "var/cache/d/e", Body: "e"},
		{Name: "srv/"}, {Name: "srv/data", Body: "data", UID: 999, GID: 999, Mode: 0o600}, {Name: "srv/old", Body: "old"}, {Name: "run/"}, {Name: "run/empty/"},
	}
}

func TestChangesAreTheLayer(t *testing.T) {
	c := newContainer(t, baseFiles(), []fixtures.File{{Name: "etc/"}, {Name: "etc/motd", Body: "hi"}, {Name: ".wh.run"}, {Name: "run/"}, {Name: "opt/x/y", Body: "implied"}})
	at := func(name string) string { return filepath.Join(c.merged, name) }
	must(t,
		os.WriteFile(at("etc/passwd"), []byte("root:x:0:0\nme:x:1:1\n"), 0o644),
		os.WriteFile(at("etc/new"), []byte("new"), 0o600), os.Chown(at("etc/new"), 5, 6),
		os.Remove(at("etc/motd")), os.RemoveAll(at("var/cache")), os.Mkdir(at("var/cache"), 0o700), os.WriteFile(at("var/cache/a"), []byte("a"), 0o644),
		os.Chmod(at("srv/data"), 0o400), os.Remove(at("srv/old")), os.Mkdir(at("srv/old"), 0o755), os.Symlink("data", at("srv/link")), os.Link(at("srv/data"), at("srv/hard")),
		os.Mkdir(at("tmp/d"), 0o755), unix.Mkfifo(at("tmp/fifo"), 0o622), unix.Mknod(at("tmp/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Setxattr(at("srv/data"), "user.note", []byte("n\x00"), 0),
	)
	for _, same := range []string{"etc/shadow", "opt/x/y"} { // opened for writing, and not written
		f, err := os.OpenFile(at(same), os.O_RDWR, 0)
		must(t, err, f.Close())
	}
	layer := c.check("layer")
	const want = "etc/ etc/.wh.motd etc/new etc/passwd srv/ srv/data srv/hard srv/link srv/old/ tmp/ tmp/d/ tmp/fifo tmp/null var/ var/cache/ var/cache/.wh..wh..opq var/cache/a"
	if got := strings.Join(entries(t, layer), " "); got != want {
		t.Errorf("the layer holds\n%s, want\n%s", got, want)
	}
	const diff = "C /etc\nD /etc/motd\nA /etc/new\nC /etc/passwd\nC /srv\nC /srv/data\nA /srv/hard\nA /srv/link\nC /srv/old\nC /tmp\nA /tmp/d\nA /tmp/fifo\nA /tmp/null\nC /var\nC /var/cache\nC /var/cache/a\nD /var/cache/b\nD /var/cache/d\n"
	if got := c.list(); got != diff {
		t.Errorf("it says\n%swant\n%s", got, diff)
	}
}

// TestMountPoints leaves out what was made to mount something.
func TestMountPoints(t *testing.T) {
	c := newContainer(t, baseFiles())
	at := func(name string) string { return filepath.Join(c.merged, name) }
	c.options.Mounts = []string{"/proc", "/etc/hosts", "/data/db/main", "/full", "/srv/new", "/tmp/in/vol", "/opt"}
	must(t,
		os.Mkdir(at("proc"), 0o755), os.WriteFile(at("etc/hosts"), nil, 0o644), os.MkdirAll(at("data/db/main"), 0o755), os.Mkdir(at("full"), 0o755), os.WriteFile(at("full/f"), nil, 0o644),
		os.Mkdir(at("srv/new"), 0o755), os.Remove(at("srv/old")), os.MkdirAll(at("tmp/in/vol"), 0o755), os.WriteFile(at("tmp/in/also"), nil, 0o644),
	)
	layer, _ := c.layer()
	if got, want := strings.Join(entries(t, layer), " "), "full/ full/f srv/ srv/.wh.old tmp/ tmp/in/ tmp/in/also"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := c.list(), "A /full\nA /full/f\nC /srv\nD /srv/old\nC /tmp\nA /tmp/in\nA /tmp/in/also\n"; got != want {
		t.Errorf("%swant\n%s", got, want)
	}
}

func TestNoChanges(t *testing.T) {
	c := newContainer(t, baseFiles())
	if _, err := os.ReadFile(c.merged + "/etc/passwd"); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(c.merged+"/srv/data", os.O_RDWR, 0)
	must(t, err, f.Close())
	layer, res := c.layer()
	if res.Entries != 0 || len(entries(t, layer)) != 0 || c.list() != "" {
		t.Errorf("%+v\n%s", res, c.list())
	}
	c.upper = "/nonexistent/upper"
	if _, res := c.layer(); res.Entries != 0 {
		t.Errorf("%+v", res)
	}
}

func TestChangesOfTheTop(t *testing.T) {
	c := newContainer(t, baseFiles())
	must(t, os.Chmod(c.merged, 0o711), os.Chown(c.merged, 3, 4))
	if got := strings.Join(entries(t, c.check("top")), " "); got != "./" {
		t.Error(got)
	}
}

func TestChangesKeepHoles(t *testing.T) {
	c := newContainer(t, baseFiles())
	f, err := os.Create(c.merged + "/sparse")
	must(t, err, f.Truncate(60<<20))
	_, err = f.WriteAt([]byte("middle"), 30<<20+5)
	must(t, err, f.Close(), os.WriteFile(c.merged+"/zeros", make([]byte, 1<<20), 0o644), os.Truncate(c.merged+"/etc/passwd", 1<<20))
	layer := c.check("holes")
	if len(layer) > 2<<20 {
		t.Errorf("%d bytes: the holes are written out", len(layer))
	}
	// A file that only a careless reader would take in whole.
	f, err = os.Create(c.merged + "/huge")
	must(t, err, f.Truncate(1<<43), f.Close())
	ch := c.open()
	defer ch.Close()
	start := processorTime()
	_, err = ch.WriteLayer(context.Background(), io.Discard)
	if !fixtures.Matches(err, manifests.KindLimit) || layertar.LimitPassed(err) == "" || processorTime()-start > 5*time.Second {
		t.Errorf("%v after %v", err, processorTime()-start)
	}
}

func TestChangesOfManyHoles(t *testing.T) {
	f, err := os.CreateTemp("", "imgpack-test-")
	must(t, err)
	defer os.Remove(f.Name())
	defer f.Close()
	want := make([]byte, 5<<20+77)
	for i := 0; i < len(want); i += 300_000 {
		copy(want[i:], "here")
		_, err := f.WriteAt([]byte("here"), int64(i))
		must(t, err)
	}
	must(t, f.Truncate(int64(len(want))))
	list, ok, err := findHoles(int(f.Fd()), int64(len(want)))
	if err != nil || !ok {
		t.Skip("the file system has no holes")
	}
	got := make([]byte, len(want))
	for _, e := range list {
		_, err := f.ReadAt(got[e.at:e.end], e.at)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("parts are missing")
	}
}

// TestChangesLeaveOut leaves out what no layer can have.
func TestChangesLeaveOut(t *testing.T) {
	c := newContainer(t, baseFiles())
	at := func(name string) string { return filepath.Join(c.merged, name) }
	must(t,
		unix.Mknod(at("run/socket"), unix.S_IFSOCK|0o600, 0), os.Remove(at("srv/old")), unix.Mknod(at("srv/old"), unix.S_IFSOCK|0o600, 0),
		os.WriteFile(at("etc/.wh.passwd"), nil, 0o644), os.MkdirAll(at("tmp/.wh..wh.plnk/in"), 0o755), os.WriteFile(at("tmp/.wh..wh.plnk/in/f"), nil, 0o644), os.WriteFile(at("\n"), nil, 0o644),
		os.WriteFile(at("tmp/.wh..wh..opq"), nil, 0o644), os.WriteFile(at("tmp/ok"), nil, 0o644),
	)
	layer, res := c.layer()
	var kinds []string
	for _, s := range res.Skipped {
		kinds = append(kinds, s.Kind+" "+s.Path)
	}
	if got, want := strings.Join(kinds, "|"), "name \n|name etc/.wh.passwd|socket run/socket|socket srv/old|name tmp/.wh..wh..opq|name tmp/.wh..wh.plnk"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := strings.Join(entries(t, layer), " "); got != "etc/ run/ srv/ srv/.wh.old tmp/ tmp/ok" {
		t.Error(got)
	}
	list := c.committed(layer)
	if list["etc/passwd"] == "" || list["srv/old"] != "" {
		t.Error("a name was taken for a whiteout, or a file has come back")
	}
}

// TestChangesOfHostileUpper reads trees that are to lead outside, or to last
// forever.
func TestChangesOfHostileUpper(t *testing.T) {
	dir, untouched := sentinel(t)
	c := newContainer(t, baseFiles())
	must(t,
		os.Symlink(dir, c.merged+"/out"), os.RemoveAll(c.merged+"/srv"), os.Symlink(dir, c.merged+"/srv"), os.Symlink("/proc/self/root", c.merged+"/tmp/root"),
		unix.Mkfifo(c.merged+"/tmp/fifo", 0o600), os.Mkdir(c.merged+"/tmp/\xff\xfe", 0o755), os.WriteFile(c.merged+"/tmp/\xff\xfe/%2e%2e", []byte("x"), 0o644),
	)
	for _, name := range entries(t, c.check("links")) {
		if strings.HasPrefix(name, "out/") || strings.HasPrefix(name, "srv/") {
			t.Error(name)
		}
	}
	untouched("links")
	// Deeper than any path.
	at, err := openDir(c.merged + "/tmp")
	must(t, err)
	for range 3000 {
		must(t, unix.Mkdirat(at, "dddd", 0o755))
		next, err := unix.Openat(at, "dddd", unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err, unix.Close(at))
		at = next
	}
	unix.Close(at)
	ch := c.open()
	defer ch.Close()
	if _, err := ch.WriteLayer(context.Background(), io.Discard); !fixtures.Matches(err, manifests.KindLimit) {
		t.Errorf("a deep tree: %v", err)
	}
	if _, err := ch.List(context.Background()); !fixtures.Matches(err, manifests.KindLimit) {
		t.Errorf("a deep tree: %v", err)
	}
}

func TestChangesLatest(t *testing.T) {
	var layers [2][]byte
	for i := range layers {
		c := newContainer(t, baseFiles())
		must(t, os.WriteFile(c.merged+"/etc/new", []byte("new"), 0o644), os.Remove(c.merged+"/srv/old"), os.Mkdir(c.merged+"/x", 0o755))
		c.options.Latest = time.Unix(1_700_000_000, 0)
		layers[i], _ = c.layer()
	}
	if !bytes.Equal(layers[0], layers[1]) {
		t.Error("the same changes are other layers")
	}
}

func TestChangesErrors(t *testing.T) {
	c := newContainer(t, baseFiles())
	must(t, os.WriteFile(c.merged+"/new", bytes.Repeat([]byte("x"), 1<<20), 0o644))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ch := c.open()
	defer ch.Close()
	if _, err := ch.WriteLayer(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := ch.WriteLayer(context.Background(), &failingWriter{100}); err != unix.ENOSPC {
		t.Errorf("a full disk: %v", err)
	}
	if _, err := ch.WriteTar(context.Background(), &failingWriter{100}, TarOptions{}); err != unix.ENOSPC {
		t.Errorf("a full disk: %v", err)
	}
	if _, ok := errors.AsType[*manifests.NotFoundError](second(ch.WriteTar(context.Background(), io.Discard, TarOptions{Paths: []string{"/nothing"}}))); !ok {
		t.Error("a path that is not there is exported")
	}
	must(t, os.Mkdir(c.upper+"/redirected", 0o755), unix.Setxattr(c.upper+"/redirected", "user.overlay.redirect", []byte("/etc"), 0))
	if _, ok := errors.AsType[*manifests.UnsupportedError](second(ch.WriteLayer(context.Background(), io.Discard))); !ok {
		t.Error("a redirect is taken for a directory")
	}
	must(t, os.Remove(c.upper+"/redirected"))
	c.options.Limits.Entries = 1
	limited := c.open()
	defer limited.Close()
	must(t, os.Mkdir(c.merged+"/more", 0o755))
	if _, err := limited.WriteLayer(context.Background(), io.Discard); layertar.LimitPassed(err) != layertar.LimitEntries {
		t.Errorf("too many entries: %v", err)
	}
	if _, err := c.store.OpenChanges(context.Background(), []digest.Digest{digest.FromString("x")}, c.upper, ChangesOptions{}); !fixtures.Matches(err, manifests.KindMissing) {
		t.Errorf("layers that are not there: %v", err)
	}
}

func second[A, B any](_ A, b B) B { return b }

// TestRandomChanges makes changes by chance and compares what is seen in the
// container with the image that is made of it.
func TestRandomChanges(t *testing.T) {
	for seed := range uint64(40) {
		g := rand.New(rand.NewPCG(seed, 7))
		data := make([]byte, 60)
		for i := range data {
			data[i] = byte(g.Uint32())
		}
		layers := decode(data)
		if _, why := flattened(layers, "0:0"); why != "" {
			layers = [][]fixtures.File{baseFiles()}
		}
		c := newContainer(t, layers...)
		var done []string
		for i := range 1 + g.IntN(25) {
			done = append(done, c.randomOp(g, i))
		}
		c.check(fmt.Sprintf("seed %d", seed))
		if t.Failed() {
			t.Fatalf("layers %s\n%s", show(layers), strings.Join(done, "\n"))
		}
	}
}

// randomOp does something that may fail.
func (c *container) randomOp(g *rand.Rand, i int) string {
	paths := []string{"a", "b", "c", "a/a", "a/b", "b/a", "a/b/c", "b/a/c", "c/b", "s", "etc/passwd", "var/cache", "var/cache/a", "srv/data", "srv", "n", "n/m", "n/m/o"}
	p, q := paths[g.IntN(len(paths))], paths[g.IntN(len(paths))]
	from, to := filepath.Join(c.merged, p), filepath.Join(c.merged, q)
	for _, path := range []string{from, to} {
		real, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil || !strings.HasPrefix(real, c.merged) {
			return "nothing"
		}
		if st, err := os.Stat(real); err != nil || !st.IsDir() {
			return "nothing"
		}
	}
	when := []unix.Timespec{{Sec: int64(i), Nsec: 7}, {Sec: int64(1e6 + i), Nsec: int64(g.IntN(1e9))}}
	ops := map[string]func() error{
		"write": func() error { return writeNoFollow(from, fmt.Sprint("body ", i)) }, "mkdir": func() error { return os.Mkdir(from, 0o750) }, "remove": func() error { return os.RemoveAll(from) },
		"again": func() error { return errors.Join(os.RemoveAll(from), os.Mkdir(from, 0o700)) }, "rename " + q: func() error { return os.Rename(from, to) }, "link " + q: func() error { return unix.Link(from, to) },
		"symlink": func() error { return os.Symlink(q, from) }, "chmod": func() error { return unix.Fchmodat(unix.AT_FDCWD, from, 0o511, unix.AT_SYMLINK_NOFOLLOW) }, "chown": func() error { return os.Lchown(from, i, 9) },
		"time": func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, from, when, unix.AT_SYMLINK_NOFOLLOW) }, "fifo": func() error { return unix.Mkfifo(from, 0o600) },
		"xattr": func() error { return unix.Lsetxattr(from, "user.x", []byte(fmt.Sprint(i)), 0) }, "touch": func() error { return unix.Access(from, unix.R_OK) },
		"open": func() error {
			fd, err := unix.Open(from, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		},
	}
	names := sortedKeys(ops)
	name := names[g.IntN(len(names))]
	return fmt.Sprintf("%s %s: %v", name, p, ops[name]())
}

func sortedKeys[V any](m map[string]V) (out []string) {
	s := pathSet{}
	for k := range m {
		s[k] = true
	}
	for _, k := range s.sorted() {
		out = append(out, string(k))
	}
	return out
}

func writeNoFollow(path, body string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(body))
	return errors.Join(err, unix.Close(fd))
}

// TestRootlessChanges gives owners back that an ordinary user's files could not
// have, and reads what is closed to their owner.
func TestRootlessChanges(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("TestOrdinaryUser runs it")
	}
	b := fixtures.NewBlobs()
	files := append(baseFiles(), fixtures.File{Name: "srv/hard", Type: tar.TypeLink, Link: "srv/data"}, fixtures.File{Name: "var/cache/closed/", Mode: 0o700, UID: 5, GID: 6})
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: files}}})))
	dir, err := os.MkdirTemp("", "imgpack-test-")
	must(t, err)
	defer removePath(dir)
	store := NewLayerStore(dir + "/store")
	if _, _, err := store.Unpack(context.Background(), b, img, Options{}); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return dir + "/upper/" + name }
	must(t,
		os.MkdirAll(at("srv"), 0o755), os.WriteFile(at("srv/data"), []byte("changed"), 0o600), os.WriteFile(at("srv/hard"), []byte("also"), 0o600), os.WriteFile(at("srv/new"), []byte("new"), 0o600), unix.Mknod(at("srv/old"), unix.S_IFCHR, 0),
		os.MkdirAll(at("var/cache/closed"), 0o700), os.WriteFile(at("var/cache/closed/f"), []byte("f"), 0o600), unix.Setxattr(at("var/cache"), markOpaque, []byte("y"), 0),
		os.Chmod(at("var/cache/closed/f"), 0), os.Chmod(at("var/cache/closed"), 0), os.Mkdir(at("etc"), 0o755), os.Symlink("x", at("etc/shadow")),
	)
	ch, err := store.OpenChanges(context.Background(), []digest.Digest{img.Layers[0].DiffID}, dir+"/upper", ChangesOptions{})
	must(t, err)
	defer ch.Close()
	var raw bytes.Buffer
	if _, err := ch.WriteLayer(context.Background(), &raw); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(&raw); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		got = append(got, fmt.Sprintf("%s %o %d:%d", h.Name, h.Mode, h.Uid, h.Gid))
	}
	want := "etc/ 755 0:0|etc/shadow 777 0:0|srv/ 755 0:0|srv/data 600 999:999|srv/hard 600 999:999|srv/new 600 0:0|srv/.wh.old 0 0:0|" +
		"var/ 700 0:0|var/cache/ 700 7:8|var/cache/.wh..wh..opq 0 0:0|var/cache/closed/ 0 5:6|var/cache/closed/f 0 0:0"
	if strings.Join(got, "|") != want {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "|"), want)
	}
	var st unix.Stat_t
	if err := unix.Stat(at("var/cache/closed"), &st); err != nil || st.Mode&0o777 != 0 {
		t.Errorf("the mode of a directory is another now: %o %v", st.Mode, err)
	}
}
