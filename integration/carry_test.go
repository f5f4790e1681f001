//go:build integration

package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCarry packs the whole corpus on one side, moves the file, and pushes it
// on the other: every digest must be the same at both registries, by a peer's
// count.
func TestCarry(t *testing.T) {
	refs := corpus(t)
	need(t, "skopeo", "crane")
	connected, far := newHost(t), newHost(t)
	connected.ok(append([]string{"pack", "-o", "site.imgpack"}, refs...)...)
	if err := os.Rename(connected.path("site.imgpack"), far.path("site.imgpack")); err != nil {
		t.Fatal(err)
	}
	far.ok("verify", "--deep", "site.imgpack")
	registry := startRegistry(t)
	far.ok("push", "--map", "strip", "site.imgpack", registry)
	for _, ref := range refs {
		_, name, _ := strings.Cut(ref, "/")
		want, got := rawDigest(t, ref), rawDigest(t, registry+"/"+name)
		if want != got {
			t.Errorf("%s: %s at the first registry, %s at the second", name, want, got)
		}
		// --fast, since crane takes zstd layers for damaged gzip.
		sh(t, "crane", "validate", "--fast", "--insecure", "--remote", registry+"/"+name)
	}
	again := far.ok("push", "--json", "--map", "strip", "site.imgpack", registry)
	if strings.Contains(again, `"pushed"`) || !strings.Contains(again, `"present"`) {
		t.Errorf("a second push found work to do: %s", again)
	}
}

// TestPipe carries bundles without files: standard output to standard input.
func TestPipe(t *testing.T) {
	ref := pick(t, "api:v1")
	connected, far := newHost(t), newHost(t)
	pack, load := connected.command("pack", "-o", "-", ref), far.command("load", "-i", "-")
	pipe, err := pack.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	load.Stdin = pipe
	if err := pack.Start(); err != nil {
		t.Fatal(err)
	}
	r := finish(t, load)
	if err := pack.Wait(); err != nil || r.code != 0 {
		t.Fatalf("pack: %v, load: exit %d\n%s", err, r.code, r.stderr)
	}
	if got := far.ok("images", "--format", "{{.Digest}}"); strings.TrimSpace(got) != rawDigest(t, ref) {
		t.Errorf("loaded %s, want %s", got, rawDigest(t, ref))
	}
}

// TestSameBytes packs and saves twice, with other parallelism and knowing
// nothing each time: the files must be identical.
func TestSameBytes(t *testing.T) {
	refs := someImages(t)
	h := newHost(t)
	h.cold = true
	h.ok(append([]string{"pack", "-o", "a.imgpack", "--parallel", "1"}, refs...)...)
	removeAll(h.path(".cache"))
	h.ok(append([]string{"pack", "-o", "b.imgpack", "--parallel", "8"}, refs...)...)
	h.ok("save", "-o", "a.tar", "a.imgpack")
	h.ok("save", "-o", "b.tar", "b.imgpack")
	sh(t, "cmp", h.path("a.imgpack"), h.path("b.imgpack"))
	sh(t, "cmp", h.path("a.tar"), h.path("b.tar"))
}

// TestDryRun holds what a dry run says of a bundle to the bundle: the very size
// in layer mode, within a tenth of it in chunk mode. Of compressed layers in
// registries, which it does not read, it says that it tells the most there can
// be.
func TestDryRun(t *testing.T) {
	refs := corpus(t)
	h := newHost(t)
	h.ok(append([]string{"save", "--as", "oci", "-o", "layout"}, refs...)...)
	stored := []string{}
	for _, name := range []string{"api:v1", "api:v2", "site:1"} {
		h.ok("pull", pick(t, name))
		stored = append(stored, "store:"+pick(t, name))
	}
	for _, c := range []struct {
		mode, name string
		within     int64 // a part of the size
		sources    []string
	}{
		{"layer", "registry", 0, refs},
		{"layer", "layout", 0, []string{"oci:layout"}},
		{"chunk", "layout", 10, []string{"oci:layout"}},
		{"chunk", "store", 10, stored},
		{"chunk", "archives", 10, dockerArchives(t, "base:v2", "api:v1", "api:v2", "redis:1")},
	} {
		bundle := c.mode + "-" + c.name
		said := dryRun(t, h, c.mode, c.sources)
		h.ok(append([]string{"pack", "--dedupe", c.mode, "-o", bundle}, c.sources...)...)
		size, slack := fileSize(t, h.path(bundle)), int64(0)
		if c.within > 0 {
			slack = size / c.within
		}
		t.Logf("%s mode, %s: a dry run says %d bytes, the bundle has %d", c.mode, c.name, said.Output.Bytes, size)
		if said.AtMost || said.Exact != (slack == 0) || max(said.Output.Bytes-size, size-said.Output.Bytes) > slack {
			t.Errorf("%s mode, %s: a dry run says %+v, the bundle has %d bytes", c.mode, c.name, said, size)
		}
	}
	refs = []string{pick(t, "base:v2"), pick(t, "redis:1")} // not in the store
	said := dryRun(t, h, "chunk", refs)
	h.ok(append([]string{"pack", "-o", "far"}, refs...)...)
	if !said.AtMost || said.UnreadBytes == 0 || said.Output.Bytes < fileSize(t, h.path("far")) {
		t.Errorf("registry: a dry run says %+v, the bundle has %d bytes", said, fileSize(t, h.path("far")))
	}
	text := h.ok(append([]string{"pack", "--dry-run", "-o", "none"}, refs...)...)
	for _, want := range []string{"bundle of at most about ", "were not read, and are counted as they are"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
}

// planned is what a dry run says.
type planned struct {
	Exact, AtMost bool
	UnreadBytes   int64
	Output        struct{ Bytes int64 }
}

func dryRun(t testing.TB, h *host, mode string, sources []string) (said planned) {
	t.Helper()
	out := h.ok(append([]string{"pack", "--dry-run", "--json", "--dedupe", mode, "-o", "none"}, sources...)...)
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.path("none")); err == nil {
		t.Error("a dry run wrote a file")
	}
	return said
}

// TestIsLayout lets skopeo read a bundle in layer mode as what it also is: an
// OCI archive.
func TestIsLayout(t *testing.T) {
	ref := pick(t, "api:v1")
	need(t, "skopeo")
	h := newHost(t)
	h.ok("pack", "--dedupe", "layer", "-o", "one.imgpack", ref)
	skopeo(t, "copy", "-q", "--preserve-digests", "oci-archive:"+h.path("one.imgpack"), "dir:"+h.path("dump"))
	raw, err := os.ReadFile(filepath.Join(h.dir, "dump", "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	sum := exec.Command("sha256sum")
	sum.Stdin = strings.NewReader(string(raw))
	out, err := sum.Output()
	if err != nil || "sha256:"+strings.Fields(string(out))[0] != rawDigest(t, ref) {
		t.Errorf("skopeo read manifest %s (%v), the registry has %s", out, err, rawDigest(t, ref))
	}
}

// TestPullTagRemove walks the local store through its life.
func TestPullTagRemove(t *testing.T) {
	ref := pick(t, "tool:1")
	h := newHost(t)
	h.ok("pull", ref)
	h.ok("tag", ref, "local/tool:2")
	if names := h.ok("images", "-q", "--no-trunc"); strings.Count(names, "sha256:") == 0 {
		t.Errorf("images -q: %q", names)
	}
	h.ok("rmi", ref)
	h.ok("gc")
	h.ok("verify", "store:local/tool:2")
	h.ok("rmi", "local/tool:2")
	h.ok("gc")
	for _, f := range files(t, filepath.Join(h.store(), "blobs", "sha256")) {
		if f != "" {
			t.Errorf("blob %s is left after the last image", f)
		}
	}
}
