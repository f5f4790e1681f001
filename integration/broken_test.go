//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// jsonNumber digs a number out of a JSON document.
func jsonNumber(t testing.TB, text string, path ...string) int64 {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	n, ok := v.(float64)
	if !ok {
		t.Fatalf("no number at %v in %s", path, text)
	}
	return int64(n)
}

// killPoints is how often each command is killed.
func killPoints() int {
	if soak() {
		return 50
	}
	return 6
}

// someImages are a part of the corpus for what is done many times: images that
// share a layer, and one of each kind of compression; in the long form, all.
func someImages(t testing.TB) []string {
	t.Helper()
	if soak() {
		return corpus(t)
	}
	var refs []string
	for _, name := range []string{"base:v1", "api:v1", "apizstd:v2", "tool:1"} {
		if ref := pick(t, name); !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// killAt runs the command and kills it after d; it reports whether the command
// had ended by itself.
func killAt(t *testing.T, cmd *exec.Cmd, d time.Duration) (ended bool) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(d, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	return timer.Stop() && err == nil
}

// duration is how long the command takes undisturbed.
func duration(t *testing.T, cmd *exec.Cmd) time.Duration {
	t.Helper()
	began := time.Now()
	if r := finish(t, cmd); r.code != 0 {
		t.Fatalf("%s: exit %d\n%s", cmd, r.code, r.stderr)
	}
	return time.Since(began)
}

func somewhere(d time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(d) + 1)) }

// TestKilledPack kills pack at random points, half the time one that knows no
// recipes: there is no bundle or a whole one, and the next run completes.
func TestKilledPack(t *testing.T) {
	h := newHost(t)
	h.cold = true
	refs := []string{pick(t, "apizstd:v2"), pick(t, "tool:1")} // zstd and gzip
	if soak() {
		refs = corpus(t)
	}
	pack := func() *exec.Cmd { return h.command(append([]string{"pack", "-o", "k.imgpack"}, refs...)...) }
	cold := duration(t, pack())
	warm := duration(t, h.command(append([]string{"pack", "--force", "-o", "k.imgpack"}, refs...)...))
	for i := range killPoints() {
		os.Remove(h.path("k.imgpack"))
		whole := warm
		if i%2 == 0 {
			removeAll(h.path(".cache"))
			whole = cold
		}
		killAt(t, pack(), somewhere(whole))
		if _, err := os.Stat(h.path("k.imgpack")); err == nil {
			h.ok("verify", "k.imgpack")
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		h.ok(append([]string{"pack", "--force", "-o", "k.imgpack"}, refs...)...)
	}
	h.ok("verify", "k.imgpack")
	if left := partials(t, h.dir); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestKilledLoad kills load at random points: the store never lies, and the
// next run completes.
func TestKilledLoad(t *testing.T) {
	h := newHost(t)
	refs := someImages(t)
	h.ok(append([]string{"pack", "-o", "k.imgpack"}, refs...)...)
	killLoads(t, h, func() {
		if strings.Contains(h.ok("images", "--json"), "sha256:") {
			h.ok("verify", "store:"+refs[0])
		}
	})
}

// killLoads kills loads of k.imgpack at random points, checks the store after
// each, and loads again.
func killLoads(t *testing.T, h *host, check func()) {
	t.Helper()
	load := func() *exec.Cmd { return h.command("load", "-i", "k.imgpack") }
	whole := duration(t, load())
	want := h.ok("images", "--json")
	for range killPoints() {
		removeAll(h.store())
		killAt(t, load(), somewhere(whole))
		if before := h.ok("images", "--json"); before != want && strings.Contains(before, "sha256:") {
			t.Errorf("the store holds part of a load:\n%s", before)
		}
		check()
		h.ok("load", "-i", "k.imgpack")
		if after := h.ok("images", "--json"); after != want {
			t.Errorf("after the second run:\n%s\nwant\n%s", after, want)
		}
	}
	h.ok("gc")
	if left := files(t, filepath.Join(h.store(), "tmp")); len(left) > 1 {
		t.Errorf("left over: %v", left)
	}
}

// TestKilledPush kills push at random points: no tag may point at something
// incomplete, and the next run completes.
func TestKilledPush(t *testing.T) {
	need(t, "crane", "skopeo")
	h := newHost(t)
	refs := someImages(t)
	h.ok(append([]string{"pack", "-o", "k.imgpack"}, refs...)...)
	push := func(registry string) *exec.Cmd { return h.command("push", "--map", "strip", "k.imgpack", registry) }
	whole := duration(t, push(startRegistry(t)))
	for range killPoints() {
		registry := startRegistry(t)
		killAt(t, push(registry), somewhere(whole))
		for _, ref := range refs {
			_, name, _ := strings.Cut(ref, "/")
			if exec.Command("crane", "digest", "--insecure", registry+"/"+name).Run() == nil {
				skopeo(t, "copy", "-q", "--src-tls-verify=false", "docker://"+registry+"/"+name, "dir:"+h.path("pushed")) // checks every digest
				removeAll(h.path("pushed"))
			}
		}
		if r := finish(t, push(registry)); r.code != 0 {
			t.Fatalf("second run: exit %d\n%s", r.code, r.stderr)
		}
		for _, ref := range refs {
			_, name, _ := strings.Cut(ref, "/")
			if got := rawDigest(t, registry+"/"+name); got != rawDigest(t, ref) {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

// partials lists temporaries in dir.
func partials(t *testing.T, dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		if strings.Contains(e.Name(), "imgpack-partial") {
			left = append(left, e.Name())
		}
	}
	return left
}

// member is a blob's place in a bundle.
type member struct {
	name         string
	offset, size int64
}

func blobs(t *testing.T, path string) []member {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []member
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(h.Name, "blobs/") {
			all = append(all, member{h.Name, at, h.Size})
		}
	}
}

// TestDamaged flips one bit in every blob of a bundle in turn, and truncates
// it: load, push, unpack and run must refuse it, name the blob, and change
// nothing.
func TestDamaged(t *testing.T) {
	h := newHost(t)
	ref := pick(t, "api:v1")
	h.ok("pack", "-o", "good.imgpack", ref)
	registry := startRegistry(t)
	all := blobs(t, h.path("good.imgpack"))
	if len(all) < 4 {
		t.Fatalf("only %d blobs", len(all))
	}
	for i, m := range all {
		// A repository that has the blob already needs no copy of it.
		target := fmt.Sprintf("%s/try%d", registry, i)
		sh(t, "cp", h.path("good.imgpack"), h.path("bad.imgpack"))
		flip(t, h.path("bad.imgpack"), m.offset+m.size/2)
		hex := filepath.Base(m.name)
		commands := [][]string{{"verify"}, {"load", "-i"}, {"push", "--map", "strip"}, {"unpack"}, {"run"}}
		if i == len(all)-3 { // how layers were compressed, which nobody needs to know who unpacks them
			commands = commands[:3]
			h.ok("unpack", "bad.imgpack", "out")
			removeAll(h.store())
			removeAll(h.path("out"))
		}
		for _, args := range commands {
			args = append(args, "bad.imgpack")
			code := 1
			switch args[0] {
			case "run":
				code = 125 // as docker's, whatever keeps it from starting
			case "push":
				args = append(args, target)
			case "unpack":
				args = append(args, "out")
			}
			if text := h.fails(code, args...); !strings.Contains(text, hex[:12]) {
				t.Errorf("%s with %s damaged does not name it:\n%s", args[0], m.name, text)
			}
		}
		if got := h.ok("images", "-q"); got != "" {
			t.Errorf("%s damaged, and imported: %s", m.name, got)
		}
		if exec.Command("crane", "digest", "--insecure", target+"/api:v1").Run() == nil {
			t.Fatalf("%s damaged, and pushed", m.name)
		}
		if left := leftovers(t, h); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	}
	truncated(t, h)
}

func truncated(t *testing.T, h *host) {
	info, err := os.Stat(h.path("good.imgpack"))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{1, 511, 1024, info.Size() / 3, info.Size() / 2, info.Size() - 1024, info.Size() - 1} {
		sh(t, "cp", h.path("good.imgpack"), h.path("bad.imgpack"))
		if err := os.Truncate(h.path("bad.imgpack"), size); err != nil {
			t.Fatal(err)
		}
		r := h.run("load", "-i", "bad.imgpack")
		if r.code != 1 && (size > 1024 || r.code != 9) { // what is shorter than one header may be of any format
			t.Errorf("cut at %d of %d: exit %d\n%s", size, info.Size(), r.code, r.stderr)
		}
		if got := h.ok("images", "-q"); got != "" {
			t.Errorf("cut at %d, and imported: %s", size, got)
		}
	}
}

// leftovers lists what failed runs left behind, beside the input files.
func leftovers(t *testing.T, h *host) []string {
	left := partials(t, h.dir)
	for _, f := range files(t, h.store()) {
		info, err := os.Lstat(h.store() + f)
		if err == nil && !info.IsDir() && !slices.Contains([]string{"/lock", "/oci-layout", "/index.json", "/unpacked/lock"}, f) {
			left = append(left, f)
		}
	}
	if _, err := os.Lstat(h.path("out")); err == nil {
		left = append(left, "out")
	}
	return left
}

func flip(t *testing.T, path string, at int64) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk gives each command less space than it needs: exit 7, and
// nothing is left.
func TestFullDisk(t *testing.T) {
	need(t, "mount")
	h := newHost(t)
	refs := corpus(t)
	h.ok(append([]string{"pack", "-o", "good.imgpack"}, refs...)...)
	for _, megabytes := range []int{1, 20, 60} {
		onSmallDisk(t, h, megabytes, func(small string) {
			h.fails(7, "pack", "-o", "small/x.imgpack", "good.imgpack")
			h.fails(7, "save", "-o", "small/x.tar", "good.imgpack")
			h.fails(7, "--store", small+"/store", "load", "-i", "good.imgpack")
			h.fails(7, "unpack", "good.imgpack//"+refs[0], "small/rootfs")
		})
	}
}

// onSmallDisk runs a test with a file system of some megabytes at "small" of
// the host's directory; nothing large may be left there.
func onSmallDisk(t *testing.T, h *host, megabytes int, run func(small string)) {
	t.Helper()
	small := h.path("small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Fatal(err)
	}
	run(small)
	for _, f := range files(t, small) {
		if info, err := os.Lstat(small + f); err == nil && info.Mode().IsRegular() && info.Size() > 4096 {
			t.Errorf("%d MB: %s of %d bytes is left", megabytes, f, info.Size())
		}
	}
	if err := syscall.Unmount(small, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(small); err != nil {
		t.Fatal(err)
	}
}

// TestRefusals checks what must not be done, and the exit code that says so.
func TestRefusals(t *testing.T) {
	h := newHost(t)
	ref := pick(t, "tool:1")
	h.ok("pack", "-o", "one.imgpack", ref)
	h.fails(8, "pack", "-o", "one.imgpack", ref)
	h.fails(2, "pack", "-o", "two.imgpack", "--no-such-flag", ref)
	h.fails(2, "pack", "-o", "two.imgpack", "Not/A/Name")
	h.fails(4, "pack", "-o", "two.imgpack", ref+"-absent")
	h.fails(4, "load", "-i", "absent.imgpack")
	h.fails(6, "pack", "-o", "two.imgpack", "127.0.0.1:1/none:1")
	h.fails(6, "--offline", "pull", ref)
	if err := os.WriteFile(h.path("text.tar"), bytes.Repeat([]byte("this is no archive\n"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	h.fails(9, "load", "-i", "text.tar")
	if left := partials(t, h.dir); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}
