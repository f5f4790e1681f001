//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestKilledChunkPack kills pack at random points: there is the old file or
// the new one, never a broken one, and the same line run again completes,
// with what the first had done or without, to the same bytes.
func TestKilledChunkPack(t *testing.T) {
	archives := dockerArchives(t, "base:v1", "api:v1", "redis:1")
	h := newHost(t)
	// Images of a registry bring blobs that are carried, which are taken over.
	sources := append(archives, pick(t, "api:v2"))
	pack := func(flags ...string) *exec.Cmd {
		return h.command(append(append([]string{"pack", "-o", "k.imgpack"}, flags...), sources...)...)
	}
	whole := duration(t, pack())
	want := fileSum(t, h.path("k.imgpack"))
	resumed := 0
	for i := range killPoints() {
		if err := os.Remove(h.path("k.imgpack")); err != nil {
			t.Fatal(err)
		}
		flags := []string{}
		if i%3 == 2 { // there is an old file that stays until the new one is whole
			flags = []string{"--force"}
			h.ok("pack", "-o", "k.imgpack", "--compress", "fast", archives[0])
		}
		old := ""
		if len(flags) > 0 {
			old = fileSum(t, h.path("k.imgpack"))
		}
		killAt(t, pack(flags...), somewhere(whole))
		if _, err := os.Stat(h.path("k.imgpack")); err == nil {
			if got := fileSum(t, h.path("k.imgpack")); got != want && got != old {
				t.Errorf("killed, and left a file that is neither old nor new: %s", h.run("verify", "k.imgpack").stdout)
			}
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if len(partials(t, h.dir)) > 0 {
			resumed++
		}
		if r := finish(t, pack("--force")); r.code != 0 {
			t.Fatalf("run again: exit %d\n%s", r.code, r.stderr)
		}
		if got := fileSum(t, h.path("k.imgpack")); got != want {
			t.Errorf("run again after being killed: %s, want %s", got, want)
		}
		if left := partials(t, h.dir); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	}
	if resumed == 0 {
		t.Error("no killed run left anything to go on from")
	}
}

// TestKilledChunkLoad kills load at random points: the store holds the images
// or it does not, and the next run completes.
func TestKilledChunkLoad(t *testing.T) {
	h := newHost(t)
	h.ok(append([]string{"pack", "-o", "k.imgpack"}, dockerArchives(t, "base:v1", "api:v1", "redis:1")...)...)
	killLoads(t, h, func() {})
}

// TestChunkFullDisk gives pack and load less space than they need: exit 7, the
// old file as it was, nothing imported.
func TestChunkFullDisk(t *testing.T) {
	need(t, "mount")
	h := newHost(t)
	archive := dockerArchives(t, "api:v1")[0]
	h.ok("pack", "-o", "good.imgpack", archive)
	for _, megabytes := range []int{1, 30, 150} { // nothing fits; the bundle's front; the bundle, but not what it is made by
		onSmallDisk(t, h, megabytes, func(small string) {
			old := bytes.Repeat([]byte("old file\n"), 100)
			if err := os.WriteFile(small+"/x.imgpack", old, 0o600); err != nil {
				t.Fatal(err)
			}
			h.fails(7, "pack", "--force", "--no-resume", "-o", "small/x.imgpack", archive)
			if got, err := os.ReadFile(small + "/x.imgpack"); err != nil || !bytes.Equal(got, old) {
				t.Errorf("%d MB: the old file is %d bytes, %v", megabytes, len(got), err)
			}
			h.fails(7, "--store", small+"/store", "load", "-i", "good.imgpack")
		})
	}
}

// part is a member of a bundle in chunk mode.
type part struct {
	member
	kind string // the member's name, or its media type's last word
}

// parts lists all members, and says what each blob is, by the manifest.
func parts(t *testing.T, path string) (all []part) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	kinds := map[string]string{}
	members := blobs(t, path)
	last := members[len(members)-1]
	var m struct {
		Config struct{ MediaType, Digest string }
		Layers []struct{ MediaType, Digest string }
	}
	if err := json.NewDecoder(io.NewSectionReader(f, last.offset, last.size)).Decode(&m); err != nil {
		t.Fatal(err)
	}
	for _, l := range append(m.Layers, m.Config) {
		word, _, _ := strings.Cut(strings.TrimPrefix(l.MediaType, "application/vnd.imgpack.bundle."), ".")
		kinds["blobs/"+strings.Replace(l.Digest, ":", "/", 1)] = word
	}
	kinds[last.name] = "manifest"
	size := fileSize(t, path)
	all = append(all, part{member{"README.imgpack.txt", 512, 100}, "README.imgpack.txt"}, part{member{"index.json", size - 1024 - 4096, 4096}, "index.json"})
	for _, b := range members {
		all = append(all, part{b, kinds[b.name]})
	}
	return all
}

// some keeps of each kind the first, the middle and the last, or all for the
// long form.
func some(all []part) (few []part) {
	if soak() {
		return all
	}
	kinds := map[string][]part{}
	for _, p := range all {
		kinds[p.kind] = append(kinds[p.kind], p)
	}
	for _, p := range all {
		of := kinds[p.kind]
		if slices.Contains([]part{of[0], of[len(of)/2], of[len(of)-1]}, p) {
			few = append(few, p)
		}
	}
	return few
}

// TestChunkDamaged damages members of every kind in every way: verify and load
// exit 1 and name the member, and nothing is imported.
func TestChunkDamaged(t *testing.T) {
	archives := dockerArchives(t, "api:v1", "api:v2")
	h, far := newHost(t), newHost(t)
	h.ok(append(append([]string{"pack", "--compress", "fast", "-o", "good.imgpack"}, archives...), pick(t, "tool:1"))...)
	good := h.path("good.imgpack")
	far.ok("load", dockerArchives(t, "redis:1")[0]) // the store is not empty
	listing := far.ok("images", "--json") + blobSums(t, far)
	all := parts(t, good)
	for _, kind := range []string{"blob", "segment", "recipes", "catalog", "manifest"} {
		if !slices.ContainsFunc(all, func(p part) bool { return p.kind == kind }) {
			t.Errorf("the bundle has no %s", kind)
		}
	}
	for _, p := range some(all) {
		for how, damage := range map[string]func(*os.File) error{
			"a bit flipped": func(f *os.File) error { return change(f, p.offset+p.size/2, 1, func(b []byte) { b[0] ^= 0x10 }) },
			"a page zeroed": func(f *os.File) error {
				n := min(p.size, 4096)
				return change(f, p.offset+(p.size-n)/2, n, func(b []byte) { clear(b) })
			},
			"cut in it": func(f *os.File) error { return f.Truncate(p.offset + p.size/2) },
		} {
			bad := damaged(t, h, good, damage)
			named := strings.TrimPrefix(p.name, "blobs/sha256/")
			named = named[:min(12, len(named))]
			if how == "cut in it" {
				named = "" // a file that is cut says so
			}
			refusesDamage(t, far, bad, p.kind+" with "+how, named, listing)
		}
	}
	swapped(t, h, far, good, all, listing)
}

// swapped puts one segment where another was: contents under a wrong name, and
// whole members in another order.
func swapped(t *testing.T, h, far *host, good string, all []part, listing string) {
	all = slices.DeleteFunc(slices.Clone(all), func(p part) bool { return p.kind != "segment" })
	if len(all) < 2 {
		t.Fatalf("%d segments", len(all))
	}
	a, b := all[0], all[1]
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	member := func(p part) []byte { return whole[p.offset-512 : p.offset+(p.size+511)/512*512] }
	end := b.offset - 512 + int64(len(member(b)))
	order := slices.Concat(whole[:a.offset-512], member(b), whole[a.offset-512+int64(len(member(a))):b.offset-512], member(a), whole[end:])
	bad := damaged(t, h, good, func(f *os.File) error { _, err := f.WriteAt(order, 0); return err })
	refusesDamage(t, far, bad, "two segments in another order", "", listing)

	n := min(a.size, b.size)
	bad = damaged(t, h, good, func(f *os.File) error {
		if _, err := f.WriteAt(whole[b.offset:b.offset+n], a.offset); err != nil {
			return err
		}
		_, err := f.WriteAt(whole[a.offset:a.offset+n], b.offset)
		return err
	})
	refusesDamage(t, far, bad, "the contents of two segments swapped", "", listing)
}

// change edits n bytes of f.
func change(f *os.File, at, n int64, edit func([]byte)) error {
	b := make([]byte, n)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	before := bytes.Clone(b)
	edit(b)
	if bytes.Equal(b, before) {
		b[0] ^= 1 // it was zero before
	}
	_, err := f.WriteAt(b, at)
	return err
}

func damaged(t *testing.T, h *host, good string, damage func(*os.File) error) string {
	t.Helper()
	bad := h.path("bad.imgpack")
	sh(t, "cp", good, bad)
	f, err := os.OpenFile(bad, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := damage(f); err != nil {
		t.Fatal(err)
	}
	return bad
}

func refusesDamage(t *testing.T, far *host, bad, what, named, listing string) {
	t.Helper()
	for _, args := range [][]string{{"verify", bad}, {"load", bad}, {"save", "-o", "out.tar", bad}} {
		r := far.run(args...)
		if r.code != 1 || !strings.Contains(r.stdout+r.stderr, named) {
			t.Errorf("%s: %s: exit %d, want 1 and %q named\n%s%s", what, args[0], r.code, named, r.stdout, r.stderr)
		}
	}
	if got := far.ok("images", "--json") + blobSums(t, far); got != listing {
		t.Errorf("%s: the store has changed:\n%s", what, got)
	}
	if _, err := os.Lstat(far.path("out.tar")); err == nil {
		t.Errorf("%s: out.tar was written", what)
	}
}
