//go:build integration

package integration

import (
	"os"
	"strings"
	"testing"
)

// engineCase is one corpus image and a command in it that proves it runs.
type engineCase struct {
	image   string
	command []string
	want    string
}

// runnable has images that every engine of Debian loads; zstd layers are too
// new for them.
var runnable = []engineCase{
	{"redis:1", []string{"/usr/bin/redis-server", "--version"}, "Redis server v="},
	{"api:v2", []string{"/bin/cat", "/srv/api/current.py"}, `VERSION = "2"`},
	{"tool:1", []string{"/bin/tool", "version"}, ""},
}

func saveRunnable(t *testing.T, h *host, args ...string) (refs []string) {
	for _, c := range runnable {
		refs = append(refs, pick(t, c.image))
	}
	h.ok(append(append([]string{"save", "-o", "all.tar"}, args...), refs...)...)
	return refs
}

// TestDockerLoads loads what save wrote into dockerd and runs it there.
func TestDockerLoads(t *testing.T) {
	h := newHost(t)
	refs := saveRunnable(t, h)
	out := docker(t, "load", "-i", h.path("all.tar"))
	for i, c := range runnable {
		if !strings.Contains(out, "Loaded image: "+refs[i]) {
			t.Errorf("docker load did not name %s:\n%s", refs[i], out)
		}
		id := docker(t, "image", "inspect", "--format", "{{.Id}}", refs[i])
		if want := h.ok("inspect", "-f", "{{.Id}}", refs[i]); strings.TrimSpace(want) != id {
			t.Errorf("%s: docker's image ID is %s, ours %s", c.image, id, want)
		}
		run := append([]string{"run", "--rm", "--network", "none", "--entrypoint", c.command[0], refs[i]}, c.command[1:]...)
		if got := docker(t, run...); !strings.Contains(got, c.want) {
			t.Errorf("%s in docker: %q", c.image, got)
		}
	}
}

// TestDockerLoadsGzip: docker reads a wrapped archive, other engines of Debian
// do not.
func TestDockerLoadsGzip(t *testing.T) {
	h := newHost(t)
	ref := pick(t, "tool:1")
	h.ok("save", "--compress", "gzip", "-o", "d.tgz", ref)
	if out := docker(t, "load", "-i", h.path("d.tgz")); !strings.Contains(out, "Loaded image: "+ref) {
		t.Errorf("docker load: %q", out)
	}
	h.ok("save", "-o", "d.tar", ref)
	sh(t, "sh", "-c", "gzip -dc '"+h.path("d.tgz")+"' | cmp - '"+h.path("d.tar")+"'")
}

func TestPodmanLoads(t *testing.T) {
	h := newHost(t)
	refs := saveRunnable(t, h)
	podman(t, "load", "-q", "-i", h.path("all.tar"))
	for i, c := range runnable {
		run := append([]string{"--entrypoint", c.command[0], refs[i]}, c.command[1:]...)
		if got := podmanRun(t, run[0], run[1:]...); !strings.Contains(got, c.want) {
			t.Errorf("%s in podman: %q", c.image, got)
		}
	}
}

func TestContainerdLoads(t *testing.T) {
	h := newHost(t)
	refs := saveRunnable(t, h)
	ctr(t, "images", "import", h.path("all.tar"))
	for i, c := range runnable {
		if got := ctr(t, "images", "ls", "name=="+refs[i]); !strings.Contains(got, rawDigest(t, refs[i])) {
			t.Errorf("%s: containerd does not have digest %s:\n%s", c.image, rawDigest(t, refs[i]), got)
		}
		run := append([]string{"run", "--rm", refs[i], "imgpack-test"}, c.command...)
		if got := ctr(t, run...); !strings.Contains(got, c.want) {
			t.Errorf("%s in containerd: %q", c.image, got)
		}
	}
}

// TestSkopeoReads lets skopeo read every form save writes.
func TestSkopeoReads(t *testing.T) {
	ref := pick(t, "api:v2")
	need(t, "skopeo")
	h := newHost(t)
	h.ok("save", "-o", "d.tar", ref)
	h.ok("save", "--as", "oci-archive", "-o", "o.tar", ref)
	h.ok("save", "--as", "oci", "-o", "layout", ref)
	for _, source := range []string{"docker-archive:" + h.path("d.tar"), "oci-archive:" + h.path("o.tar"), "oci:" + h.path("layout")} {
		id := skopeo(t, "inspect", "--config", "--raw", source)
		if !strings.Contains(id, "diff_ids") {
			t.Errorf("%s: no config: %.200s", source, id)
		}
	}
	for _, source := range []string{"oci-archive:" + h.path("o.tar"), "oci:" + h.path("layout")} {
		if got := skopeo(t, "inspect", "--format", "{{.Digest}}", source); got != rawDigest(t, ref) {
			t.Errorf("%s: digest %s, want %s", source, got, rawDigest(t, ref))
		}
	}
}

// TestReadsPeers reads what every peer saves, and checks it is the same image.
func TestReadsPeers(t *testing.T) {
	ref := pick(t, "api:v1")
	need(t, "skopeo", "crane", "docker", "podman", "ctr")
	h := newHost(t)
	skopeo(t, "copy", "-q", "--src-tls-verify=false", "docker://"+ref, "docker-archive:"+h.path("skopeo-docker.tar")+":"+ref)
	skopeo(t, "copy", "-q", "--src-tls-verify=false", "docker://"+ref, "oci-archive:"+h.path("skopeo-oci.tar")+":"+ref)
	skopeo(t, "copy", "-q", "--src-tls-verify=false", "docker://"+ref, "dir:"+h.path("dump"))
	skopeo(t, "copy", "-q", "--src-tls-verify=false", "docker://"+ref, "oci:"+h.path("layout")+":api:v1")
	sh(t, "crane", "pull", "--insecure", ref, h.path("crane.tar"))
	docker(t, "pull", "-q", ref)
	docker(t, "save", "-o", h.path("docker.tar"), ref)
	podman(t, "pull", "-q", "--tls-verify=false", ref)
	podman(t, "save", "-q", "-o", h.path("podman-docker.tar"), ref)
	podman(t, "save", "-q", "--format", "oci-archive", "-o", h.path("podman-oci.tar"), ref)
	ctr(t, "images", "pull", "--plain-http", ref)
	ctr(t, "images", "export", h.path("ctr.tar"), ref)
	sh(t, "gzip", "-k", "-1", h.path("docker.tar"))
	sh(t, "zstd", "-q", "-1", h.path("docker.tar"))

	want := strings.TrimSpace(h.ok("inspect", "-f", "{{.Id}}", ref))
	for _, source := range []string{"skopeo-docker.tar", "skopeo-oci.tar", "dir:dump", "oci:layout:api:v1", "./layout", "crane.tar",
		"docker.tar", "docker.tar.gz", "docker.tar.zst", "podman-docker.tar", "podman-oci.tar", "ctr.tar"} {
		if strings.HasSuffix(source, ".gz") || strings.HasSuffix(source, ".zst") {
			source = "./" + source
		}
		if got := strings.TrimSpace(h.ok("inspect", "-f", "{{.Id}}", source)); got != want {
			t.Errorf("%s: image ID %s, want %s", source, got, want)
		}
		h.ok("verify", "--deep", source)
		h.ok("load", "--force", source)
	}
	in, err := os.Open(h.path("docker.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	load := newHost(t).command("load")
	load.Stdin = in
	if r := finish(t, load); r.code != 0 || !strings.Contains(r.stdout, "Loaded image: "+ref) {
		t.Errorf("load from standard input: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}
