//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
)

// TestCheckWays makes the checks that take more than one look: hostile images,
// callers with something to leak, ends.
func TestCheckWays(t *testing.T) {
	for _, who := range callers() {
		t.Run(who.name, func(t *testing.T) {
			h := who.host(t)
			image := h.probeImage(fixtures.File{Name: "bin/suid", Link: "bin/probe", Type: '1'}, fixtures.File{Name: "bin/text", Body: "no program"})
			for _, c := range []struct {
				name string
				do   func(*testing.T, *host, string)
			}{
				{"12 no capabilities", checkNoCapabilities},
				{"25 leaks of files", checkLeaks},
				{"26 working directories", checkWorkingDirectories},
				{"32 own program", checkOwnProgram},
				{"33 layers stay", checkLayersStay},
				{"34 links as targets", checkLinkTargets},
				{"40 ends", checkEnds},
				{"41 killed", checkKilled},
				{"43 environment", checkEnvironment},
				{"44 users", checkUsers},
				{"45 files of users", checkUserFiles},
			} {
				t.Run(c.name, func(t *testing.T) { c.do(t, h.in(t), image) })
			}
		})
	}
}

// in is the host for a part of a test.
func (h *host) in(t *testing.T) *host {
	part := *h
	part.t = t
	return &part
}

func checkNoCapabilities(t *testing.T, h *host, image string) {
	got := probed(t, h.ok("run", "--cap-drop", "all", image, "identity"))
	for _, set := range []string{"CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"} {
		if got[set] != strings.Repeat("0", 16) {
			t.Errorf("%s: %s", set, got[set])
		}
	}
}

func checkLeaks(t *testing.T, h *host, image string) {
	cmd := h.command("run", image, "isolate", "1", "a", "1", "/s", "1")
	for _, name := range []string{"/etc/shadow", "/etc", "/"} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, nil, f)
	}
	r := finish(t, cmd)
	if r.code != 0 {
		t.Fatal(r.stderr)
	}
	if fds := probed(t, r.stdout)["fds"]; len(strings.Fields(fds)) != 3 || strings.Contains(fds, "=") {
		t.Errorf("open files: %s", fds)
	}
}

// checkWorkingDirectories: a directory of the image's wish is inside, or there
// is no run.
func checkWorkingDirectories(t *testing.T, h *host, _ string) {
	for i, dir := range []string{"/proc/self/fd/7", "/proc/self/cwd/../..", "/proc/1/cwd", "/proc/self/fd/3/../../../..", "/out/x", "/up"} {
		image := h.probeImageOf(fmt.Sprintf("cwd%d", i), ocispec.ImageConfig{Entrypoint: []string{"/bin/probe"}, WorkingDir: dir},
			fixtures.File{Name: "out", Link: h.dir}, fixtures.File{Name: "up", Link: "../../../../../../.."})
		r := h.run("run", image, "where")
		if r.code == 125 {
			continue
		}
		if r.code != 0 || strings.Contains(r.stdout, "unreachable") || strings.Contains(r.stdout, "/fd/") {
			t.Errorf("%s: %d %s%s", dir, r.code, r.stdout, r.stderr)
		}
	}
	if _, err := os.Lstat(h.path("x")); err == nil {
		t.Error("a working directory was made outside")
	}
}

// checkOwnProgram runs images whose command is what runs them.
func checkOwnProgram(t *testing.T, h *host, image string) {
	before := fileSum(t, bin)
	for _, exe := range []string{"/proc/self/exe", "/proc/1/exe", "/self", "/proc/self/fd/3"} {
		own := h.probeImageOf("own", ocispec.ImageConfig{Entrypoint: []string{exe}}, fixtures.File{Name: "self", Link: "/proc/self/exe"})
		if r := h.run("run", own, "version"); r.code != 126 && r.code != 127 {
			t.Errorf("%s: %d %s%s", exe, r.code, r.stdout, r.stderr)
		}
		removeAll(h.path("own"))
	}
	h.ok("run", image, "exe")
	if fileSum(t, bin) != before {
		t.Error("the program has changed")
	}
}

func checkLayersStay(t *testing.T, h *host, image string) {
	h.ok("run", image, "hello")
	layers := filepath.Join(h.store(), "unpacked")
	before := content(watched(t, layers), layers)
	h.ok("run", image, "ruin")
	h.ok("run", "-u", "app", image, "ruin")
	sameWatched(t, "ruin", before, content(watched(t, layers), layers))
}

// checkLinkTargets: links of the image where mounts go lead nowhere outside.
func checkLinkTargets(t *testing.T, h *host, _ string) {
	outside := h.path("outside")
	if err := os.MkdirAll(filepath.Join(outside, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	before := content(watched(t, outside), outside)
	for i, at := range []string{"dev", "proc", "sys", "etc/resolv.conf", "etc/hosts", "tmp", "work"} {
		for j, to := range []string{outside, "../../../../../../.." + outside, outside + "/none", "/proc/1/root" + outside} {
			config := ocispec.ImageConfig{Entrypoint: []string{"/bin/probe"}, WorkingDir: "/work"}
			files := []fixtures.File{{Name: at, Link: to}}
			name := fmt.Sprintf("link%d-%d", i, j)
			r := h.run("run", h.probeImageOf(name, config, files...), "hello")
			if r.code != 0 && r.code != 125 {
				t.Errorf("%s -> %s: %d %s%s", at, to, r.code, r.stdout, r.stderr)
			}
			removeAll(h.path(name))
		}
	}
	sameWatched(t, "links", before, content(watched(t, outside), outside))
}

func checkEnds(t *testing.T, h *host, image string) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{image, "orphan"}, 3, "processes 2"},
		{[]string{image, "exit", "42"}, 42, ""},
		{[]string{image, "die", "9"}, 137, ""},
		{[]string{"--entrypoint", "/none", image}, 127, "/none"},
		{[]string{"--entrypoint", "/bin/text", image}, 126, "/bin/text"},
		{[]string{"--entrypoint", "/etc", image}, 126, "/etc"},
	} {
		if r := h.run(append([]string{"run"}, c.args...)...); r.code != c.code || !strings.Contains(r.stdout+r.stderr, c.says) {
			t.Errorf("%v: %d %s%s, want %d and %q", c.args, r.code, r.stdout, r.stderr, c.code, c.says)
		}
	}
	out, code := signalled(t, h.command("run", image, "sleep", "60000"), func(p *os.Process) { p.Signal(unix.SIGTERM) })
	if code != 143 {
		t.Errorf("after SIGTERM: %d %s", code, out)
	}
}

// checkKilled: when imgpack is killed nothing goes on.
func checkKilled(t *testing.T, h *host, image string) {
	word := fmt.Sprintf("%d", 60_000_000+os.Getpid())
	_, code := signalled(t, h.command("run", image, "sleep", word), func(p *os.Process) {
		if !running("sleep " + word) {
			t.Error("it does not run")
		}
		p.Kill()
	})
	if code != -1 {
		t.Errorf("code %d", code)
	}
	ends(t, "sleep "+word)
	h.ok("run", image, "hello")
	if left := sh(t, "sh", "-c", "ls -d "+h.store()+"/run/run-* "+h.store()+"/run/ids/*/run-* 2>/dev/null | wc -l"); left != "0" {
		t.Errorf("%s directories of runs are left", left)
	}
}

func checkEnvironment(t *testing.T, h *host, _ string) {
	image := h.probeImageOf("env", ocispec.ImageConfig{Entrypoint: []string{"/bin/probe"}, Env: []string{"SECRET", "=x", "A=b=c", "", "HOME"}})
	cmd := h.command("run", image, "env")
	cmd.Env = append(cmd.Env, "SECRET=of-the-host")
	r := finish(t, cmd)
	if r.code != 0 || strings.Contains(r.stdout, "SECRET") || strings.Contains(r.stdout, `"=`) || !strings.Contains(r.stdout, `"A=b=c"`) || strings.Contains(r.stdout, h.dir) {
		t.Errorf("%d %s%s", r.code, r.stdout, r.stderr)
	}
}

func checkUsers(t *testing.T, h *host, image string) {
	for i, user := range []string{"4294967296", "2147483648", "0x0", "-1", "1000:99999999999", "+0", "nobody-here", "0:none", "1e3"} {
		own := h.probeImageOf(fmt.Sprintf("user%d", i), ocispec.ImageConfig{Entrypoint: []string{"/bin/probe"}, User: user})
		for _, args := range [][]string{{own, "identity"}, {"-u=" + user, image, "identity"}} {
			if r := h.run(append([]string{"run"}, args...)...); r.code != 125 || r.stdout != "" {
				t.Errorf("%s: %d %s%s", user, r.code, r.stdout, r.stderr)
			}
		}
	}
}

// checkUserFiles: hostile files of users end the run, soon and in little memory.
func checkUserFiles(t *testing.T, h *host, _ string) {
	for i, passwd := range []fixtures.File{
		{Name: "etc/passwd", Body: strings.Repeat("x:", 16<<20)},
		{Name: "etc/passwd", Type: '6'},
		{Name: "etc/passwd", Link: "/dev/zero"},
		{Name: "etc/passwd/"},
		{Name: "etc/passwd", Link: "/proc/self/fd/0"},
	} {
		image := h.probeImageOf(fmt.Sprintf("passwd%d", i), ocispec.ImageConfig{Entrypoint: []string{"/bin/probe"}, User: "app"}, passwd)
		h.run("run", "-u", "0", image, "hello") // unpacks
		if h.uid != 0 {                         // others cannot execute what measures
			h.fails(125, "run", image, "hello")
		} else if r, took := measured(t, h.command("run", image, "hello"), ""); r.code != 125 || took.memory > 64<<20 {
			t.Errorf("%d: exit %d, %d MiB of memory\n%s%s", i, r.code, took.memory>>20, r.stdout, r.stderr)
		}
	}
}

// TestCheckLimits: 14, 37, 39 and 46, which take a real image's programs or
// root.
func TestCheckLimits(t *testing.T) {
	h := newHost(t)
	image := h.probeImage(fixtures.File{Name: "bin/suid", Link: "bin/probe", Type: '1', Mode: 0o4755})
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--memory", "64m", image, "eat", "200"}, 137, "memory"},
		{[]string{"--pids-limit", "20", image, "fork", "100"}, 0, "EAGAIN"},
	} {
		if r := h.run(append([]string{"run"}, c.args...)...); r.code != c.code || !strings.Contains(r.stdout+r.stderr, c.says) {
			t.Errorf("%v: %d %s%s", c.args, r.code, r.stdout, r.stderr)
		}
	}
	suid := h.probeImageOf("suid", ocispec.ImageConfig{Entrypoint: []string{"/bin/su"}, User: "app"}, fixtures.File{Name: "bin/su", Body: must(builtProbe()), Mode: 0o4755})
	if got := probed(t, h.ok("run", suid, "identity")); got["euid"] != "1000" {
		t.Errorf("a set-user-id program has euid %s", got["euid"])
	}
	if got := probed(t, h.ok("run", "--cap-add", "MKNOD", image, "isolate", "1", "a", "1", "/s", "1")); got["mknod b"] != "EPERM" || got["mknod c"] != "EPERM" {
		t.Errorf("with CAP_MKNOD: %s, %s", got["mknod b"], got["mknod c"])
	}
	ref := pick(t, "base:v2")
	h.ok("pull", ref)
	cmd := h.command("run", "--entrypoint", "", ref, "sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c; umask")
	limited := exec.Command("prlimit", append([]string{"--nofile=777:4000"}, cmd.Args...)...)
	limited.Dir, limited.Env = cmd.Dir, cmd.Env
	if r := finish(t, limited); r.stdout != "777\n4000\n0\n0022\n" {
		t.Errorf("limits: %q %s", r.stdout, r.stderr)
	}
}
