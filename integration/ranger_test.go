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
	"slices"
	"strconv"
	"strings"
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

// ownersImage is a docker archive of one layer with all kinds of owners.
func ownersImage(t *testing.T, path string, more ...tar.Header) {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // net_raw
	for _, f := range append([]tar.Header{
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
	}, more...) {
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

// ends waits until no process has these words on its command line.
func ends(t *testing.T, words string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); running(words); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s goes on", words)
		}
	}
}

// opened reports whether a process other than this one has a file open.
func opened(path string) bool {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	own := fmt.Sprintf("/proc/%d/", os.Getpid())
	return slices.ContainsFunc(links, func(l string) bool {
		to, err := os.Readlink(l)
		return err == nil && to == path && !strings.HasPrefix(l, own)
	})
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
