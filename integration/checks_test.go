//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
)

// look is what the probe is to see from inside, by the number of the check. A
// check may take several of its answers; each is one of the words.
type look struct {
	number int
	ask    string // the probe's command
	want   map[string]string
}

const eleven = "00000000800405fb" // the default capabilities

var looks = []look{
	{1, "isolate", map[string]string{"pids": "2"}},
	{2, "isolate", map[string]string{"kill": "ESRCH"}},
	{3, "isolate", map[string]string{"mount": "EPERM", "fsopen": "EPERM", "open_tree": "EPERM", "move_mount": "EPERM"}},
	{4, "isolate", map[string]string{"remount": "EPERM", "setattr": "EPERM"}},
	{5, "isolate", map[string]string{"umount kcore": "EPERM ENOENT", "umount keys": "EPERM", "pivot": "EPERM"}},
	{6, "isolate", map[string]string{
		"write /proc/sys/kernel/core_pattern": "EROFS EACCES", "write /proc/sys/kernel/modprobe": "EROFS EACCES ENOENT",
		"write /proc/sys/vm/panic_on_oom": "EROFS EACCES", "write /proc/sys/kernel/hotplug": "EROFS EACCES ENOENT",
		"write /proc/irq/default_smp_affinity": "EROFS EACCES ENOENT",
	}},
	{7, "isolate", map[string]string{"write /proc/sysrq-trigger": "EROFS EACCES ENOENT"}},
	{8, "isolate", map[string]string{
		"size kcore": "0 ENOENT", "size keys": "0 ENOENT", "size timer_list": "0 ENOENT", "size sched_debug": "0 ENOENT",
		"size interrupts": "0 ENOENT", "size latency_stats": "0 ENOENT",
	}},
	{9, "isolate", map[string]string{"kallsyms": "0"}},
	{10, "isolate", map[string]string{"write /sys/power/state": "EROFS EACCES ENOENT", "write /sys/kernel/uevent_helper": "EROFS EACCES ENOENT"}},
	{11, "isolate", map[string]string{"release_agent": "", "cgroup mount": "EPERM"}},
	{12, "identity", map[string]string{"CapEff": eleven, "CapPrm": eleven, "CapBnd": eleven, "CapInh": "0000000000000000", "CapAmb": "0000000000000000"}},
	{13, "identity", map[string]string{"NoNewPrivs": "1", "Seccomp": "2"}},
	{14, "isolate", map[string]string{"mknod b": "EPERM", "mknod c": "EPERM"}},
	{15, "isolate", map[string]string{"open image device": "ENOENT"}},
	{16, "isolate", map[string]string{"dev": "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero", "chmod null": "EROFS"}},
	{17, "isolate", map[string]string{"ptrace 1": "EPERM", "open 1 mem": "EACCES EPERM", "open 1 environ": "EACCES EPERM", "open 1 root": "EACCES EPERM", "open 1 fd/3": "EACCES EPERM"}},
	{18, "isolate", map[string]string{
		"setns mnt": "EACCES EPERM", "setns pid": "EACCES EPERM", "setns net": "EACCES EPERM", "setns user": "EACCES EPERM",
		"setns ipc": "EACCES EPERM", "setns self": "EPERM",
	}},
	{19, "isolate", map[string]string{"user namespace": "EPERM", "mount namespace": "EPERM"}},
	{19, "calls", map[string]string{"unshare": "EPERM", "clone user": "EPERM", "clone3": "ENOSYS"}},
	{20, "calls", map[string]string{"add_key": "EPERM", "keyctl": "EPERM", "request_key": "EPERM"}},
	{21, "calls", map[string]string{
		"bpf": "EPERM", "perf_event_open": "EPERM", "userfaultfd": "EPERM", "io_uring_setup": "EPERM", "kexec_load": "EPERM", "init_module": "EPERM",
		"open_by_handle_at": "EPERM", "quotactl": "EPERM", "acct": "EPERM", "swapon": "EPERM", "reboot": "EPERM", "settimeofday": "EPERM", "syslog": "EPERM",
	}},
	{22, "calls", map[string]string{"alg": "EPERM", "vsock": "EPERM", "packet": "EPERM", "unix": "ok"}},
	{23, "calls", map[string]string{"x32": "ENOSYS", "new call": "ENOSYS", "getpid": "ok"}},
	{24, "calls", map[string]string{"personality": "EPERM", "personality 0": "ok"}},
	{27, "calls", map[string]string{"terminal": "ok", "sti": "EPERM", "sti high": "EPERM", "linux": "EPERM", "linux high": "EPERM"}},
	{28, "isolate", map[string]string{"interfaces": "lo", "loopback": "ok", "abstract": "ECONNREFUSED", "host port": "ECONNREFUSED"}},
	{29, "isolate", map[string]string{"host socket": "ENOENT"}},
	{30, "isolate", map[string]string{"shm": "ENOENT"}},
	{31, "isolate", map[string]string{"sethostname": "EPERM"}},
	{32, "exe", map[string]string{"write /proc/1/exe": "EACCES EPERM", "write /proc/self/exe": "ETXTBSY"}},
	{38, "isolate", map[string]string{"oom": "EACCES EPERM"}},
	{42, "isolate", map[string]string{"open 1 exe": "EACCES EPERM", "open 1 cwd": "EACCES EPERM"}},
	{46, "identity", map[string]string{"core": "0 0"}},
}

// TestChecks lets the probe look from inside, for each kind of caller.
func TestChecks(t *testing.T) {
	old := caller{"root before mount_setattr", func(t testing.TB) *host {
		h := newHost(t)
		h.lacking = "mount_setattr"
		return h
	}}
	for _, who := range append(callers(), old) {
		t.Run(who.name, func(t *testing.T) {
			h := who.host(t)
			image := h.probeImage(fixtures.File{Name: "mem", Type: '3', Major: 1, Minor: 1, Mode: 0o666})
			got := map[string]map[string]string{}
			side := newFarSide(t)
			for _, ask := range []string{"isolate", "calls", "identity", "exe"} {
				got[ask] = probed(t, h.ok(append([]string{"run", image, ask}, side.args(ask)...)...))
			}
			for _, l := range looks {
				for what, want := range l.want {
					if want == "ETXTBSY" && kernelBefore(5, 15) {
						want = "ETXTBSY ok" // of an overlay, the file below was what could not be written to
					}
					if has := got[l.ask][what]; has != want && !slices.Contains(strings.Fields(want), has) {
						t.Errorf("check %d: %s: %q, want %q", l.number, what, has, want)
					}
				}
			}
			if info := got["isolate"]["mountinfo"]; strings.Contains(info, h.dir) || strings.Contains(info, workDir) {
				t.Errorf("check 42: mountinfo tells where the store is:\n%s", info)
			}
			if fds := got["isolate"]["fds"]; len(strings.Fields(fds)) != 3 || strings.Contains(fds, "=") {
				t.Errorf("check 25: open files: %s", fds)
			}
		})
	}
}

// caller is somebody who runs sandboxes.
type caller struct {
	name string
	host func(t testing.TB) *host
}

// callers are those who can run sandboxes on this kernel.
func callers() []caller {
	if kernelBefore(5, 11) {
		return []caller{{"root", newHost}}
	}
	return []caller{
		{"root", newHost},
		{"one id", func(t testing.TB) *host { return newHost(t).asUser(65534) }},
		{"ranges", func(t testing.TB) *host { return newHost(t).asRanger(rangerUIDs, rangerGIDs) }},
	}
}

var builtProbe = sync.OnceValues(func() (string, error) {
	if built := os.Getenv(probeVar); built != "" {
		raw, err := os.ReadFile(built)
		return string(raw), err
	}
	exe := filepath.Join(workDir, "probe")
	build := exec.Command("go", "build", "-o", exe, "../sandbox/testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	raw, err := os.ReadFile(exe)
	return string(raw), err
})

// probeImage makes an image of the probe and more files, and returns what it is
// called.
func (h *host) probeImage(more ...fixtures.File) string {
	h.t.Helper()
	return h.probeImageOf("probe", ocispec.ImageConfig{Entrypoint: []string{"/bin/probe"}}, more...)
}

func (h *host) probeImageOf(name string, config ocispec.ImageConfig, more ...fixtures.File) string {
	h.t.Helper()
	probe, err := builtProbe()
	if err != nil {
		h.t.Fatal(err)
	}
	files := append([]fixtures.File{
		{Name: "bin/"}, {Name: "bin/probe", Body: probe, Mode: 0o755}, {Name: "tmp/", Mode: 0o1777},
		{Name: "etc/"}, {Name: "etc/passwd", Body: "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"}, {Name: "etc/group", Body: "root:x:0:\n"},
	}, more...)
	b := fixtures.NewBlobs()
	if err := b.SaveLayout(h.path(name), fixtures.Root("example.com/"+name+":1", b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Files: files}}, Config: config}))); err != nil {
		h.t.Fatal(err)
	}
	return "oci:" + name
}

func probed(t testing.TB, out string) map[string]string {
	t.Helper()
	var m map[string]string
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return m
}

// farSide is what the host has for the probe to fail to reach.
type farSide struct{ isolate []string }

func newFarSide(t *testing.T) farSide {
	t.Helper()
	listen := func(network, addr string) string {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.Addr().String()
	}
	abstract := fmt.Sprintf("imgpack-checks-%d", os.Getpid())
	listen("unix", "@"+abstract)
	_, port, _ := net.SplitHostPort(listen("tcp", "127.0.0.1:0"))
	path := listen("unix", filepath.Join(t.TempDir(), "s"))
	key := 0x2000000 + os.Getpid()
	id, err := unix.SysvShmGet(key, 4096, unix.IPC_CREAT|0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	return farSide{[]string{strconv.Itoa(os.Getpid()), abstract, port, path, strconv.Itoa(key)}}
}

func (s farSide) args(ask string) []string {
	if ask == "isolate" {
		return s.isolate
	}
	return nil
}

// beside is what the probe finds otherwise under runc and crun, with the
// config.json of unpack --as runtime, and why; docs/sandbox.md tells it.
var beside = map[string][]string{
	"the command is process 1 itself": {
		"pids", "cmdline 1", "open 1 cwd", "open 1 environ", "open 1 exe", "open 1 fd/0", "open 1 fd/3", "open 1 maps", "open 1 mem", "open 1 root",
		"setns ipc", "setns mnt", "setns net", "setns pid", "setns user",
	},
	"docker's 14 capabilities, and no user namespace": {"CapBnd", "CapEff", "CapPrm", "mknod b", "mknod c", "root", "chmod null", "packet", "raw"},
	"input can be pushed into terminals":              {"sti", "sti high", "linux", "linux high"},
	"cgroups show, read-only":                         {"release_agent"},
	"crun's /dev/core":                                {"dev"},
	"crun's table of system calls":                    {"new call"},
	"core files are limited softly":                   {"core"},
	"no supplementary group 0":                        {"Groups"},
	"signals that the caller ignores stay ignored":    {"SigIgn"},
}

// TestChecksBeside lets the same probe look under runc and crun.
func TestChecksBeside(t *testing.T) {
	need(t, "runc", "crun")
	h := newHost(t)
	image := h.probeImage()
	side := newFarSide(t)
	known := slices.Concat(slices.Collect(maps.Values(beside))...)
	for _, runtime := range []string{"runc", "crun"} {
		h.ok("unpack", "--as", "runtime", image, runtime)
		for _, ask := range []string{"isolate", "calls", "identity"} {
			ours := probed(t, h.ok(append([]string{"run", image, ask}, side.args(ask)...)...))
			withArgs(t, h.path(runtime), append([]string{"/bin/probe", ask}, side.args(ask)...)...)
			r := h.runBundle(t, runtime, h.path(runtime))
			if r.code != 0 {
				t.Fatalf("%s: %d %s", runtime, r.code, r.stderr)
			}
			theirs := probed(t, r.stdout)
			for _, what := range slices.Sorted(maps.Keys(ours)) {
				if ours[what] != theirs[what] && what != "mountinfo" && what != "fds" && !slices.Contains(known, what) {
					t.Errorf("%s: %s: %q, in our sandbox %q", runtime, what, theirs[what], ours[what])
				}
			}
		}
	}
}
