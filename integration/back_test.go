//go:build integration

package integration

import (
	"encoding/json"
	"testing"

	"github.com/imgpack/imgpack/fixtures"
)

// oneID is an ordinary user without sub-ids.
const oneID = 4323

// TestOneIDExports: what a container of an ordinary user with one id sees is
// exported as the image has it: owners, devices, capabilities, closed files.
func TestOneIDExports(t *testing.T) {
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, h := range []*host{newHost(t), newHost(t).asUser(oneID)} {
		ref := h.probeImage(
			fixtures.File{Name: "srv/", UID: 999, GID: 998, Mode: 0o2750}, fixtures.File{Name: "srv/closed/", Mode: 0, UID: 5}, fixtures.File{Name: "srv/closed/f", Body: "x", UID: 6, GID: 7},
			fixtures.File{Name: "srv/f", Body: "y", UID: 999, Mode: 0o4711}, fixtures.File{Name: "srv/link", Type: '1', Link: "srv/f"}, fixtures.File{Name: "shadow", Body: "z"},
			fixtures.File{Name: "cap", Body: "c", Mode: 0o755, GID: 1, Xattrs: map[string]string{"security.capability": capability, "user.note": "n"}},
			fixtures.File{Name: "node", Type: '4', Major: 7, Minor: 3, UID: 1, GID: 2, Mode: 0o640},
		)
		sh(t, "chmod", "-R", "a+rX", h.path("probe"))
		h.ok("run", "--name", "c", ref, "hello")
		h.ok("export", "-o", "c.tar", "c")
		h.ok("export", "-o", "image.tar", ref)
		want, got := tarListing(t, h.path("image.tar")), tarListing(t, h.path("c.tar"))
		for name := range got {
			if ofContainers(name) && want[name] == "" || name == "/" || name == "/etc" {
				delete(got, name)
				delete(want, name)
			}
		}
		sameTree(t, "container and image", want, got)
	}
}

// backScript changes what root and ordinary users can change alike, at one time.
const backScript = `set -e
echo new >/data/new; echo y >>/etc/passwd; mkdir /opt/d; ln /etc/passwd /opt/d/hard; rm /etc/group; chmod 4755 /usr/bin/tail; chmod 700 /data; echo s >>/etc/gshadow; cat /opt/closed/f >/opt/closed/g
touch -h -d 2001-01-01T00:00:00Z /data/new /data /etc/passwd /etc/gshadow /etc /opt/d /opt /usr/bin/tail /usr/bin /usr /opt/closed /opt/closed/g`

// TestOneIDCommits: an ordinary user with one id gets the very layer that root
// gets, and the same tar.
func TestOneIDCommits(t *testing.T) {
	root, user := newHost(t), newHost(t).asUser(oneID)
	ref := pick(t, "redis:1")
	root.ok("pull", "-q", ref)
	root.ok("run", "--name", "c", "-u", "0", "--entrypoint", "/bin/sh", ref, "-c",
		"chmod 0 /etc/gshadow; mkdir -p /opt/closed; echo x >/opt/closed/f; chown 5:6 /opt/closed; chmod 0 /opt/closed/f /opt/closed")
	root.ok("commit", "c", "closed:1")
	root.ok("save", "-o", "closed.tar", "closed:1")
	sh(t, "cp", root.path("closed.tar"), user.dir)
	sh(t, "chmod", "644", user.path("closed.tar"))
	var layers [2]string
	var lists [2]map[string]string
	for i, h := range []*host{root, user} {
		h.ok("run", "--name", "changed", "-u", "0", "--entrypoint", "/bin/sh", "docker-archive:closed.tar", "-c", backScript)
		h.ok("load", "closed.tar")
		cmd := h.command("commit", "--json", "changed", "made:1")
		cmd.Env = append(cmd.Env, "SOURCE_DATE_EPOCH=1700000000")
		r := finish(t, cmd)
		var doc struct{ Layer struct{ DiffID string } }
		if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil || r.code != 0 {
			t.Fatalf("commit: %d %v\n%s%s", r.code, err, r.stdout, r.stderr)
		}
		layers[i] = doc.Layer.DiffID
		h.ok("export", "-o", "changed.tar", "changed")
		lists[i] = tarListing(t, h.path("changed.tar"))
		for _, name := range []string{"/", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} {
			delete(lists[i], name) // made when the container was
		}
	}
	if layers[0] != layers[1] || layers[0] == "" {
		t.Errorf("root's layer is %s, the user's %s", layers[0], layers[1])
	}
	sameTree(t, "exported", lists[0], lists[1])
	if r := user.run("diff", "changed"); r.code != 0 {
		t.Error(r.stderr)
	}
}
