//go:build integration

package integration

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// crashPoints is how often each way of unpacking is broken off in each manner.
const crashPoints = 50

// crashImage has all that takes more than one step to unpack: several layers,
// closed directories, what is hidden, implied directories, and hard links to a
// layer below. It compresses to next to nothing, so that want of space is met on
// the way and not foreseen. Beside it, at the same path and "-more", are three that
// have some of its layers.
func crashImage(t testing.TB, h *host) string {
	t.Helper()
	b := fixtures.NewBlobs()
	var spec fixtures.ImageSpec
	for l := range 3 {
		var files []fixtures.File
		for d := range 12 {
			dir := fmt.Sprintf("l%d/d%d/", l, d)
			files = append(files, fixtures.File{Name: dir, Mode: 0o555})
			for f := range 15 {
				files = append(files, fixtures.File{Name: fmt.Sprint(dir, f), Body: strings.Repeat("x", 1000*f), UID: f})
			}
		}
		if l > 0 {
			files = append(files, fixtures.File{Name: fmt.Sprintf("l%d/.wh.d1", l-1)}, fixtures.File{Name: fmt.Sprintf("l%d/d2/.wh..wh..opq", l-1)},
				fixtures.File{Name: fmt.Sprintf("l%d/d3/new", l-1), Body: "new"})
		}
		if l == 2 {
			files = append(files, fixtures.File{Name: "link", Type: '1', Link: "l0/d5/7"})
		}
		spec.Layers = append(spec.Layers, fixtures.LayerSpec{Files: files, Compression: []manifests.Compression{manifests.Gzip, manifests.Zstd, manifests.Gzip}[l]})
	}
	if err := b.SaveLayout(h.path("img"), fixtures.Root("crash:1", b.Image(spec))); err != nil {
		t.Fatal(err)
	}
	var more []manifests.Root
	for i := range 3 {
		own := fixtures.LayerSpec{Files: []fixtures.File{{Name: fmt.Sprintf("own%d", i), Body: strings.Repeat("own", 10_000)}, {Name: "link", Type: '1', Link: "l0/d5/8"}}}
		layers := append(slices.Clone(spec.Layers[:i+1]), own)
		more = append(more, fixtures.Root(fmt.Sprint("more:", i), b.Image(fixtures.ImageSpec{Layers: layers})))
	}
	if err := b.SaveLayout(h.path("img-more"), more...); err != nil {
		t.Fatal(err)
	}
	return "oci:../img"
}

// crashWay is a way of unpacking in a small file system of its own.
type crashWay struct {
	name string
	args func(image string) []string
	code int    // of success
	made string // what appears, whole or not at all; of a store, each part of it
}

var crashWays = []crashWay{
	{"rootfs", func(image string) []string { return []string{"unpack", "--as", "rootfs", image, "out"} }, 0, "out"},
	{"layers", func(image string) []string { return []string{"unpack", "--as", "layers", image, "out"} }, 0, "out"},
	{"several", func(image string) []string {
		return []string{"unpack", "--as", "layers", image, image + "-more", "out"}
	}, 0, "out"},
	{"runtime", func(image string) []string { return []string{"unpack", "--as", "runtime", image, "out"} }, 0, "out"},
	{"run", func(image string) []string { return []string{"run", "--store", "own", image, "/none"} }, 127, ""},
}

// crashSite is a way of unpacking, and what it makes when nothing happens.
type crashSite struct {
	*host
	way  crashWay
	disk string
	args []string
	want map[string]string
	took time.Duration
}

func newCrashSite(t *testing.T, way crashWay) *crashSite {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	h := newHost(t)
	s := &crashSite{host: h, way: way, disk: h.path("disk"), args: way.args(crashImage(t, h))}
	if err := os.Mkdir(s.disk, 0o755); err != nil {
		t.Fatal(err)
	}
	s.mount(t, "")
	t.Cleanup(func() { unix.Unmount(s.disk, unix.MNT_DETACH) })
	for range 2 {
		s.wipe()
		start := time.Now()
		s.again(t, "undisturbed")
		s.took = time.Since(start)
	}
	s.want = s.made(t)
	s.wipe()
	return s
}

// mount gives the site a file system of its own, or changes its bounds.
func (s *crashSite) mount(t *testing.T, bounds string) {
	t.Helper()
	var flags uintptr
	if bounds == "" {
		bounds = "size=64m,nr_inodes=100000"
	}
	if s.want != nil {
		flags = unix.MS_REMOUNT
	}
	if err := unix.Mount("tmpfs", s.disk, "tmpfs", flags, bounds); err != nil {
		t.Fatalf("mount a tmpfs of %s: %v", bounds, err)
	}
}

func (s *crashSite) wipe() {
	left, _ := os.ReadDir(s.disk)
	for _, e := range left {
		removeAll(filepath.Join(s.disk, e.Name()))
	}
}

// again unpacks to the end.
func (s *crashSite) again(t *testing.T, what string) {
	t.Helper()
	cmd := s.command(s.args...)
	cmd.Dir = s.disk
	if r := finish(t, cmd); r.code != s.way.code {
		t.Fatalf("%s: exit %d: %s", what, r.code, r.stderr)
	}
}

// made lists what is there to be used: of a store its layers and images.
func (s *crashSite) made(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	if s.way.made != "" {
		if _, err := os.Lstat(filepath.Join(s.disk, s.way.made)); err != nil {
			return all
		}
		all = listing(t, filepath.Join(s.disk, s.way.made))
	}
	for _, kind := range []string{"layers", "chained", "images"} {
		for _, dir := range must(filepath.Glob(filepath.Join(s.disk, "own", "unpacked", kind, "*", "*"))) {
			for name, text := range listing(t, dir) {
				all[strings.TrimPrefix(dir, s.disk)+name] = text
			}
		}
	}
	for name, text := range all {
		if s.way.name != "rootfs" && !strings.Contains(name, "/fs") && !strings.HasPrefix(name, "/rootfs/") { // our own files, of today
			all[name], _, _ = strings.Cut(text, " mtime")
		}
	}
	return all
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// whole holds what is there to what should be: all of it, or where a broken run
// left it nothing; of a store whole parts of it.
func (s *crashSite) whole(t *testing.T, what string, all bool) {
	t.Helper()
	got := s.made(t)
	if !all && len(got) == 0 {
		return
	}
	want := s.want
	if !all && s.way.made == "" {
		want = map[string]string{}
		for name, text := range s.want {
			part := strings.Join(strings.SplitN(name, "/", 7)[:6], "/") // /own/unpacked/KIND/ALGO/HEX
			if _, err := os.Lstat(s.disk + part); err == nil {
				want[name] = text
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != linkless(want[name], got[name]) {
			t.Fatalf("%s: %s\nwant %s\ngot  %s", what, name, want[name], got[name])
		}
	}
	for name := range got {
		if want[name] == "" {
			t.Fatalf("%s: %s is too much", what, name)
		}
	}
}

// linkless takes the number of links from the other text: a layer that is linked
// to by one that has not come to its place has more.
func linkless(text, other string) string {
	a, b := strings.Fields(text), strings.Fields(other)
	i, j := slices.Index(a, "links"), slices.Index(b, "links")
	if i >= 0 && j >= 0 {
		a[i+1] = b[j+1]
		return strings.Join(a, " ")
	}
	return text
}

// tidy checks that nothing is there but what should be.
func (s *crashSite) tidy(t *testing.T, what string) {
	t.Helper()
	for _, e := range must(os.ReadDir(s.disk)) {
		if e.Name() != "own" && e.Name() != s.way.made {
			t.Fatalf("%s: %s was left", what, e.Name())
		}
	}
	for _, tmp := range []string{"own/unpacked/tmp", "own/tmp"} {
		if left, _ := os.ReadDir(filepath.Join(s.disk, tmp)); len(left) > 0 {
			t.Fatalf("%s: %s was left in %s", what, left[0].Name(), tmp)
		}
	}
}

// TestUnpackKilled kills unpacking at points spread over its time; what is there
// is whole, and the next run makes the rest and cleans up.
func TestUnpackKilled(t *testing.T) {
	for _, way := range crashWays {
		t.Run(way.name, func(t *testing.T) {
			s := newCrashSite(t, way)
			killed := 0
			for i := range crashPoints {
				what := fmt.Sprintf("killed at point %d", i)
				cmd := s.command(s.args...)
				cmd.Dir = s.disk
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(s.took * time.Duration(i) / crashPoints)
				cmd.Process.Kill()
				if cmd.Wait(); cmd.ProcessState.ExitCode() < 0 {
					killed++
				}
				s.whole(t, what, false)
				if way.made == "" || len(s.made(t)) == 0 {
					s.again(t, what+", then again")
				}
				s.whole(t, what+", then again", true)
				s.tidy(t, what)
				s.wipe()
			}
			t.Logf("%d of %d were killed before they ended, within %v", killed, crashPoints, s.took)
		})
	}
}

// TestUnpackFullDisk unpacks where there is too little space, or too few inodes,
// for more and more of it.
func TestUnpackFullDisk(t *testing.T) {
	for _, way := range crashWays {
		t.Run(way.name, func(t *testing.T) {
			s := newCrashSite(t, way)
			s.again(t, "to measure")
			var st unix.Statfs_t
			if err := unix.Statfs(s.disk, &st); err != nil {
				t.Fatal(err)
			}
			pages, inodes := st.Blocks-st.Bfree, st.Files-st.Ffree
			s.wipe()
			full := 0
			for i := range uint64(crashPoints) {
				bounds := fmt.Sprintf("nr_blocks=%d,nr_inodes=100000", 2+pages*(i/2)/(crashPoints/2))
				if i%2 == 1 {
					bounds = fmt.Sprintf("size=64m,nr_inodes=%d", 3+inodes*(i/2)/(crashPoints/2))
				}
				s.mount(t, bounds)
				cmd := s.command(s.args...)
				cmd.Dir = s.disk
				r := finish(t, cmd)
				switch {
				case r.code == s.way.code:
				case r.code == 7, r.code == 125 && strings.Contains(r.stderr, "no space left"):
					full++
					if s.way.made != "" && len(s.made(t)) > 0 {
						t.Errorf("%s: something was made", bounds)
					}
					s.whole(t, bounds, false)
					s.tidy(t, bounds)
				default:
					t.Errorf("%s: exit %d: %s", bounds, r.code, r.stderr)
				}
				s.mount(t, "")
				if r.code != s.way.code {
					s.again(t, bounds+", then more")
				}
				s.whole(t, bounds+", then more", true)
				s.tidy(t, bounds)
				s.wipe()
			}
			t.Logf("%d of %d met a full disk", full, crashPoints)
			if full < crashPoints/2 {
				t.Error("too few")
			}
		})
	}
}
