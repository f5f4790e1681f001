//go:build integration

package integration

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listing describes every entry below root: type, mode, owner, time, size,
// link target, link group, attributes, content.
func listing(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	groups := map[uint64]string{} // inode → first name seen
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		text := fmt.Sprintf("mode %o owner %d:%d", st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if groups[st.Ino] == "" {
				groups[st.Ino] = name
			}
			text += fmt.Sprintf(" size %d links %d with %s sha256 %s mtime %d", st.Size, st.Nlink, groups[st.Ino], sum(t, path), st.Mtim.Sec)
		case unix.S_IFLNK:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" to %q mtime %d", to, st.Mtim.Sec)
		case unix.S_IFDIR:
			text += fmt.Sprintf(" mtime %d", st.Mtim.Sec)
		}
		all[name] = text + xattrs(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sum(t testing.TB, path string) string {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

func xattrs(t testing.TB, path string) string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil || n == 0 {
		return ""
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	text := ""
	for _, name := range names {
		value := make([]byte, 64<<10)
		k, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf(" %s=%x", name, value[:k])
	}
	return text
}

// sameTree compares two listings. Device nodes are the one difference there
// may be: we make none.
func sameTree(t *testing.T, what string, want, got map[string]string) {
	t.Helper()
	names := map[string]bool{}
	for n := range want {
		names[n] = true
	}
	for n := range got {
		names[n] = true
	}
	shown := 0
	for n := range names {
		if want[n] != got[n] && !(isDevice(want[n]) && got[n] == "") {
			if shown++; shown <= 10 {
				t.Errorf("%s: %s\n  peer %s\n  ours %s", what, n, want[n], got[n])
			}
		}
	}
	if shown > 10 {
		t.Errorf("%s: and %d more", what, shown-10)
	}
	if len(got) == 0 {
		t.Errorf("%s: nothing there", what)
	}
}

// isDevice reports an entry of listing that is a character or block device.
func isDevice(entry string) bool {
	return strings.HasPrefix(entry, "mode 2") && len(strings.Fields(entry)[1]) == 5 || strings.HasPrefix(entry, "mode 6")
}

// treeImages are those of tests that take long for each.
var treeImages = []string{"base:v2", "redis:1", "api:v2", "site:1", "tool:1"}

// TestSameTreeAsUmoci compares our merged rootfs with umoci's, for every image
// of the corpus.
func TestSameTreeAsUmoci(t *testing.T) {
	need(t, "umoci", "skopeo")
	for _, ref := range corpus(t) {
		name := ref[strings.LastIndexByte(ref, '/')+1:]
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			// By way of a directory of plain layers: older umoci know no zstd.
			skopeo(t, "copy", "-q", "--src-tls-verify=false", "--format", "oci", "--dest-decompress", "docker://"+ref, "dir:"+h.path("plain"))
			skopeo(t, "copy", "-q", "--dest-oci-accept-uncompressed-layers", "dir:"+h.path("plain"), "oci:"+h.path("layout")+":1")
			removeAll(h.path("plain"))
			sh(t, "umoci", "raw", "unpack", "--image", h.path("layout")+":1", h.path("peer")) // which needs no config
			removeAll(h.path("layout"))                                                       // the disk has to hold three trees besides
			h.ok("pull", ref)
			h.ok("unpack", ref, "ours")
			sameTree(t, name, listing(t, h.path("peer")), listing(t, h.path("ours")))
		})
	}
}

// TestSameTreeAsPodman compares our layers, mounted by the line we print, with
// podman's mount of the same image, for every image of the corpus.
func TestSameTreeAsPodman(t *testing.T) {
	need(t, "podman")
	for _, ref := range corpus(t) {
		name := ref[strings.LastIndexByte(ref, '/')+1:]
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			start := time.Now()
			podman(t, "pull", "-q", "--tls-verify=false", ref)
			peer := podman(t, "image", "mount", ref)
			defer podman(t, "image", "unmount", ref)
			h.ok("pull", ref)
			h.ok("unpack", "--as", "layers", ref, "ours")
			want, got := listing(t, peer), listing(t, mountLine(t, h))
			impliedNow(want, got, start)
			sameTree(t, name, want, got)
		})
	}
}

// impliedNow gives directories the times that we give them where podman has
// those of its own pull: of what a layer has no entry for, but something in it.
func impliedNow(peer, ours map[string]string, start time.Time) {
	for name, text := range peer {
		head, mtime, ok := strings.Cut(text, " mtime ")
		if own, _, same := strings.Cut(ours[name], " mtime "); ok && same && head == own && strings.HasPrefix(head, "mode 4") {
			if s, err := strconv.ParseInt(strings.Fields(mtime)[0], 10, 64); err == nil && s >= start.Unix() {
				peer[name] = ours[name]
			}
		}
	}
}

// mountLine runs the mount command that unpack left in mount.txt.
func mountLine(t *testing.T, h *host) string {
	t.Helper()
	line, err := os.ReadFile(h.path("ours/mount.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"upper", "work", "merged"} {
		if err := os.MkdirAll(h.path("ours/"+d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var command string
	for _, l := range strings.Split(string(line), "\n") {
		if strings.HasPrefix(l, "mount ") {
			command = l
		}
	}
	sh(t, "sh", "-c", "cd '"+h.path("ours")+"' && "+command)
	target := h.path("ours/merged")
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
	return target
}

// TestRuntimesRun runs our rootfs under runc and crun.
func TestRuntimesRun(t *testing.T) {
	need(t, "runc", "crun")
	h := newHost(t)
	ref := pick(t, "api:v2")
	h.ok("pull", ref)
	h.ok("unpack", ref, "rootfs")
	sh(t, "runc", "spec", "--bundle", h.dir)
	raw, err := os.ReadFile(h.path("config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(raw, &spec); err != nil {
		t.Fatal(err)
	}
	process := spec["process"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"/bin/cat", "/srv/api/current.py"}
	delete(process, "rlimits") // root here may not raise them
	if raw, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.path("config.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, "runc", "run", "--bundle", h.dir, "imgpack-runc"); got != `VERSION = "2"` {
		t.Errorf("runc: %q", got)
	}
	// crun refuses hosts that mount both cgroup versions.
	script := fmt.Sprintf("umount /sys/fs/cgroup/unified 2>/dev/null; exec crun --cgroup-manager=disabled run --bundle %s imgpack-crun", h.dir)
	if got := sh(t, "unshare", "-m", "sh", "-c", script); got != `VERSION = "2"` {
		t.Errorf("crun: %q", got)
	}
}

// TestSandbox runs corpus images in the sandbox, as root and as an ordinary
// user.
func TestSandbox(t *testing.T) {
	for _, uid := range []uint32{0, 65534} {
		t.Run(fmt.Sprint("uid ", uid), func(t *testing.T) {
			h := newHost(t)
			if uid != 0 {
				h.asUser(uid)
			}
			for _, c := range runnable {
				ref := pick(t, c.image)
				h.ok("pull", ref)
				args := append([]string{"run", "--entrypoint", c.command[0], "--user", "0", ref}, c.command[1:]...)
				if got := h.ok(args...); !strings.Contains(got, c.want) {
					t.Errorf("%s: %q", c.image, got)
				}
			}
			if r := h.run("run", "--entrypoint", "/bin/sh", "--user", "0", pick(t, "api:v2"), "-c", "exit 42"); r.code != 42 {
				t.Errorf("exit 42 came back as %d: %s", r.code, r.stderr)
			}
			h.fails(127, "run", "--entrypoint", "/no/such", "--user", "0", pick(t, "api:v2"))
			h.fails(126, "run", "--entrypoint", "/etc/passwd", "--user", "0", pick(t, "api:v2"))
			cmd := h.command("run", "--entrypoint", "/bin/sh", "--user", "0", pick(t, "api:v2"), "-c", "kill -TERM $$")
			if r := finish(t, cmd); r.code != 128+int(syscall.SIGTERM) {
				t.Errorf("killed by SIGTERM came back as %d: %s", r.code, r.stderr)
			}
		})
	}
}

// TestSameTreeRootless compares what an ordinary user unpacks with what root
// does: owners become the user's, device nodes and file capabilities are left
// out, and nothing else differs.
func TestSameTreeRootless(t *testing.T) {
	const uid = 65534
	for _, name := range treeImages {
		t.Run(name, func(t *testing.T) {
			root, user := newHost(t), newHost(t).asUser(uid)
			ref := pick(t, name)
			for _, h := range []*host{root, user} {
				h.ok("pull", ref)
				h.ok("unpack", ref, "ours")
			}
			want := listing(t, root.path("ours"))
			for entry, text := range want {
				text = ownerPattern.ReplaceAllString(text, fmt.Sprintf("owner %d:%d", uid, uid))
				want[entry] = capabilityPattern.ReplaceAllString(text, "")
			}
			sameTree(t, name, want, listing(t, user.path("ours")))
		})
	}
}

var (
	ownerPattern      = regexp.MustCompile(`owner \d+:\d+`)
	capabilityPattern = regexp.MustCompile(` security\.capability=[0-9a-f]*`)
)
