//go:build integration

package integration

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
)

// guestVar is set in the virtual machines that TestVM starts: the tests here
// change the host.
const guestVar = "IMGPACK_GUEST"

func inGuest(t *testing.T) {
	t.Helper()
	if os.Getenv(guestVar) == "" {
		t.Skip("TestVM runs it, in a virtual machine")
	}
}

// inUnified skips where the machine's cgroups are of version 1.
func inUnified(t *testing.T) {
	t.Helper()
	inGuest(t)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		t.Skip("cgroups of version 1")
	}
}

// guest is somebody in a virtual machine. Ordinary users come by a session, as
// they do by ssh.
type guest struct {
	*host
	how []string // before the command
}

func (g guest) command(args ...string) *exec.Cmd {
	cmd := g.host.command(args...)
	if len(g.how) > 0 {
		words := []string{"cd", quoted(g.dir), "&&", "exec", "env", "IMGPACK_STORE=" + quoted(g.store()), quoted(bin)}
		for _, a := range args {
			words = append(words, quoted(a))
		}
		cmd = exec.Command(g.how[0], append(g.how[1:], strings.Join(words, " "))...)
	}
	return cmd
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (g guest) run(t *testing.T, args ...string) result {
	t.Helper()
	r := finish(t, g.command(args...))
	t.Logf("%s: %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	return r
}

// want runs imgpack, which must end with code and say all of the texts.
func (g guest) want(t *testing.T, code int, texts []string, args ...string) result {
	t.Helper()
	r := g.run(t, args...)
	if r.code != code {
		t.Errorf("code %d, want %d", r.code, code)
	}
	for _, text := range texts {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("it does not say %q", text)
		}
	}
	return r
}

// image makes the probe's image for the guest, of no other name than "oci:probe".
func (g guest) image(t *testing.T) {
	t.Helper()
	g.in(t).probeImage()
	sh(t, "chmod", "-R", "a+rX", g.dir)
	sh(t, "chown", "-R", fmt.Sprint(g.uid), g.dir)
}

// Users of the virtual machine: the first has a manager at all times.
const lingering, passing = 1000, 1001

func session(t *testing.T, uid uint32, name string) guest {
	h := newHost(t)
	h.asUser(uid)
	return guest{h, []string{"su", "-l", name, "-c"}}
}

// groups lists the cgroups that imgpack made, on the whole host.
func groups(t *testing.T) (all []string) {
	t.Helper()
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.HasPrefix(e.Name(), "imgpack-") {
			all = append(all, path)
		}
		return nil // one may just have gone
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func noGroups(t *testing.T) {
	t.Helper()
	var left []string
	for range 100 {
		if left = groups(t); len(left) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("left: %v", left)
}

// group is the directory of version 2 in which what runs is limited.
func group(t *testing.T) string {
	t.Helper()
	for _, dir := range groups(t) {
		if filepath.Ext(dir) == "" {
			return dir
		}
	}
	t.Fatalf("no group among %v", groups(t))
	return ""
}

func value(t *testing.T, dir, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(b))
}

// TestGuestLimits: limits of everybody who may have them, in a scope of
// systemd's, are what was asked for and hold.
func TestGuestLimits(t *testing.T) {
	inUnified(t)
	for name, g := range map[string]guest{
		"root": {newHost(t), nil}, "lingering": session(t, lingering, "user"), "passing": session(t, passing, "plain"),
	} {
		t.Run(name, func(t *testing.T) {
			g.image(t)
			memory := []string{"cgroup: in a scope of systemd's", "limit: 67108864 bytes of memory, 0 of swap"}
			g.want(t, 0, memory, "run", "--explain", "--memory", "64m", "--memory-swap", "64m", "oci:probe", "eat", "20")
			g.want(t, 137, []string{"killed for want of memory: --memory 64m"}, "run", "--memory", "64m", "oci:probe", "eat", "200")
			g.want(t, 0, []string{"child: signal: killed", "for want of memory"}, "run", "--memory", "64m", "oci:probe", "feed", "200")
			g.want(t, 137, []string{"for want of memory"}, "run", "--memory", "6m", "oci:probe", "eat", "100")
			g.want(t, 0, []string{`"Err":"EAGAIN"`}, "run", "--pids-limit", "40", "oci:probe", "fork", "500")
			g.want(t, 0, []string{"limit: 0.2 processors' time", `"Cgroup":["0::/"]`}, "run", "--explain", "--cpus", "0.2", "oci:probe", "spin", "1000")
			noGroups(t)
			g.steady(t)
			g.many(t)
		})
	}
}

// steady holds limits against systemd while it goes about its business.
func (g guest) steady(t *testing.T) {
	limits := []string{"run", "--memory", "64m", "--memory-swap", "96m", "--cpus", "0.2", "--pids-limit", "50"}
	want := map[string]string{"memory.max": "67108864", "memory.swap.max": "33554432", "cpu.max": "20000 100000"}
	if all := value(t, "/sys/fs/cgroup", "cgroup.controllers"); g.uid == 0 && strings.Contains(all, "cpuset") {
		limits = append(limits, "--cpuset-cpus", "1")
		want["cpuset.cpus.effective"] = "1"
	} else { // users are given none
		g.want(t, 125, []string{"the cpuset controller is not available", "Delegate="}, "run", "--cpuset-cpus", "1", "oci:probe", "hello")
	}
	cmd := g.command(append(limits, "oci:probe", "stubborn")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if !strings.HasPrefix(line, "ready") {
		t.Fatalf("%q, %v", line, err)
	}
	dir := group(t)
	if !strings.Contains(filepath.Dir(dir), "/imgpack-") || !strings.HasSuffix(filepath.Dir(dir), ".scope") {
		t.Errorf("the group is %s, in no scope", dir)
	}
	for range 2 {
		for file, text := range want {
			if got := value(t, dir, file); got != text {
				t.Errorf("%s is %q, not %q", file, got, text)
			}
		}
		sh(t, "systemctl", "daemon-reload")
		sh(t, "systemd-run", "--wait", "true")
	}
	pid := strings.Fields(value(t, filepath.Join(filepath.Dir(dir), "caller"), "cgroup.procs"))
	sh(t, "kill", append([]string{"-9"}, pid...)...)
	_ = cmd.Wait()
	noGroups(t)
}

// many leaves nothing.
func (g guest) many(t *testing.T) {
	for range 20 {
		if r := finish(t, g.command("run", "--memory", "64m", "--pids-limit", "50", "oci:probe", "hello")); r.code != 0 {
			t.Fatalf("%d %s", r.code, r.stderr)
		}
	}
	noGroups(t)
	if units := sh(t, "systemctl", "list-units", "--all", "--plain", "--no-legend", "imgpack-*"); units != "" {
		t.Errorf("units are left: %s", units)
	}
}

// TestGuestPause pauses what runs, and kills what is paused.
func TestGuestPause(t *testing.T) {
	inUnified(t)
	for name, g := range map[string]guest{"root": {newHost(t), nil}, "ranges": session(t, lingering, "user")} {
		t.Run(name, func(t *testing.T) {
			g.image(t)
			for _, limits := range [][]string{nil, {"--memory", "64m"}} {
				args := append([]string{"run", "-d", "--name", "c"}, limits...)
				g.want(t, 0, nil, append(args, "oci:probe", "tick", "/f")...)
				dir := group(t)
				g.want(t, 0, nil, "pause", "c")
				if got := value(t, dir, "cgroup.events"); !strings.Contains(got, "frozen 1") {
					t.Error(got)
				}
				g.want(t, 0, nil, "unpause", "c")
				if got := value(t, dir, "cgroup.events"); !strings.Contains(got, "frozen 0") {
					t.Error(got)
				}
				g.want(t, 0, nil, "pause", "c")
				g.want(t, 0, nil, "kill", "c")
				g.want(t, 0, nil, "rm", "-f", "c")
				noGroups(t)
			}
			// Frozen, and its monitor killed: nothing is left running.
			g.want(t, 0, nil, "run", "-d", "--name", "c", "--memory", "64m", "oci:probe", "tick", "/f")
			dir := group(t)
			g.want(t, 0, nil, "pause", "c")
			sh(t, "kill", append([]string{"-9"}, strings.Fields(value(t, filepath.Join(filepath.Dir(dir), "caller"), "cgroup.procs"))...)...)
			noGroups(t)
			g.want(t, 0, nil, "rm", "-f", "c")
			g.want(t, 0, nil, "gc")
		})
	}
}

// TestGuestNoManager: without a manager of his own, an ordinary user is told
// what to do; what systemd delegates to a service does.
func TestGuestNoManager(t *testing.T) {
	inUnified(t)
	g := session(t, 65534, "")
	g.how = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"}
	g.image(t)
	g.want(t, 125, []string{"memory cannot be limited", "systemd's manager of user 65534 makes no scope", "loginctl enable-linger"},
		"run", "--memory", "64m", "oci:probe", "hello")
	g.want(t, 0, []string{"hello"}, "run", "oci:probe", "hello")
	g.how = []string{"systemd-run", "--quiet", "--wait", "--pipe", "--uid=65534", "-p", "Delegate=no", "sh", "-c"}
	g.want(t, 125, []string{"Delegate=yes"}, "run", "--memory", "64m", "oci:probe", "eat", "200")
	g.how[6] = "Delegate=yes"
	g.want(t, 137, nil, "run", "--memory", "64m", "oci:probe", "eat", "200")
	g.want(t, 0, []string{"cgroup: in a unit that systemd has delegated"}, "run", "--explain", "--memory", "64m", "oci:probe", "hello")
	noGroups(t)

	user := session(t, lingering, "user")
	user.how = []string{"setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c"} // as cron or a plain su
	user.image(t)
	user.want(t, 137, nil, "run", "--memory", "64m", "oci:probe", "eat", "200")
	noGroups(t)
}

// TestGuestVersion1: where systemd has cgroups of version 1, root has limits, and
// an ordinary user is told why he has none.
func TestGuestVersion1(t *testing.T) {
	inGuest(t)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		t.Skip("cgroups of version 2")
	}
	g, user := guest{newHost(t), nil}, session(t, lingering, "user")
	g.image(t)
	user.image(t)
	g.want(t, 137, []string{"killed for want of memory: --memory 64m"}, "run", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "50", "oci:probe", "eat", "200")
	noGroups(t)
	user.want(t, 125, []string{"memory cannot be limited", "version 1"}, "run", "--memory", "64m", "oci:probe", "hello")
}

// TestGuestDoctor shows what the host can do, to everybody.
func TestGuestDoctor(t *testing.T) {
	inGuest(t)
	for _, g := range []guest{{newHost(t), nil}, session(t, lingering, "user")} {
		g.want(t, 0, []string{"limit of memory", "a program ran with it"}, "doctor")
	}
}

// TestGuestForbidden: hosts that forbid user namespaces are told apart.
func TestGuestForbidden(t *testing.T) {
	inGuest(t)
	g := session(t, passing, "plain")
	g.image(t)
	root := guest{newHost(t), nil}
	root.image(t)
	for sysctl, forbid := range map[string]string{"kernel.unprivileged_userns_clone": "0", "user.max_user_namespaces": "0"} {
		was := sh(t, "sysctl", "-n", sysctl)
		sh(t, "sysctl", "-qw", sysctl+"="+forbid)
		for _, ids := range []string{"auto", "one"} {
			g.want(t, 9, []string{sysctl}, "run", "--ids", ids, "oci:probe", "hello")
		}
		root.want(t, 0, []string{"hello"}, "run", "--explain", "oci:probe", "hello")
		sh(t, "sysctl", "-qw", sysctl+"="+was)
	}
	g.want(t, 0, []string{"hello"}, "run", "oci:probe", "hello")
}

// kernelBefore says whether the kernel is one before a version.
func kernelBefore(major, minor int) bool {
	var u unix.Utsname
	var a, b int
	if unix.Uname(&u) != nil {
		return false
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); err != nil {
		return false
	}
	return a < major || a == major && b < minor
}

// TestGuestOld is what kernels give that lack something.
func TestGuestOld(t *testing.T) {
	inGuest(t)
	if !kernelBefore(5, 11) {
		t.Skip("it lacks nothing")
	}
	g, user := guest{newHost(t), nil}, session(t, lingering, "user")
	g.image(t)
	user.image(t)
	g.want(t, 0, nil, "unpack", "oci:probe", g.path("tree"))
	user.want(t, 0, nil, "unpack", "--ids", "one", "oci:probe", user.path("tree"))
	if kernelBefore(5, 10) {
		for _, g := range []guest{g, user} {
			g.want(t, 9, []string{"needs Linux 5.10"}, "run", "oci:probe", "hello")
			g.want(t, 1, []string{"needs Linux 5.10"}, "doctor")
		}
		return
	}
	for _, ids := range []string{"auto", "one"} {
		user.want(t, 9, []string{"needs Linux 5.11, or root"}, "run", "--ids", ids, "oci:probe", "hello")
	}
	user.want(t, 1, []string{"needs Linux 5.11, or root"}, "doctor")
	g.want(t, 0, []string{"degraded: no user namespace", "read-only"}, "run", "--explain", "--read-only", "oci:probe", "hello")
	g.want(t, 9, []string{"needs Linux 5.11"}, "run", "-d", "--name", "c", "oci:probe", "hello")
	g.want(t, 9, []string{"id map"}, "run", "--uid-map", "0:100000:65536", "--gid-map", "0:100000:65536", "oci:probe", "hello")
	shared := g.shared("shared", "file")
	sh(t, "mount", "-t", "tmpfs", "none", shared)
	defer sh(t, "umount", shared)
	g.want(t, 98, []string{"read-only file system"}, "run", "-v", shared+":/mnt:ro", "oci:probe", "write", "/mnt/x", "y")
	g.want(t, 0, nil, "run", "-v", shared+":/mnt", "oci:probe", "write", "/mnt/x", "y")

	opaque := g.opaqueImage(t)
	for range 2 { // unpacked, and found unpacked
		if r := g.want(t, 0, nil, "run", opaque, "ls", "/d"); !strings.Contains(r.stdout, "upper") || strings.Contains(r.stdout, "lower") {
			t.Error("an opaque directory shows what is below")
		}
	}
}

// opaqueImage has a directory that hides all that was in it.
func (g guest) opaqueImage(t *testing.T) string {
	t.Helper()
	probe, err := builtProbe()
	if err != nil {
		t.Fatal(err)
	}
	b := fixtures.NewBlobs()
	image := b.Image(fixtures.ImageSpec{
		Layers: []fixtures.LayerSpec{
			{Files: []fixtures.File{{Name: "bin/"}, {Name: "bin/probe", Body: probe, Mode: 0o755}, {Name: "d/"}, {Name: "d/lower"}}},
			{Files: []fixtures.File{{Name: "d/"}, {Name: "d/.wh..wh..opq"}, {Name: "d/upper"}}},
		},
		Config: ocispec.ImageConfig{Entrypoint: []string{"/bin/probe"}},
	})
	if err := b.SaveLayout(g.path("opaque"), fixtures.Root("example.com/opaque:1", image)); err != nil {
		t.Fatal(err)
	}
	return "oci:opaque"
}

// TestGuestAppArmor: of Ubuntu's setting, by which AppArmor forbids user
// namespaces to ordinary users, they are told, and what helps does.
func TestGuestAppArmor(t *testing.T) {
	inGuest(t)
	const setting = "kernel.apparmor_restrict_unprivileged_userns"
	if r := finish(t, exec.Command("sysctl", "-qw", setting+"=1")); r.code != 0 {
		t.Skip("no " + setting)
	}
	defer sh(t, "sysctl", "-qw", setting+"=0")
	root, g := guest{newHost(t), nil}, session(t, passing, "plain")
	root.image(t)
	g.image(t)
	load := func(profile string) {
		file := root.path("profile")
		if err := os.WriteFile(file, []byte("abi <abi/4.0>,\n"+profile), 0o644); err != nil {
			t.Fatal(err)
		}
		sh(t, "apparmor_parser", "-r", file)
	}
	refused := func() {
		t.Helper()
		for _, ids := range []string{"auto", "one"} {
			g.want(t, 9, []string{setting + "=1"}, "run", "--ids", ids, "oci:probe", "hello")
		}
		g.want(t, 1, []string{setting + "=1", "AppArmor profile"}, "doctor")
		root.want(t, 0, []string{"namespaces: user,"}, "run", "--explain", "oci:probe", "hello")
	}
	_ = finish(t, exec.Command("aa-teardown"))
	refused() // outright
	load("profile unprivileged_userns {\n\taudit deny capability,\n\tallow file,\n\tallow unix,\n\tallow network,\n\tallow ptrace,\n\tallow signal,\n\tallow mqueue,\n\tallow mount,\n\tallow pivot_root,\n\tallow userns,\n\tallow change_profile,\n}\n")
	refused() // once it has one, by its capabilities
	load("profile imgpack " + bin + " flags=(unconfined) {\n\tuserns,\n}\n")
	g.want(t, 0, []string{"hello"}, "run", "oci:probe", "hello")
}

// TestGuestFilesystems unpacks to file systems of their own.
func TestGuestFilesystems(t *testing.T) {
	inGuest(t)
	g := guest{newHost(t), nil}
	g.image(t)
	for name, mkfs := range map[string][]string{
		"casefold": {"mkfs.ext4", "-q", "-O", "casefold"}, "ascii-ci": {"mkfs.xfs", "-q", "-n", "version=ci"},
		"xfs": {"mkfs.xfs", "-q", "-m", "reflink=1"}, "btrfs": {"mkfs.btrfs", "-q"},
	} {
		t.Run(name, func(t *testing.T) {
			disk, at := g.path(name+".img"), g.path(name)
			sh(t, "truncate", "-s", "400M", disk)
			sh(t, mkfs[0], append(mkfs[1:], disk)...)
			if err := os.Mkdir(at, 0o755); err != nil {
				t.Fatal(err)
			}
			if r := finish(t, exec.Command("mount", "-o", "loop", disk, at)); r.code != 0 {
				t.Skip(r.stderr)
			}
			defer sh(t, "umount", at)
			switch name {
			case "ascii-ci":
				g.folds(t, at)
				return
			case "casefold":
				sh(t, "mkdir", at+"/folds")
				sh(t, "chattr", "+F", at+"/folds")
				g.folds(t, at+"/folds")
			}
			g.want(t, 0, nil, "unpack", "oci:probe", at+"/tree")
			g.want(t, 0, nil, "verify", "oci:probe")
			sh(t, "cmp", at+"/tree/bin/probe", os.Getenv(probeVar))
			if name == "casefold" || kernelBefore(5, 10) {
				return
			}
			g.want(t, 0, []string{"hello"}, "--store", at+"/store", "run", "oci:probe", "hello")
			g.want(t, 0, nil, "--store", at+"/store", "unpack", "oci:probe", at+"/cloned")
			if extents := sh(t, "filefrag", "-v", at+"/cloned/bin/probe"); !strings.Contains(extents, "shared") {
				t.Errorf("nothing is shared with the store: %s", extents)
			}
			sh(t, "cmp", at+"/cloned/bin/probe", os.Getenv(probeVar))
		})
	}
}

// folds wants a directory refused for what it takes names for.
func (g guest) folds(t *testing.T, dir string) {
	for _, as := range []string{"rootfs", "layers", "runtime"} {
		g.want(t, 9, []string{"case"}, "unpack", "--as", as, "oci:probe", dir+"/tree")
	}
	g.want(t, 125, []string{"case"}, "--store", dir+"/store", "run", "oci:probe", "hello")
	left, err := os.ReadDir(dir)
	unpacked, uerr := filepath.Glob(dir + "/store/unpacked/*/*")
	if err != nil || uerr != nil || len(left) != 1 || len(unpacked) > 0 {
		t.Errorf("left: %v %v %v %v", left, unpacked, err, uerr)
	}
}
