//go:build integration

package integration

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

var archivesOnce sync.Once

// dockerArchives brings corpus images into docker archives, whose layers are
// not compressed, and returns their paths: what chunk mode is for.
func dockerArchives(t testing.TB, names ...string) (paths []string) {
	t.Helper()
	need(t, "skopeo")
	dir := filepath.Join(workDir, "archives")
	archivesOnce.Do(func() {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	})
	for _, name := range names {
		ref := pick(t, name)
		_, tag, _ := strings.Cut(ref, "/")
		path := filepath.Join(dir, strings.NewReplacer("/", "-", ":", "-").Replace(tag)+".tar")
		if _, err := os.Stat(path); err != nil {
			skopeo(t, "copy", "-q", "--src-tls-verify=false", "docker://"+ref, "docker-archive:"+path+":"+ref)
		}
		paths = append(paths, path)
	}
	return paths
}

// blobSums lists the blobs of a store with the digests of what they hold.
func blobSums(t testing.TB, h *host) string {
	t.Helper()
	var all []string
	for _, f := range files(t, filepath.Join(h.store(), "blobs")) {
		path := filepath.Join(h.store(), "blobs", f)
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			all = append(all, f+" "+fileSum(t, path))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func fileSum(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

func fileSize(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// sameStore reports whether two hosts hold the same images in the same blobs.
func sameStore(t testing.TB, want, got *host) {
	t.Helper()
	if a, b := imageDigests(want), imageDigests(got); a != b {
		t.Errorf("images are\n%s\nwant\n%s", b, a)
	}
	if a, b := blobSums(t, want), blobSums(t, got); a != b {
		t.Errorf("blobs are\n%s\nwant\n%s", b, a)
	}
}

func imageDigests(h *host) string {
	lines := strings.Split(strings.TrimSpace(h.ok("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}}")), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestChunkCarry takes images out of docker archives through a bundle in chunk
// mode into a store and into a registry: they must be the images that come out
// of the archives directly, blob by blob, and the bundle much smaller.
func TestChunkCarry(t *testing.T) {
	archives := dockerArchives(t, "base:v1", "base:v2", "api:v1", "api:v2", "redis:1")
	direct, far := newHost(t), newHost(t)
	direct.ok(append([]string{"load"}, archives...)...)
	// Images of a registry are carried beside them: gzip, and zstd.
	carried := []string{pick(t, "site:1"), pick(t, "apizstd:v2")}
	for _, ref := range carried {
		direct.ok("pull", ref)
	}
	for _, level := range []string{"fast", "default", "max"} {
		direct.ok(append(append([]string{"pack", "-o", level + ".imgpack", "--compress", level}, archives...), carried...)...)
		var whole int64
		for _, a := range archives {
			whole += fileSize(t, a)
		}
		if size := fileSize(t, direct.path(level+".imgpack")); size > whole/2 {
			t.Errorf("%s: %d bytes of %d", level, size, whole)
		}
		far.ok("verify", "--deep", direct.path(level+".imgpack"))
		loaded := newHost(t)
		loaded.ok("load", direct.path(level+".imgpack"))
		sameStore(t, direct, loaded)
	}
	need(t, "crane")
	first, second := startRegistry(t), startRegistry(t)
	direct.ok(append(append([]string{"push", "--map", "strip"}, append(archives, carried...)...), first)...)
	far.ok("push", "--map", "strip", direct.path("default.imgpack"), second)
	for _, line := range strings.Split(imageDigests(direct), "\n") {
		ref, _, _ := strings.Cut(line, " ")
		_, name, _ := strings.Cut(ref, "/")
		if want, got := rawDigest(t, first+"/"+name), rawDigest(t, second+"/"+name); want != got {
			t.Errorf("%s: %s from the archive, %s from the bundle", name, want, got)
		}
		sh(t, "crane", "validate", "--fast", "--insecure", "--remote", second+"/"+name)
	}
}

// TestChunkSaves: what save makes of a bundle in chunk mode is what it makes of
// the archives.
func TestChunkSaves(t *testing.T) {
	archives := dockerArchives(t, "api:v1", "api:v2")
	h := newHost(t)
	h.ok(append([]string{"pack", "-o", "a.imgpack"}, archives...)...)
	h.ok(append([]string{"save", "-o", "direct.tar"}, archives...)...)
	h.ok("save", "-o", "bundle.tar", "a.imgpack")
	sh(t, "cmp", h.path("direct.tar"), h.path("bundle.tar"))
}

// TestChunkPipe carries a bundle from standard output to standard input.
func TestChunkPipe(t *testing.T) {
	archive := dockerArchives(t, "api:v1")[0]
	direct, near, far := newHost(t), newHost(t), newHost(t)
	direct.ok("load", archive)
	pipe(t, near.command("pack", "-o", "-", archive), far.command("load", "-i", "-"))
	sameStore(t, direct, far)
}

// pipe runs two commands, the output of one into the other.
func pipe(t *testing.T, from, to *exec.Cmd) {
	t.Helper()
	out, err := from.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	to.Stdin = out
	if err := from.Start(); err != nil {
		t.Fatal(err)
	}
	r := finish(t, to)
	if err := from.Wait(); err != nil || r.code != 0 {
		t.Fatalf("%s: %v; %s: exit %d\n%s", from, err, to, r.code, r.stderr)
	}
}

// TestChunkSameBytes packs with other parallelism, and to a pipe: always the
// same file.
func TestChunkSameBytes(t *testing.T) {
	archives := dockerArchives(t, "api:v1", "api:v2", "redis:1")
	h := newHost(t)
	for name, flags := range map[string][]string{"one": {"--parallel", "1"}, "two": {"--parallel", "2"}, "again": {"--parallel", "2"}, "eight": {"--parallel", "8"}} {
		h.ok(append(append([]string{"pack", "-o", name}, flags...), archives...)...)
	}
	want := fileSum(t, h.path("one"))
	for _, name := range []string{"two", "again", "eight"} {
		if got := fileSum(t, h.path(name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	r := finish(t, h.command(append([]string{"pack", "-o", "-"}, archives...)...))
	if got := fmt.Sprintf("%x", sha256.Sum256([]byte(r.stdout))); r.code != 0 || got != want {
		t.Errorf("to a pipe: exit %d, %s, want %s\n%s", r.code, got, want, r.stderr)
	}
	if estimate := jsonNumber(t, h.ok(append([]string{"pack", "--dry-run", "--json", "-o", "x"}, archives...)...), "output", "bytes"); estimate <
		fileSize(t, h.path("one"))/2 || estimate > fileSize(t, h.path("one"))*2 {
		t.Errorf("a dry run says %d bytes, the bundle has %d", estimate, fileSize(t, h.path("one")))
	}
	if _, err := os.Stat(h.path("x")); err == nil {
		t.Error("a dry run wrote a file")
	}
}

// maxMemory is the most that packing and reading may take on two CPUs,
// whatever the size of images.
const maxMemory = 512 << 20

// TestChunkMemory packs and loads images larger than memory may become. The
// long form is several GB.
func TestChunkMemory(t *testing.T) {
	h := newHost(t)
	layers, size := 3, int64(200<<20)
	if soak() {
		layers, size = 6, 1<<30
	}
	bigLayout(t, h.path("layout"), layers, size)
	h.smallMemory(maxMemory, "pack", "-o", "big.imgpack", "oci:layout")
	h.smallMemory(maxMemory, "load", "big.imgpack")
	h.smallMemory(maxMemory, "verify", "--deep", "big.imgpack")
	if soak() { // segments are four times larger
		removeAll(h.store())
		h.smallMemory(4*maxMemory, "pack", "-o", "max.imgpack", "--compress", "max", "oci:layout")
		h.smallMemory(4*maxMemory, "load", "max.imgpack")
	}
}

// smallMemory runs imgpack, which must succeed within limit bytes of memory.
func (h *host) smallMemory(limit int64, args ...string) {
	h.t.Helper()
	cmd := h.command(args...)
	if r := finish(h.t, cmd); r.code != 0 {
		h.t.Fatalf("imgpack %v: exit %d\n%s", args, r.code, r.stderr)
	}
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	h.t.Logf("imgpack %v: %d MiB at most", args, peak>>20)
	if peak > limit {
		h.t.Errorf("imgpack %v: %d MiB, the bound is %d", args, peak>>20, limit>>20)
	}
}
