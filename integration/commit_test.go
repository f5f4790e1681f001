//go:build integration

package integration

import (
	"os"
	"strings"
	"testing"
)

// changesScript changes what a shell can change.
const changesScript = `set -e
echo new >/etc/new; chmod 640 /etc/new; rm -f /etc/motd /etc/issue; rm -rf /var/cache; mkdir -m 700 /var/cache; echo x >/var/cache/x
ln /etc/new /etc/hard; ln -s new /etc/soft; mkdir -p /opt/a/b; chmod 1777 /opt/a; mv /etc/new /opt/a/b/moved; cat /etc/passwd >/tmp/p; cat /tmp/p >/etc/passwd`

// TestCommit makes an image of a container, as root and as ordinary users, and
// holds it to what other tools make of it.
func TestCommit(t *testing.T) {
	need(t, "umoci", "skopeo")
	for _, who := range []struct {
		name string
		host func(t *testing.T) *host
	}{
		{"root", func(t *testing.T) *host { return newHost(t) }},
		{"one id", func(t *testing.T) *host { return newHost(t).asUser(4322) }},
		{"ranges", func(t *testing.T) *host { return newHost(t).asRanger(rangerUIDs, rangerGIDs) }},
	} {
		t.Run(who.name, func(t *testing.T) {
			h := who.host(t)
			ref := pick(t, "redis:1")
			h.ok("pull", "-q", ref)
			h.ok("run", "--name", "c", "-u", "0", "--entrypoint", "/bin/sh", ref, "-c", changesScript)
			out := strings.TrimSpace(h.ok("commit", "-m", "changed", "-c", `CMD ["/bin/cat", "/opt/a/b/moved"]`, "-c", "ENTRYPOINT []", "-c", "USER 0", "c", "made:1"))
			if !strings.HasPrefix(out, "sha256:") {
				t.Errorf("commit said %q", out)
			}
			if got := h.ok("run", "made:1"); got != "new\n" {
				t.Errorf("the image says %q", got)
			}
			h.ok("save", "--as", "oci", "-o", "layout", "made:1")
			os.Chmod(h.dir, 0o755)
			root := newHost(t)
			root.ok("unpack", "oci:"+h.path("layout"), "ours")
			// umoci reads OCI's media types alone.
			skopeo(t, "copy", "-q", "--format", "oci", "oci:"+h.path("layout"), "oci:"+root.path("layout")+":1")
			sh(t, "umoci", "raw", "unpack", "--image", root.path("layout")+":1", root.path("umoci"))
			sameTree(t, "umoci", listing(t, root.path("umoci")), listing(t, root.path("ours")))
			checkChanges(t, root, h)
		})
	}
}

// checkChanges compares the image with what the container sees.
func checkChanges(t *testing.T, root, h *host) {
	h.ok("export", "-o", "c.tar", "c")
	want, got := tarListing(t, h.path("c.tar")), listing(t, root.path("ours"))
	for _, name := range []string{"/etc/new", "/etc/motd", "/etc/issue"} {
		if _, ok := got[name]; ok {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range []string{"/etc/hard", "/etc/soft", "/opt/a/b/moved", "/var/cache/x", "/etc/passwd", "/bin"} {
		if _, ok := got[name]; !ok {
			t.Errorf("no %s in the image", name)
		}
		if _, ok := want[name]; !ok {
			t.Errorf("no %s in the container's tar", name)
		}
	}
	diff := h.ok("diff", "c")
	for _, line := range []string{"A /etc/hard\n", "C /etc/passwd\n", "A /opt/a\n", "A /opt/a/b/moved\n", "C /var/cache\n", "A /var/cache/x\n"} {
		if !strings.Contains(diff, line) {
			t.Errorf("diff does not say %q:\n%s", line, diff)
		}
	}
}

// TestCommitLoads loads a committed image into engines and runs it there.
func TestCommitLoads(t *testing.T) {
	h := newHost(t)
	ref := pick(t, "redis:1")
	h.ok("pull", "-q", ref)
	h.ok("run", "--name", "c", "-u", "0", "--entrypoint", "/bin/sh", ref, "-c", changesScript)
	h.ok("commit", "-q", "-c", `CMD ["/bin/cat", "/opt/a/b/moved"]`, "-c", "ENTRYPOINT []", "-c", "USER 0", "c", "example.com/made:1")
	h.ok("save", "-o", "made.tar", "example.com/made:1")
	docker(t, "load", "-i", h.path("made.tar"))
	if got := docker(t, "run", "--rm", "--network", "none", "example.com/made:1"); strings.TrimSpace(got) != "new" {
		t.Errorf("docker: %q", got)
	}
	if got := docker(t, "run", "--rm", "--network", "none", "example.com/made:1", "/bin/sh", "-c", "ls /var/cache; test ! -e /etc/motd && stat -c %a /opt/a"); strings.Fields(got)[0] != "x" || !strings.Contains(got, "1777") {
		t.Errorf("docker: %q", got)
	}
	podman(t, "load", "-i", h.path("made.tar"))
	if got := podmanRun(t, "example.com/made:1"); strings.TrimSpace(got) != "new" {
		t.Errorf("podman: %q", got)
	}
}
