//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/early"
)

// hostSide is what the host offers for the process to fail to reach.
type hostSide struct {
	abstract, port, path string
	shmKey               int
}

func newHostSide(t *testing.T) hostSide {
	t.Helper()
	h := hostSide{abstract: fmt.Sprintf("imgpack-test-%d", os.Getpid()), shmKey: 0x1000000 + os.Getpid()}
	listen := func(network, addr string) net.Listener {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	listen("unix", "@"+h.abstract)
	_, h.port, _ = net.SplitHostPort(listen("tcp", "127.0.0.1:0").Addr().String())
	h.path = filepath.Join(t.TempDir(), "s")
	listen("unix", h.path)
	id, err := unix.SysvShmGet(h.shmKey, 4096, unix.IPC_CREAT|0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	return h
}

func isolate(t *testing.T, s Spec, h hostSide) map[string]string {
	t.Helper()
	s.Args = isolateArgs(h)
	return probe[map[string]string](t, s)
}

func isolateArgs(h hostSide) []string {
	return []string{"/bin/probe", "isolate", strconv.Itoa(os.Getpid()), h.abstract, h.port, h.path, strconv.Itoa(h.shmKey)}
}

// TestIsolation makes the checks that one look from inside can make.
func TestIsolation(t *testing.T) {
	im := newImage(t)
	if !rootless(t) {
		if err := unix.Mknod(im.path("mem"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 1))); err != nil {
			t.Fatal(err)
		}
	}
	// Descriptors that the caller holds, one of them inheritable.
	secret, err := unix.Open("/etc", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(secret)

	got := isolate(t, im.spec(), newHostSide(t))
	for _, c := range []struct{ check, want string }{
		{"pids", "2"}, // process 1 and the probe
		{"kill", "ESRCH"},
		{"mount", "EPERM"}, {"fsopen", "EPERM"}, {"open_tree", "EPERM"}, {"move_mount", "EPERM"},
		{"remount", "EPERM"}, {"setattr", "EPERM"}, {"umount kcore", "EPERM ENOENT"}, {"umount keys", "EPERM"},
		{"pivot", "EPERM"}, {"cgroup mount", "EPERM"},
		{"write /proc/sys/kernel/core_pattern", "EROFS EACCES"}, {"write /proc/sys/kernel/modprobe", "EROFS EACCES ENOENT"},
		{"write /proc/sys/vm/panic_on_oom", "EROFS EACCES"}, {"write /proc/sys/kernel/hotplug", "EROFS EACCES ENOENT"},
		{"write /proc/sysrq-trigger", "EROFS EACCES ENOENT"}, {"write /sys/power/state", "EROFS EACCES ENOENT"},
		{"write /proc/irq/default_smp_affinity", "EROFS EACCES ENOENT"},
		{"write /sys/kernel/uevent_helper", "EROFS EACCES ENOENT"},
		{"size kcore", "0 ENOENT"}, {"size keys", "0 ENOENT"}, {"size timer_list", "0 ENOENT"},
		{"size sched_debug", "0 ENOENT"}, {"size interrupts", "0 ENOENT"}, {"size latency_stats", "0 ENOENT"},
		{"kallsyms", "0"},
		{"mknod b", "EPERM"}, {"mknod c", "EPERM"},
		{"open image device", "EACCES ENOENT"},
		{"dev", "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"},
		{"dev null", "ok"}, {"dev zero", "ok"}, {"dev full", "ok"}, {"dev random", "ok"}, {"dev urandom", "ok"},
		{"chmod null", "EROFS"}, {"pty", "ok"}, {"user namespace", "EPERM"}, {"mount namespace", "EPERM"},
		{"ptrace 1", "EPERM"}, {"open 1 environ", "EACCES EPERM"}, {"open 1 mem", "EACCES EPERM"},
		{"open 1 maps", "EACCES EPERM"}, {"open 1 fd/0", "EACCES EPERM"}, {"open 1 fd/3", "EACCES EPERM"}, {"open 1 root", "EACCES EPERM"},
		{"open 1 exe", "EACCES EPERM"}, {"open 1 cwd", "EACCES EPERM"},
		{"setns mnt", "EACCES EPERM"}, {"setns pid", "EACCES EPERM"}, {"setns net", "EACCES EPERM"},
		{"setns user", "EACCES EPERM"}, {"setns ipc", "EACCES EPERM"}, {"setns self", "EPERM"},
		{"cmdline 1", early.Name},
		{"sethostname", "EPERM"}, {"oom", "EACCES EPERM"}, {"swapon", "EPERM"}, {"reboot", "EPERM"}, {"module", "EPERM ENOSYS"},
		{"packet", "EPERM"}, {"raw", "EPERM"},
		{"interfaces", "lo"}, {"loopback", "ok"}, {"abstract", "ECONNREFUSED"}, {"host port", "ECONNREFUSED"},
		{"host socket", "ENOENT"}, {"shm", "ENOENT"},
		{"root", "bin dev etc" + deviceIn(t) + " proc sys tmp"},
		{"release_agent", ""},
	} {
		if !anyOf(c.want, got[c.check]) {
			t.Errorf("%s: %q, want %q", c.check, got[c.check], c.want)
		}
	}
	checkFDs(t, got["fds"])
	checkMounts(t, got["mountinfo"], im.dir)
}

// deviceIn is the name of the device node that only root could put into the
// image, as it shows in a listing.
func deviceIn(t *testing.T) string {
	if rootless(t) {
		return ""
	}
	return " mem"
}

// anyOf says whether got is one of the words of want, or want itself.
func anyOf(want, got string) bool {
	if want == got {
		return true
	}
	for w := range strings.FieldsSeq(want) {
		if w == got {
			return true
		}
	}
	return false
}

func checkFDs(t *testing.T, fds string) {
	t.Helper()
	if f := strings.Fields(fds); len(f) != 3 || strings.Contains(fds, "=") {
		t.Errorf("open files: %q; want only 0, 1 and 2", fds)
	}
}

// checkMounts wants our mounts and no others. The path of the layers may show
// nowhere either.
func checkMounts(t *testing.T, info, dir string) {
	t.Helper()
	known := []string{"/", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc", "/sys", "/dev"}
	for line := range strings.Lines(info) {
		f := strings.Fields(line)
		at := f[4]
		ok := false
		for _, k := range known {
			ok = ok || at == k || k != "/" && strings.HasPrefix(at, k+"/")
		}
		if !ok {
			t.Errorf("unknown mount: %s", line)
		}
		if strings.Contains(line, "shared:") || strings.Contains(line, "master:") {
			t.Errorf("mount is not private: %s", line)
		}
		if at == "/" && !strings.Contains(f[5], "nodev") {
			t.Errorf("/ allows devices: %s", line)
		}
	}
	if strings.Contains(info, dir) {
		t.Errorf("mountinfo tells the host's path:\n%s", info)
	}
}

// TestIsolationOtherUser makes the checks for a user that is not root.
func TestIsolationOtherUser(t *testing.T) {
	im := newImage(t)
	s := im.spec()
	s.User = "app"
	got := isolate(t, s, newHostSide(t))
	for check, want := range map[string]string{
		"pids": "2", "kill": "ESRCH EPERM", "mount": "EPERM", "fsopen": "EPERM", "umount keys": "EPERM", "mknod c": "EPERM EACCES",
		"ptrace 1": "EPERM", "open 1 exe": "EACCES EPERM", "open 1 mem": "EACCES EPERM", "setns mnt": "EACCES EPERM", "sethostname": "EPERM",
		"packet": "EPERM", "raw": "EPERM", "write /proc/sys/kernel/core_pattern": "EROFS EACCES", "oom": "EACCES EPERM", "kallsyms": "0",
		"abstract": "ECONNREFUSED", "loopback": "ok", "dev null": "ok", "chmod null": "EROFS EPERM", "pty": "ok",
		"user namespace": "EPERM", "mount namespace": "EPERM",
	} {
		if !anyOf(want, got[check]) {
			t.Errorf("%s: %q, want %q", check, got[check], want)
		}
	}
	checkFDs(t, got["fds"])
}

const (
	eleven   = "00000000800405fb" // the default set
	noCaps   = "0000000000000000"
	onlyKill = "0000000000000020"
)

func TestCapabilities(t *testing.T) {
	im := newImage(t)
	nested := rootless(t)
	for _, c := range []struct {
		name, user string
		caps       []string
		eff, bnd   string
	}{
		{"default", "", nil, eleven, eleven},
		{"none", "", []string{}, noCaps, noCaps},
		{"one", "root", []string{"kill"}, onlyKill, onlyKill},
		{"user", "app", nil, noCaps, eleven},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := im.spec("identity")
			s.User, s.Capabilities = c.user, c.caps
			got := probe[map[string]string](t, s)
			want := map[string]string{
				"CapEff": c.eff, "CapPrm": c.eff, "CapBnd": c.bnd, "CapInh": noCaps, "CapAmb": noCaps, "NoNewPrivs": "1",
				"SigBlk": noCaps, "core": "0 0", "Umask": "0022", "leader": "true",
			}
			if nested && c.user == "app" {
				delete(want, "CapBnd") // a new user namespace has it full; no_new_privs keeps it out of reach
			}
			for k, w := range want {
				if got[k] != w {
					t.Errorf("%s: %q, want %q", k, got[k], w)
				}
			}
			if ign := got["SigIgn"]; ign != noCaps {
				t.Errorf("ignored signals: %s", ign)
			}
		})
	}
	s := im.spec("identity")
	s.Capabilities = []string{"CAP_FLY"}
	wantStart(t, run(t, s), CodeStart, "CAP_FLY")
}

// nofileELF is a program that writes its RLIMIT_NOFILE, two 64-bit numbers, to
// standard output. A Go program cannot tell: its runtime changes the limit.
func nofileELF() string {
	code := "\xb8\x61\x00\x00\x00\xbf\x07\x00\x00\x00\x48\x8d\x74\x24\xe0\x0f\x05" + // getrlimit(7, rsp-32)
		"\xb8\x01\x00\x00\x00\xbf\x01\x00\x00\x00\x48\x8d\x74\x24\xe0\xba\x10\x00\x00\x00\x0f\x05" + // write(1, rsp-32, 16)
		"\xb8\xe7\x00\x00\x00\x31\xff\x0f\x05" // exit_group(0)
	return tinyELF(elf.EM_X86_64, code, "")
}

// TestCallersHabits wants the caller's own limit of open files, not the one
// that the Go runtime raises for itself, and nothing of the signals that the
// caller ignores.
func TestCallersHabits(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("has machine code of amd64")
	}
	im := newImage(t)
	im.write("bin/nofile", nofileELF(), 0o755)
	const soft = 777
	c := call{Lower: []string{im.dir}, Args: []string{"/bin/nofile"}, Nofile: soft}
	out, err := c.command(t).Output()
	if err != nil || len(out) != 16 {
		t.Fatalf("%v, %d bytes", err, len(out))
	}
	if got := binary.LittleEndian.Uint64([]byte(out)); got != soft {
		t.Errorf("open files: %d, want %d", got, soft)
	}
	c.Args = []string{"/bin/probe", "identity"}
	out, err = c.command(t).Output()
	if err != nil || !strings.Contains(string(out), `"SigIgn":"`+noCaps) || !strings.Contains(string(out), `"SigBlk":"`+noCaps) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestHostNetwork(t *testing.T) {
	im := newImage(t)
	s := im.spec()
	s.Network = Host
	h := newHostSide(t)
	got := isolate(t, s, h)
	if got["host port"] != "ok" || got["abstract"] != "ok" {
		t.Errorf("host network not reached: port %s, abstract socket %s", got["host port"], got["abstract"])
	}
	for _, check := range []string{"mount", "packet", "raw", "setns net"} {
		if !anyOf("EPERM EACCES", got[check]) {
			t.Errorf("%s: %s", check, got[check])
		}
	}
}
