//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	rangerID = 4321
	// Of groups there are two ranges, and of users one.
	rangerUIDs = "ranger:700000:65536\n"
	rangerGIDs = "ranger:800000:30000\n4321:900000:35536\n"
)

// asRanger makes the host's commands run as an ordinary user with ranges of
// ids. The user exists in a mount namespace of the test's thread alone, so that
// nothing of this machine changes; commands must be started by the test's own
// goroutine.
func (h *host) asRanger(subuid, subgid string) *host {
	h.t.Helper()
	need(h.t, "newuidmap", "newgidmap")
	h.asUser(rangerID)
	runtime.LockOSThread() // never unlocked: the thread and its mounts go with the goroutine
	must := func(err error) {
		h.t.Helper()
		if err != nil {
			h.t.Fatal(err)
		}
	}
	must(unix.Unshare(unix.CLONE_NEWNS))
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	var err error
	h.etc, err = os.MkdirTemp(workDir, "etc-")
	must(err)
	h.t.Cleanup(func() { os.RemoveAll(h.etc) })
	must(os.Chmod(h.etc, 0o755))
	for name, text := range map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nranger:x:4321:4321::/:/bin/sh\n", "group": "root:x:0:\nranger:x:4321:\n",
		"subuid": "other:100000:65536\n" + subuid, "subgid": "other:100000:65536\n" + subgid,
	} {
		h.put(name, text)
		must(unix.Mount(filepath.Join(h.etc, name), "/etc/"+name, "", unix.MS_BIND, ""))
	}
	return h
}

// put replaces a file of the ranger's /etc.
func (h *host) put(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.etc, name), []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// rangerIn is what an id of the ranger's ranges is inside.
func rangerIn(id, user int, ranges [][3]int) int {
	if id == user {
		return 0
	}
	for _, r := range ranges {
		if id >= r[1] && id < r[1]+r[2] {
			return r[0] + id - r[1]
		}
	}
	return -1
}

var ownerText = regexp.MustCompile(`owner (\d+):(\d+)`)

// rangerView is a listing as root of the ranger's namespace sees it: ids are
// mapped back, and file capabilities are his (version 2, not 3 with an owner).
func rangerView(all map[string]string) map[string]string {
	view := map[string]string{}
	for name, text := range all {
		text = ownerText.ReplaceAllStringFunc(text, func(s string) string {
			m := ownerText.FindStringSubmatch(s)
			uid, _ := strconv.Atoi(m[1])
			gid, _ := strconv.Atoi(m[2])
			return fmt.Sprintf("owner %d:%d", rangerIn(uid, rangerID, [][3]int{{1, 700000, 65536}}),
				rangerIn(gid, rangerID, [][3]int{{1, 800000, 30000}, {30001, 900000, 35536}}))
		})
		view[name] = regexp.MustCompile(`(security\.capability=0100000)3(\w{32})e1100000`).ReplaceAllString(text, "${1}2$2")
	}
	return view
}

// TestIDsSameTree: with ranges an ordinary user gets exactly root's tree.
func TestIDsSameTree(t *testing.T) {
	for _, name := range []string{"redis:1"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t).asRanger(rangerUIDs, rangerGIDs)
			ref := pick(t, name)
			h.ok("pull", ref)
			h.ok("unpack", "--ids", "ranges", "store:"+ref, "ranges")
			h.ok("unpack", "store:"+ref, "one")
			root := newHost(t)
			root.ok("pull", ref)
			root.ok("unpack", "store:"+ref, "tree")
			sameTree(t, name, listing(t, root.path("tree")), rangerView(listing(t, h.path("ranges"))))
			for entry, text := range listing(t, h.path("one")) {
				if !strings.Contains(text, "owner 4321:4321") {
					t.Fatalf("with one id: %s has %s", entry, text)
				}
			}
		})
	}
}

// ownersImage is a docker archive of one layer with all kinds of owners.
func ownersImage(t *testing.T, path string) {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // net_raw
	for _, f := range []tar.Header{
		{Name: "d/", Mode: 0o2750, Uid: 999, Gid: 998, Typeflag: tar.TypeDir},
		{Name: "d/closed/", Mode: 0, Uid: 999, Gid: 998, Typeflag: tar.TypeDir},
		{Name: "d/closed/f", Mode: 0, Uid: 5, Gid: 6},
		{Name: "d/suid", Mode: 0o6755, Uid: 999, Gid: 30005, Size: 4},
		{Name: "d/link", Typeflag: tar.TypeLink, Linkname: "d/suid"},
		{Name: "d/soft", Typeflag: tar.TypeSymlink, Linkname: "suid", Uid: 7, Gid: 8},
		{Name: "cap", Mode: 0o755, Uid: 0, Gid: 1, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability}},
		{Name: "last", Mode: 0o600, Uid: 65536, Gid: 65536},
		{Name: "outside", Mode: 0o600, Uid: 65537, Gid: 0},
		{Name: "group-outside", Mode: 0o600, Uid: 5, Gid: 65537},
	} {
		f.ModTime, f.Format = time.Unix(1_700_000_000, 0), tar.FormatPAX
		if err := w.WriteHeader(&f); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, f.Size)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	var out bytes.Buffer
	o := tar.NewWriter(&out)
	config := fmt.Sprintf(`{"architecture":%q,"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%x"]},"config":{"Cmd":["/none"]}}`,
		runtime.GOARCH, sha256.Sum256(layer.Bytes()))
	for _, f := range []struct{ name, text string }{
		{"layer.tar", layer.String()}, {"config.json", config},
		{"manifest.json", `[{"Config":"config.json","RepoTags":["example.com/owners:1"],"Layers":["layer.tar"]}]`},
	} {
		o.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.text))})
		o.Write([]byte(f.text))
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
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
	// Where nothing listens yet, a signal ends the program as any other.
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
		time.Sleep(time.Second)
		waits.Process.Signal(sig)
		if waits.Wait(); waits.ProcessState.ExitCode() != want {
			t.Errorf("%v: exit %d", sig, waits.ProcessState.ExitCode())
		}
	}
	lock.Close()

	// However the parent ends, all else does, and gc finds what it left.
	marker := "sleep 98765"
	signalled(t, command("echo ready; touch /var/lib/redis/x; "+marker), func(p *os.Process) { p.Kill() })
	for end := time.Now().Add(5 * time.Second); running(marker); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the command outlived imgpack")
		}
	}
	h.ok("rmi", ref)
	if out := h.ok("gc"); !strings.Contains(out, "1 left-over") {
		t.Errorf("gc: %s", out)
	}
	nothingOf(t, h)
}

// signalled starts a command, does something to it once it has written a line,
// and returns what it wrote.
func signalled(t *testing.T, cmd *exec.Cmd, do func(*os.Process)) (string, int) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stderr = nil, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	buf := make([]byte, 1024)
	n, _ := out.Read(buf)
	all.Write(buf[:n])
	do(cmd.Process)
	all.ReadFrom(out)
	cmd.Wait()
	return all.String(), cmd.ProcessState.ExitCode()
}

// onTerminal runs a command as the foreground of a terminal, and types once it
// has written a line.
func onTerminal(t *testing.T, cmd *exec.Cmd, typed string) (string, int) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var all bytes.Buffer
	buf := make([]byte, 1024)
	for sent := false; ; {
		k, err := master.Read(buf)
		if err != nil {
			break
		}
		all.Write(buf[:k])
		if !sent && strings.Contains(all.String(), "ready") {
			sent = true
			master.WriteString(typed)
		}
	}
	cmd.Wait()
	return strings.ReplaceAll(all.String(), "^C", ""), cmd.ProcessState.ExitCode()
}

// running reports whether a process has these words on its command line.
func running(words string) bool {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		if raw, err := os.ReadFile(l); err == nil && strings.Contains(strings.ReplaceAll(string(raw), "\x00", " "), words) {
			return true
		}
	}
	return false
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
	refused := func(want string) {
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
	refused("usermod --add-subuids 100000-165535 ranger")
	h.put("subuid", rangerUIDs)
	h.put("subgid", "")
	refused("usermod --add-subgids 100000-165535 ranger")
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

	// Helpers: not the one in PATH, and none that root does not vouch for.
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
	refused("newuidmap is of no use: " + real + " can be changed by others than root")
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
	refused(real + " refused")
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

func pair(t *testing.T) []*os.File {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	files := []*os.File{os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")}
	t.Cleanup(func() { files[0].Close(); files[1].Close() })
	return files
}
