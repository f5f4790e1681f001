//go:build integration

package integration

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestIDsSameTree: with ranges an ordinary user gets exactly root's tree.
func TestIDsSameTree(t *testing.T) {
	h := newHost(t).asRanger(rangerUIDs, rangerGIDs)
	ref := pick(t, "redis:1")
	h.ok("pull", ref)
	h.ok("unpack", "--ids", "ranges", "store:"+ref, "ranges")
	h.ok("unpack", "store:"+ref, "one")
	root := newHost(t)
	root.ok("pull", ref)
	root.ok("unpack", "store:"+ref, "tree")
	sameTree(t, ref, listing(t, root.path("tree")), rangerView(listing(t, h.path("ranges"))))
	for entry, text := range listing(t, h.path("one")) {
		if !strings.Contains(text, "owner 4321:4321") {
			t.Fatalf("with one id: %s has %s", entry, text)
		}
	}
}

// TestIDsOwners: modes, links, capabilities and closed directories; what is
// past the ranges is the caller's, and counted.
func TestIDsOwners(t *testing.T) {
	h := newHost(t).asRanger(rangerUIDs, rangerGIDs)
	ownersImage(t, h.path("owners.tar"))
	out := h.ok("unpack", "--ids", "auto", "--json", "owners.tar", "ranges")
	if !strings.Contains(out, `"squashedOwners": 2`) && !strings.Contains(out, `"squashedOwners":2`) {
		t.Errorf("two owners are past the ranges:\n%s", out)
	}
	root := newHost(t)
	ownersImage(t, root.path("owners.tar"))
	root.ok("unpack", "owners.tar", "tree")
	want, got := listing(t, root.path("tree")), rangerView(listing(t, h.path("ranges")))
	for name, owner := range map[string]string{"/outside": "65537:0", "/group-outside": "5:65537"} {
		want[name] = strings.Replace(want[name], "owner "+owner, "owner 0:0", 1)
	}
	sameTree(t, "owners", want, got)
	if !strings.Contains(got["/cap"], "security.capability=") {
		t.Errorf("no capabilities: %s", got["/cap"])
	}
}

// TestIDsRun: processes have the image's users, layers of the two kinds lie
// apart, and gc leaves nothing of either.
func TestIDsRun(t *testing.T) {
	h := newHost(t).asRanger(rangerUIDs, rangerGIDs)
	ref := pick(t, "redis:1")
	h.ok("pull", ref)
	in := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(h.ok(append([]string{"run", "--entrypoint", ""}, args...)...))
	}
	if got := in("-u", "999", ref, "id", "-u"); got != "999" {
		t.Errorf("id is %q", got)
	}
	const owners = `stat -c %u:%g /data /etc/shadow /etc; touch /data/new && stat -c %u:%g /data/new; grep -c . /proc/self/uid_map`
	user := in(ref, "sh", "-c", "id -u; id -g")
	uid, gid, _ := strings.Cut(user, "\n")
	if uid == "0" || in(ref, "sh", "-c", owners) != fmt.Sprintf("%s:%s\n0:42\n0:0\n%s:%s\n2", uid, gid, uid, gid) {
		t.Errorf("user %q of the image: %q", user, in(ref, "sh", "-c", owners))
	}
	if got := in("-u", "0", ref, "sh", "-c", "touch /new && chown 65536:65536 /new && stat -c %u:%g /new; chown 65537 /new 2>/dev/null || echo refused"); got != "65536:65536\nrefused" {
		t.Errorf("chown as root: %q", got)
	}
	if got := in("--ids", "one", "-u", "999", ref, "sh", "-c", "id -u; stat -c %u:%g /data"); got != "999\n999:0" {
		t.Errorf("with one id: %q", got)
	}
	if r := h.run("run", "--explain", ref, "--version"); r.code != 0 ||
		!strings.Contains(r.stderr, "ids: users 0 are 4321 here, 1-65536 are 700000-765535 here; groups 0 are 4321 here, 1-30000 are 800000-829999 here, 30001-65536 are 900000-935535 here") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if text := h.fails(125, "run", "-u", "70000", ref, "--version"); !strings.Contains(text, "set user 70000: invalid argument") {
		t.Error(text)
	}
	for _, parts := range [][2]string{{"unpacked/layers", "4321 4321"}, {"unpacked/ids/*/layers", "4321 700099"}} {
		found := strings.Fields(strings.ReplaceAll(sh(t, "sh", "-c", "stat -c '%u' $(find "+h.store()+"/"+parts[0]+" -path '*/fs/*' -prune -o -name fs -print) $(find "+h.store()+"/"+parts[0]+" -path '*/etc/redis') | sort -u"), "\n", " "))
		if want := strings.Fields(parts[1]); found[0] != want[0] || found[len(found)-1] != want[1] {
			t.Errorf("owners in %s: %v", parts[0], found)
		}
	}
	h.ok("rmi", ref)
	dry := h.ok("gc", "--dry-run", "--json")
	if !regexp.MustCompile(`"layers": ?6`).MatchString(dry) {
		t.Errorf("three layers twice: %s", dry)
	}
	h.ok("gc")
	nothingOf(t, h)
}

// nothingOf wants an empty store, with no files of other owners.
func nothingOf(t *testing.T, h *host) {
	t.Helper()
	for _, name := range files(t, h.store()) {
		var st unix.Stat_t
		if err := unix.Lstat(h.store()+name, &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != rangerID || st.Gid != rangerID || strings.Contains(name, "sha256/") || strings.Contains(name, "/run-") || strings.Contains(name, "/tmp/") {
			t.Errorf("left: %s of %d:%d", name, st.Uid, st.Gid)
		}
	}
}

// TestIDsProcess: exit status, standard streams, signals and the end are those
// of one process.
func TestIDsProcess(t *testing.T) {
	h := newHost(t).asRanger(rangerUIDs, rangerGIDs)
	ref := pick(t, "redis:1")
	h.ok("pull", ref)
	command := func(script string) *exec.Cmd {
		return h.command("run", "-i", "--entrypoint", "", ref, "sh", "-c", script)
	}
	h.ok("run", ref, "--version")
	cmd := command("cat; echo err >&2; exit 37")
	cmd.Stdin = strings.NewReader("in\n")
	if r := finish(t, cmd); r != (result{"in\n", "err\n", 37}) {
		t.Errorf("%+v", r)
	}
	if r := finish(t, command("kill -9 $$")); r.code != 137 {
		t.Errorf("exit %d of a killed command", r.code)
	}

	const count = `trap 'echo TERM; n=1' TERM; echo ready; while [ -z "$n" ]; do sleep 0.05; done; sleep 0.3; exit 5`
	if out, code := signalled(t, command(count), func(p *os.Process) { p.Signal(syscall.SIGTERM) }); out != "ready\nTERM\n" || code != 5 {
		t.Errorf("terminated: %q, exit %d", out, code)
	}
	// A terminal tells parent and child; the command hears of it once.
	interrupt := strings.ReplaceAll(count, "TERM", "INT")
	if out, code := onTerminal(t, command(interrupt), "\x03"); strings.Count(out, "INT") != 1 || code != 5 {
		t.Errorf("interrupted by a terminal: %q, exit %d", out, code)
	}
}

// TestIDsEnd: before a sandbox listens, a signal ends the program as any other;
// and however the parent ends, all else does.
func TestIDsEnd(t *testing.T) {
	h := newHost(t).asRanger(rangerUIDs, rangerGIDs)
	base, ref := pick(t, "base:v1"), pick(t, "redis:1") // of which no layers are there yet
	h.ok("pull", base)
	h.ok("pull", ref)
	h.ok("run", base, "true")
	locks, err := filepath.Glob(h.store() + "/unpacked/ids/*/lock")
	if err != nil || len(locks) != 1 {
		t.Fatalf("locks %v, %v", locks, err)
	}
	lock, err := os.Open(locks[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for sig, want := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGHUP: 129, syscall.SIGINT: 130} {
		waits := h.command("run", ref, "--version")
		if err := waits.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "waiting for the lock", func() bool { return opened(locks[0]) })
		waits.Process.Signal(sig)
		if waits.Wait(); waits.ProcessState.ExitCode() != want {
			t.Errorf("%v: exit %d", sig, waits.ProcessState.ExitCode())
		}
	}
	lock.Close()

	// Killed: gc finds what it left.
	marker := "sleep 98765"
	signalled(t, h.command("run", "--entrypoint", "", ref, "sh", "-c", "echo ready; touch /var/lib/redis/x; "+marker), func(p *os.Process) { p.Kill() })
	ends(t, marker)
	h.ok("rmi", base, ref)
	if out := h.ok("gc"); !strings.Contains(out, "1 left-over") {
		t.Errorf("gc: %s", out)
	}
	nothingOf(t, h)
}

// TestIDsRefused: what stands in the way is named, and auto does without.
func TestIDsRefused(t *testing.T) {
	root := newHost(t)
	ownersImage(t, root.path("owners.tar"))
	if text := root.fails(2, "unpack", "--ids", "ranges", "owners.tar", "x"); !strings.Contains(text, "--uid-map") {
		t.Error(text)
	}
	root.ok("unpack", "--ids", "auto", "owners.tar", "x")

	h := newHost(t).asRanger("", rangerGIDs)
	ownersImage(t, h.path("owners.tar"))
	idsRefused(t, h, "usermod --add-subuids 100000-165535 ranger")
	h.put("subuid", rangerUIDs)
	h.put("subgid", "")
	idsRefused(t, h, "usermod --add-subgids 100000-165535 ranger")
	h.put("subgid", rangerGIDs)
	h.ok("unpack", "--ids", "ranges", "owners.tar", "now")
	fromEnv := h.command("unpack", "owners.tar", "env")
	fromEnv.Env = append(fromEnv.Env, "IMGPACK_IDS=ranges")
	if r := finish(t, fromEnv); r.code != 0 || !strings.Contains(r.stdout, "2 owners squashed") {
		t.Errorf("IMGPACK_IDS: %+v", r)
	}
	if r := h.run("unpack", "--ids", "many", "owners.tar", "x"); r.code != 2 {
		t.Errorf("%+v", r)
	}
}

// idsRefused wants ranges to be refused, for a reason, and auto to do without.
func idsRefused(t *testing.T, h *host, want string) {
	t.Helper()
	if text := h.fails(5, "unpack", "--ids", "ranges", "owners.tar", "ranges"); !strings.Contains(text, want) || !strings.Contains(text, "hint:") {
		t.Errorf("%s: not in\n%s", want, text)
	}
	os.RemoveAll(h.path("one"))
	if r := h.run("unpack", "--ids", "auto", "-v", "owners.tar", "one"); r.code != 0 || !strings.Contains(r.stderr, want) || !strings.Contains(r.stdout, "owners squashed") {
		t.Errorf("auto: %+v", r)
	}
	if r := h.run("run", "--explain", "owners.tar"); r.code != 127 || !strings.Contains(r.stderr, "degraded: no ranges of ids: ") || !strings.Contains(r.stderr, want) {
		t.Errorf("run: %+v", r)
	}
	if text := h.fails(125, "run", "--ids", "ranges", "owners.tar"); !strings.Contains(text, want) {
		t.Error(text)
	}
}

// TestIDsHelpers: newuidmap is not the one in PATH, nor one that root does not
// vouch for; and its own word counts.
func TestIDsHelpers(t *testing.T) {
	h := newHost(t).asRanger(rangerUIDs, rangerGIDs)
	ownersImage(t, h.path("owners.tar"))
	fake := h.path("newuidmap")
	if err := os.WriteFile(fake, []byte("#!/bin/sh\ntouch "+h.path("called")+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", h.dir+":"+os.Getenv("PATH"))
	h.ok("unpack", "--ids", "ranges", "owners.tar", "again")
	real, err := exec.LookPath("/usr/bin/newuidmap")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(fake, real, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(fake, rangerID, rangerID); err != nil {
		t.Fatal(err)
	}
	idsRefused(t, h, "newuidmap is of no use: "+real+" can be changed by others than root")
	if err := unix.Unmount(real, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.path("called")); err == nil {
		t.Error("a newuidmap of the user's was called")
	}
	// What newuidmap itself does not grant.
	h.put("passwd", "root:x:0:0::/root:/bin/sh\n")
	h.put("subuid", "4321:700000:65536\n")
	h.put("subgid", "4321:700000:65536\n")
	idsRefused(t, h, real+" refused")
}

// TestIDsChanged: layers of ranges that are another's now are not used, and
// not passed over in silence.
func TestIDsChanged(t *testing.T) {
	h := newHost(t).asRanger(rangerUIDs, rangerGIDs)
	ref := pick(t, "redis:1")
	h.ok("pull", ref)
	owner := func() string {
		return strings.TrimSpace(h.ok("run", "--entrypoint", "", "-u", "0", ref, "stat", "-c", "%u", "/etc/redis"))
	}
	before := owner()
	h.put("subuid", "ranger:500000:65536\n")
	if after := owner(); after != before || before == "0" {
		t.Errorf("owner %s, and then %s", before, after)
	}
	if text := h.fails(5, "gc"); !strings.Contains(text, "no longer gives to you; root can remove it") {
		t.Error(text)
	}
	h.put("subuid", "")
	h.ok("rmi", ref)
	if text := h.fails(5, "gc"); !strings.Contains(text, "freed 9") || !strings.Contains(text, "usermod --add-subuids") {
		t.Error(text)
	}
	h.uid = 0
	h.ok("gc")
	nothingOf(t, h)
}

// TestIDsKilled: what a killed unpack left, of many owners, the next one clears.
func TestIDsKilled(t *testing.T) {
	h := newHost(t).asRanger(rangerUIDs, rangerGIDs)
	if text := h.fails(9, "unpack", "--ids", "auto", "--uid-map", "0:1:9", "no-such-image", "out"); !strings.Contains(text, "--ids ranges gives") {
		t.Error(text)
	}
	var many []tar.Header
	for i := range 10_000 {
		many = append(many, tar.Header{Name: fmt.Sprint("many", i/100, "/", i), Mode: 0o600, Uid: 1 + i, Size: 100})
	}
	const ref = "many.tar"
	ownersImage(t, h.path(ref), many...)
	for _, as := range []string{"rootfs", "runtime"} {
		dir := h.path(as)
		left := filepath.Join(h.dir, "."+as+".imgpack-partial")
		for tries := 1; ; tries++ {
			cmd := h.command("unpack", "--ids", "ranges", "--as", as, ref, as)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_, err := os.Lstat(dir)
			for end := time.Now().Add(time.Minute); err != nil && len(foreign(left)) == 0 && time.Now().Before(end); _, err = os.Lstat(dir) {
				time.Sleep(time.Millisecond)
			}
			cmd.Process.Kill()
			cmd.Wait()
			if _, err = os.Lstat(dir); err != nil {
				break
			}
			if tries == 20 {
				t.Fatal("it was too fast")
			}
			removeAll(dir)
		}
		f, err := os.Open(left)
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("its child goes on")
			}
		}
		f.Close()
		if len(foreign(left)) == 0 {
			t.Error("nothing of other owners was left")
		}
		// What is in directories of other owners cannot be removed with one id.
		if err := errors.Join(os.Mkdir(left+"/d", 0o755), os.Mkdir(left+"/d/d", 0o755), os.Lchown(left+"/d", 700998, 800997)); err != nil {
			t.Fatal(err)
		}
		if text := h.fails(5, "unpack", "--as", as, ref, as); !strings.Contains(text, "--ids ranges") {
			t.Error(text)
		}
		h.ok("unpack", "--ids", "ranges", "--as", as, ref, as)
		if _, err := os.Lstat(left); err == nil {
			t.Error("it is still there")
		}
	}
}

// foreign lists what below a directory belongs to ids of the ranges.
func foreign(dir string) (names []string) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil && st.Uid >= 700000 {
			names = append(names, path)
		}
		return nil
	})
	return names
}

// TestIDsForged: the name of the process in the namespace makes nobody one.
func TestIDsForged(t *testing.T) {
	h := newHost(t).asRanger(rangerUIDs, rangerGIDs)
	ownersImage(t, h.path("owners.tar"))
	for i, files := range [][]*os.File{nil, {os.Stderr}, pair(t)[:1]} {
		cmd := h.command("unpack", "owners.tar", fmt.Sprint("tree", i))
		cmd.Args[0], cmd.ExtraFiles = "imgpack-subid", files
		if len(files) > 0 && i == 2 {
			continue // a socket of the parent's own making: it is the parent's to say
		}
		if r := finish(t, cmd); r.code != 0 || !strings.Contains(r.stdout, "squashed") {
			t.Errorf("%d: %+v", i, r)
		}
	}
	// A parent who makes the socket but no namespace gets nothing done.
	p := pair(t)
	cmd := h.command("unpack", "owners.tar", "tree")
	cmd.Args[0], cmd.ExtraFiles = "imgpack-subid", p[1:]
	p[0].Write([]byte{0})
	if r := finish(t, cmd); r != (result{"", "", 125}) {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(h.path("tree")); err == nil {
		t.Error("unpacked")
	}
}
