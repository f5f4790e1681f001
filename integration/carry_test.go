//go:build integration

package integration

import (
	"math"
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

// TestSameBytes packs and saves twice, with other parallelism: the files must
// be identical, and of the size a dry run says.
func TestSameBytes(t *testing.T) {
	refs := corpus(t)
	h := newHost(t)
	h.ok(append([]string{"pack", "-o", "a.imgpack", "--parallel", "1"}, refs...)...)
	h.ok(append([]string{"pack", "-o", "b.imgpack", "--parallel", "8"}, refs...)...)
	h.ok("save", "-o", "a.tar", "a.imgpack")
	h.ok("save", "-o", "b.tar", "b.imgpack")
	sh(t, "cmp", h.path("a.imgpack"), h.path("b.imgpack"))
	sh(t, "cmp", h.path("a.tar"), h.path("b.tar"))
	// A dry run reads no layers of registries, and takes compressed ones as they
	// are: in chunk mode it tells the most there can be.
	for mode, above := range map[string]int64{"layer": 0, "chunk": math.MaxInt64} {
		h.ok(append([]string{"pack", "--force", "--dedupe", mode, "-o", "a.imgpack"}, refs...)...)
		info, err := os.Stat(h.path("a.imgpack"))
		if err != nil {
			t.Fatal(err)
		}
		plan := h.ok(append([]string{"pack", "--dry-run", "--json", "--dedupe", mode, "-o", "c.imgpack"}, refs...)...)
		if said := jsonNumber(t, plan, "output", "bytes"); said < info.Size() || said-info.Size() > above {
			t.Errorf("%s mode: a dry run says %d bytes, the bundle has %d", mode, said, info.Size())
		}
	}
	if _, err := os.Stat(h.path("c.imgpack")); err == nil {
		t.Error("a dry run wrote a file")
	}
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
