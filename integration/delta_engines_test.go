//go:build integration

package integration

import (
	"os"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// leaning has images built on base:v1, which every engine of Debian loads.
var leaning = []engineCase{runnable[0], {"api:v1", []string{"/bin/cat", "/srv/api/current.py"}, `VERSION = "1"`}}

// saveSince saves the base, and what images have beyond it: each alone in
// delta-N.tar, and all in delta.tar.
func saveSince(t *testing.T, h *host) (base string, refs []string) {
	t.Helper()
	base = pick(t, "base:v1")
	h.ok("save", "-o", "base.tar", base)
	for i, c := range leaning {
		ref := pick(t, c.image)
		refs = append(refs, ref)
		h.ok("save", "--since", "base.tar", "-o", deltaName(i), ref)
		h.ok("save", "-o", "whole.tar", ref)
		if delta, whole := sizeOf(t, h.path(deltaName(i))), sizeOf(t, h.path("whole.tar")); whole-delta < sizeOf(t, h.path("base.tar"))*9/10 {
			t.Errorf("%s: %d bytes with its base, %d without", ref, whole, delta)
		}
	}
	h.ok(append([]string{"save", "--since", "base.tar", "-o", "delta.tar"}, refs...)...)
	return base, refs
}

func deltaName(i int) string { return "delta-" + string(rune('0'+i)) + ".tar" }

func sizeOf(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

func TestDockerLoadsADelta(t *testing.T) {
	h := newHost(t)
	_, refs := saveSince(t, h)
	docker(t, "load", "-i", h.path("base.tar"))
	out := docker(t, "load", "-i", h.path("delta.tar"))
	for i, c := range leaning {
		if !strings.Contains(out, "Loaded image: "+refs[i]) {
			t.Errorf("docker load did not name %s:\n%s", refs[i], out)
		}
		run := append([]string{"run", "--rm", "--network", "none", "--entrypoint", c.command[0], refs[i]}, c.command[1:]...)
		if got := docker(t, run...); !strings.Contains(got, c.want) {
			t.Errorf("%s in docker: %q", c.image, got)
		}
	}
}

// TestDockerLoadsADeltaOnARebuiltBase: docker finds a layer by all that is
// below it. That the base had it on another one does not help.
func TestDockerLoadsADeltaOnARebuiltBase(t *testing.T) {
	docker(t, "version")
	h := newHost(t)
	blobs := fixtures.NewBlobs()
	image := func(name string, texts ...string) manifests.Root {
		var layers []fixtures.LayerSpec
		for _, text := range texts {
			layers = append(layers, fixtures.LayerSpec{Files: []fixtures.File{{Name: text, Body: text}}})
		}
		return fixtures.Root(name, blobs.Image(fixtures.ImageSpec{Layers: layers, Config: ocispec.ImageConfig{Cmd: []string{"/x"}}}))
	}
	blobs.WriteLayout(t, h.path("old"), image("example.test/rebase:1", "base", "lib"), image("example.test/rebase:2", "rebuilt"))
	blobs.WriteLayout(t, h.path("new"), image("example.test/rebase:3", "rebuilt", "lib"), image("example.test/rebase:4", "base", "lib", "app"))
	h.ok("save", "-o", "base.tar", "./old")
	h.ok("save", "--since", "base.tar", "-o", "delta.tar", "./new")
	docker(t, "load", "-i", h.path("base.tar"))
	docker(t, "load", "-i", h.path("delta.tar"))
	for ref, layers := range map[string]string{"example.test/rebase:3": "2", "example.test/rebase:4": "3"} {
		if got := docker(t, "image", "inspect", "--format", "{{len .RootFS.Layers}}", ref); got != layers {
			t.Errorf("%s has %s layers in docker, want %s", ref, got, layers)
		}
	}
}

// TestPodmanLoadsADelta: podman of Debian reads a layout of one image, and no
// docker archive with layers left out.
func TestPodmanLoadsADelta(t *testing.T) {
	h := newHost(t)
	_, refs := saveSince(t, h)
	podman(t, "load", "-q", "-i", h.path("base.tar"))
	for i, c := range leaning {
		podman(t, "load", "-q", "-i", h.path(deltaName(i)))
		run := append([]string{"--entrypoint", c.command[0], refs[i]}, c.command[1:]...)
		if got := podmanRun(t, run[0], run[1:]...); !strings.Contains(got, c.want) {
			t.Errorf("%s in podman: %q", c.image, got)
		}
	}
}

func TestContainerdLoadsADelta(t *testing.T) {
	h := newHost(t)
	_, refs := saveSince(t, h)
	ctr(t, "images", "import", h.path("base.tar"))
	ctr(t, "images", "import", h.path("delta.tar"))
	for i, c := range leaning {
		if got := ctr(t, "images", "ls", "name=="+refs[i]); !strings.Contains(got, rawDigest(t, refs[i])) {
			t.Errorf("%s: containerd does not have digest %s:\n%s", c.image, rawDigest(t, refs[i]), got)
		}
		run := append([]string{"run", "--rm", refs[i], "imgpack-delta-test"}, c.command...)
		if got := ctr(t, run...); !strings.Contains(got, c.want) {
			t.Errorf("%s in containerd: %q", c.image, got)
		}
	}
}

// TestOwnStoreLoadsADelta: so does a store that has the base; one that has it
// not stays as it was.
func TestOwnStoreLoadsADelta(t *testing.T) {
	h := newHost(t)
	_, refs := saveSince(t, h)
	far := newHost(t)
	if r := far.run("load", h.path("delta.tar")); r.code == 0 || !strings.Contains(r.stderr, "leaves out") {
		t.Errorf("without the base: exit %d\n%s", r.code, r.stderr)
	}
	if got := far.ok("images", "-q"); got != "" {
		t.Errorf("without the base the store has %s", got)
	}
	far.ok("load", h.path("base.tar"))
	far.ok("load", h.path("delta.tar"))
	for _, ref := range refs {
		far.ok("verify", "--deep", ref)
		if got, want := far.ok("inspect", "-f", "{{.Id}}", ref), h.ok("inspect", "-f", "{{.Id}}", ref); got != want {
			t.Errorf("%s: image ID %s, want %s", ref, got, want)
		}
	}
}
