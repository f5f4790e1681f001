//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
)

// TestMounts makes the checks of what is laid over an image, for each kind of
// caller.
func TestMounts(t *testing.T) {
	for _, who := range callers() {
		t.Run(who.name, func(t *testing.T) {
			if os.Getuid() != 0 {
				t.Skip("mounting for others takes root")
			}
			h := who.host(t)
			// Commands are started from this thread; nothing that is mounted
			// here leaves it.
			runtime.LockOSThread()
			noError(t, unix.Unshare(unix.CLONE_NEWNS))
			noError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
			h.mountTargets()
			h.mountSwap()
			h.mountRecursive()
			h.mountOwners(who.name)
		})
	}
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shared makes a directory that everybody may write to, with files.
func (h *host) shared(name string, files ...string) string {
	h.t.Helper()
	dir := h.path(name)
	noError(h.t, os.MkdirAll(dir, 0o777))
	noError(h.t, os.Chmod(dir, 0o777))
	for _, file := range files {
		noError(h.t, os.WriteFile(filepath.Join(dir, file), []byte(name), 0o666))
		noError(h.t, os.Chmod(filepath.Join(dir, file), 0o666))
	}
	return dir
}

// mountTargets is check 34: links of the image at the targets of mounts.
func (h *host) mountTargets() {
	h.t.Helper()
	outside, source := h.shared("outside", "file"), h.shared("source", "file")
	var files []fixtures.File
	for name, to := range map[string]string{
		"absolute": outside, "dots": strings.Repeat("../", 30) + outside, "magic": "/proc/1/root" + outside, "kernel": "/proc/sys", "root": "/", "device": "/dev",
	} {
		files = append(files, fixtures.File{Name: "links/" + name, Link: to, Type: '2'})
	}
	image := h.probeImageOf("links", ocispec.ImageConfig{Entrypoint: []string{"/bin/probe"}}, files...)
	before := fmt.Sprint(listing(h.t, outside))
	for target, runs := range map[string]bool{"absolute": true, "dots": true, "absolute/new": true, "magic": false, "kernel": false, "root": false, "device": false} {
		for _, flag := range []string{"-v=" + source + ":/links/" + target, "--tmpfs=/links/" + target, "-v=/links/" + target} {
			if !runs {
				h.fails(125, "run", flag, image, "hello")
			} else if out := h.ok("run", flag, image, "writable", "/links/"+target+"/x"); !strings.Contains(out, "/x ok") {
				h.t.Errorf("%s: %s", flag, out)
			}
		}
	}
	if after := fmt.Sprint(listing(h.t, outside)); after != before {
		h.t.Errorf("outside changed from %s to %s", before, after)
	}
}

// mountSwap is check 35: a source that is now a directory, now a link.
func (h *host) mountSwap() {
	h.t.Helper()
	image := h.probeImage()
	top := h.shared("top")
	noError(h.t, os.Chmod(h.shared("top/secret", "name"), 0o700)) // root alone
	h.shared("top/one", "name")
	noError(h.t, os.Symlink("secret", filepath.Join(top, "link")))
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				for _, p := range [][2]string{{"one", "away"}, {"link", "one"}, {"one", "link"}, {"away", "one"}} {
					_ = os.Rename(filepath.Join(top, p[0]), filepath.Join(top, p[1]))
				}
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	runs, seen := 30, map[string]int{}
	if os.Getenv("IMGPACK_SOAK") != "" {
		runs = 1000
	}
	for range runs {
		r := h.run("run", "-v", filepath.Join(top, "one")+":/data:ro", image, "read", "/data/name")
		switch {
		case r.code == 0:
			seen[r.stdout]++
		case strings.Contains(r.stderr, "no such file"), strings.Contains(r.stderr, "ermission denied"), strings.Contains(r.stderr, "find it again"):
			seen["refused"]++
		default:
			h.t.Errorf("exit %d: %s", r.code, r.stderr)
		}
	}
	h.t.Logf("seen: %v", seen)
	if h.uid != 0 && seen["top/secret"] > 0 {
		h.t.Error("an ordinary user saw what is root's")
	}
	for what := range seen {
		if what != "top/one" && what != "top/secret" && what != "refused" {
			h.t.Errorf("saw %q", what)
		}
	}
}

// mountRecursive is check 36: read-only holds below the source.
func (h *host) mountRecursive() {
	h.t.Helper()
	image := h.probeImage()
	dir := h.shared("tree")
	for _, sub := range []string{"sub", "sub/sub"} {
		noError(h.t, os.Mkdir(filepath.Join(dir, sub), 0o777))
		noError(h.t, unix.Mount("tmpfs", filepath.Join(dir, sub), "tmpfs", unix.MS_NOEXEC, "mode=777"))
	}
	paths := []string{"/data/x", "/data/sub/x", "/data/sub/sub/x"}
	for mode, want := range map[string]string{"ro": "EROFS", "rw": "ok"} {
		out := h.ok(append([]string{"run", "-v", dir + ":/data:" + mode, image, "writable"}, paths...)...)
		if out != paths[0]+" "+want+"\n"+paths[1]+" "+want+"\n"+paths[2]+" "+want+"\n" {
			h.t.Errorf("%s: %s", mode, out)
		}
	}
	info := h.ok("run", "-v", dir+":/data", image, "read", "/proc/self/mountinfo")
	for line := range strings.Lines(info) {
		f := strings.Fields(line)
		if strings.HasPrefix(f[4], "/data") && (!strings.Contains(f[5], "nosuid") || !strings.Contains(f[5], "nodev")) {
			h.t.Errorf("attributes: %s", line)
		}
		if strings.HasPrefix(f[4], "/data/sub") && !strings.Contains(f[5], "noexec") {
			h.t.Errorf("the host's own attribute is gone: %s", line)
		}
	}
}

// mountOwners wants the host's owners to stay as they are.
func (h *host) mountOwners(who string) {
	h.t.Helper()
	image := h.probeImage()
	dir := h.shared("owned")
	h.ok("run", "-v", dir+":/data", image, "write", "/data/root", "x")
	h.ok("run", "-u", "5:6", "-v", dir+":/data", image, "write", "/data/five", "x")
	want := map[string][2]string{
		"root": {"0:0", "5:6"}, "one id": {"65534:65534", "65534:65534"}, "ranges": {"4321:4321", "700004:800005"},
	}[who]
	for i, name := range []string{"root", "five"} {
		var st unix.Stat_t
		noError(h.t, unix.Stat(filepath.Join(dir, name), &st))
		if got := fmt.Sprintf("%d:%d", st.Uid, st.Gid); got != want[i] {
			h.t.Errorf("%s made a file of %s, want %s", name, got, want[i])
		}
	}
}
