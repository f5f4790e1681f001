//go:build linux

package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	docker "github.com/moby/profiles/seccomp"
)

var arches = []string{"amd64", "arm64"}

func target(arch string, caps ...string) Target {
	return Target{Arch: arch, Capabilities: caps, Kernel: [2]int{6, 18}}
}

func TestDefaultAgainstEvaluation(t *testing.T) {
	for _, arch := range arches {
		for _, caps := range [][]string{nil, {"CAP_SYS_CHROOT"}, {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF"}} {
			compare(t, Default(), target(arch, caps...), 20_000)
		}
		old := target(arch)
		old.Kernel = [2]int{4, 7}
		compare(t, Default(), old, 2_000)
	}
}

// TestDefaultDecisions are what people rely on.
func TestDefaultDecisions(t *testing.T) {
	const (
		eperm  = fail | verdict(unix.EPERM)
		enosys = fail | verdict(unix.ENOSYS)
	)
	for _, arch := range arches {
		m, err := machineOf(arch)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Default().Compile(target(arch))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(f.Program) / instructionSize; n > 200 {
			t.Errorf("%s: %d instructions", arch, n)
		}
		vm := newVM(t, f)
		for _, c := range []struct {
			name string
			args [6]uint64
			want verdict
		}{
			{"read", [6]uint64{}, allow}, {"execve", [6]uint64{}, allow}, {"newfstatat", [6]uint64{}, allow}, {"openat2", [6]uint64{}, allow},
			{"keyctl", [6]uint64{}, eperm}, {"add_key", [6]uint64{}, eperm}, {"bpf", [6]uint64{}, eperm}, {"userfaultfd", [6]uint64{}, eperm},
			{"io_uring_setup", [6]uint64{}, eperm}, {"perf_event_open", [6]uint64{}, eperm}, {"kexec_load", [6]uint64{}, eperm},
			{"unshare", [6]uint64{}, eperm}, {"setns", [6]uint64{}, eperm}, {"mount", [6]uint64{}, eperm}, {"chroot", [6]uint64{}, eperm},
			{"clone3", [6]uint64{}, enosys},
			{"clone", [6]uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}, allow},
			{"clone", [6]uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, eperm},
			{"clone", [6]uint64{unix.CLONE_NEWNS}, eperm},
			{"socket", [6]uint64{unix.AF_INET}, allow}, {"socket", [6]uint64{unix.AF_ALG}, eperm}, {"socket", [6]uint64{unix.AF_VSOCK}, eperm},
			{"socket", [6]uint64{39}, allow}, {"socket", [6]uint64{41}, allow},
			{"personality", [6]uint64{0}, allow}, {"personality", [6]uint64{0xffffffff}, allow}, {"personality", [6]uint64{0x40000}, eperm},
			{"ioctl", [6]uint64{0, unix.TCGETS}, allow}, {"ioctl", [6]uint64{0, unix.TIOCSTI}, eperm},
			{"ioctl", [6]uint64{0, 1<<32 | unix.TIOCSTI}, eperm}, {"ioctl", [6]uint64{0, 0xffffffff0000541c}, eperm},
		} {
			nr, ok := m.number(c.name)
			if !ok {
				t.Fatalf("%s has no %s", arch, c.name)
			}
			if got := decide(t, vm, event{nr, m.audit, c.args}); got != c.want {
				t.Errorf("%s %s%#x: %#x, want %#x", arch, c.name, c.args, got, c.want)
			}
		}
		for _, nr := range []uint32{460 + 60, 1 << 20, x32Bit | 39, 1<<32 - 1} {
			if got := decide(t, vm, event{number: nr, audit: m.audit}); got != enosys {
				t.Errorf("%s call %d: %#x", arch, nr, got)
			}
		}
		if got := decide(t, vm, event{audit: unix.AUDIT_ARCH_I386}); got != killProcess {
			t.Errorf("%s, other architecture: %#x", arch, got)
		}
	}
}

// TestDockersFile: the file that docker writes gives the policy that its
// package does.
func TestDockersFile(t *testing.T) {
	raw, err := json.Marshal(docker.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	own := Default()
	own.first = nil
	for _, arch := range arches {
		a, err := parsed.Compile(target(arch, "CAP_SYS_CHROOT"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := own.Compile(target(arch, "CAP_SYS_CHROOT"))
		if err != nil || string(a.Program) != string(b.Program) || a.Allowed != b.Allowed {
			t.Errorf("%s: differ (%v)", arch, err)
		}
	}
}

// profiles that are unlike docker's.
var profiles = []string{
	`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}`,
	`{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[{"name":"read","action":"SCMP_ACT_LOG"},{"names":["write"],"action":"SCMP_ACT_TRAP"}]}`,
	`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"ENOSYS","flags":["SECCOMP_FILTER_FLAG_LOG"],"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[
	  {"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":5,"op":"SCMP_CMP_GE"},{"index":1,"value":9,"op":"SCMP_CMP_LT"}]},
	  {"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":3,"op":"SCMP_CMP_NE"},{"index":2,"value":4294967296,"op":"SCMP_CMP_LE"}]},
	  {"names":["read"],"action":"SCMP_ACT_TRACE","errnoRet":7,"args":[{"index":5,"value":18446744073709551615,"op":"SCMP_CMP_GT"}]},
	  {"names":["write"],"action":"SCMP_ACT_KILL","args":[{"index":0,"value":255,"valueTwo":18446744073709551362,"op":"SCMP_CMP_MASKED_EQ"}]},
	  {"names":["write"],"action":"SCMP_ACT_ERRNO","errno":"EACCES"},
	  {"names":["write"],"action":"SCMP_ACT_ALLOW"},
	  {"names":["getpid","no_such_call"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_A"],"minKernel":"5.4"},"excludes":{"arches":["arm64"]}},
	  {"names":["getppid"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"5.4","caps":["CAP_A"]},"comment":"old"}]}`,
}

func TestOtherProfiles(t *testing.T) {
	for i, raw := range append(profiles, long(60)) {
		p, err := Parse([]byte(raw))
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		for _, arch := range arches {
			compare(t, p, target(arch), 5_000)
			compare(t, p, target(arch, "CAP_A"), 5_000)
		}
	}
}

// long is a profile with n conditions on each of several calls, so that jumps
// go further than one instruction can.
func long(n int) string {
	var b strings.Builder
	b.WriteString(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["getpid"],"action":"SCMP_ACT_ALLOW"}`)
	for i := range n {
		op := []string{"EQ", "NE", "LT", "LE", "GT", "GE"}[i%6]
		fmt.Fprintf(&b, `,{"names":["write","ioctl","close"],"action":"SCMP_ACT_ERRNO","errnoRet":%d,"args":[{"index":%d,"value":%d,"op":"SCMP_CMP_%s"},{"index":1,"value":%d,"op":"SCMP_CMP_EQ"}]}`,
			i, 2+i%4, uint64(i)<<i, op, i)
	}
	return b.String() + "]}"
}

func TestTooLong(t *testing.T) {
	p, err := Parse([]byte(long(2000)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Compile(target("amd64")); err == nil || !strings.Contains(err.Error(), "4096") {
		t.Errorf("got %v", err)
	}
	if _, err := p.Compile(target("vax")); !errors.Is(err, ErrArch) {
		t.Errorf("got %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	rule := func(s string) string { return `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[` + s + `]}` }
	for _, c := range []struct{ raw, want string }{
		{"", "empty"}, {"null", "empty"}, {"{}", "no defaultAction"}, {"[]", "cannot unmarshal"}, {"{", "unexpected EOF"},
		{`{"defaultAction":"SCMP_ACT_ERRNO"} x`, "follows"}, {`{"defaultAction":"SCMP_ACT_MAYBE"}`, `unknown action "SCMP_ACT_MAYBE"`},
		{`{"defaultAction":"SCMP_ACT_ERRNO","seccomp":1}`, `unknown field "seccomp"`},
		{`{"defaultAction":"SCMP_ACT_ERRNO","flags":["FAST"]}`, `unknown flag "FAST"`},
		{`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}`, "error number 4096"},
		{`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"EWHAT"}`, `unknown error "EWHAT"`},
		{`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["PDP11"]}`, `unknown architecture "PDP11"`},
		{`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_ARM"],"archMap":[{"architecture":"SCMP_ARCH_ARM"}]}`, "both"},
		{rule(`{}`), "rule 1: no names"}, {rule(`{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}`), "both name and names"},
		{rule(`{"names":["a"]}`), `unknown action ""`}, {rule(`{"names":["a"],"action":"SCMP_ACT_NOTIFY"}`), "listener"},
		{rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}`), "argument 6"},
		{rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":-1,"op":"SCMP_CMP_EQ"}]}`), "cannot unmarshal"},
		{rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_LIKE"}]}`), `unknown operator "SCMP_CMP_LIKE"`},
		{rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","agrs":[]}`), `unknown field "agrs"`},
		{rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"5"}}`), "minKernel"},
		{rule(`{"names":["a"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"0.0"}}`), "minKernel"},
		{rule(`{"names":["a"],"action":"SCMP_ACT_TRACE","errnoRet":65536}`), "65536"},
		{strings.Repeat(" ", MaxProfile+1), "bytes, more than"},
	} {
		if _, err := Parse([]byte(c.raw)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: %v, want %q", c.raw, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range profiles {
		f.Add([]byte(p), uint32(1), uint64(5))
	}
	raw, err := json.Marshal(docker.DefaultProfile())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, uint32(16), uint64(unix.TIOCSTI))
	f.Fuzz(func(t *testing.T, raw []byte, number uint32, value uint64) {
		p, err := Parse(raw)
		if err != nil {
			return
		}
		for _, arch := range arches {
			tg := target(arch, "CAP_SYS_ADMIN")
			fl, err := p.Compile(tg)
			if err != nil {
				return
			}
			if n := len(fl.Program) / instructionSize; n > maxProgram {
				t.Fatalf("%d instructions", n)
			}
			m, _ := machineOf(arch)
			e := event{number, m.audit, [6]uint64{value, value, ^value, value << 32, 0, 1}}
			if got, want := decide(t, newVM(t, fl), e), judge(p, tg, e); got != want {
				t.Fatalf("%s %+v: %#x, want %#x", arch, e, got, want)
			}
		}
	})
}

const childEnv = "IMGPACK_TEST_FILTERED"

// TestInstall asks the kernel: the filter holds on the thread that installs it.
func TestInstall(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		installed()
	}
	if _, err := machineOf(runtime.GOARCH); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestInstall$")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.CombinedOutput()
	want := "mkdir permission denied, getpid ok, new call function not implemented\n"
	if err != nil || string(out) != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
}

func installed() {
	runtime.LockOSThread()
	p, err := Parse([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdirat","mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}`))
	if err == nil {
		err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	var f *Filter
	if err == nil {
		f, err = p.Compile(Target{Arch: runtime.GOARCH})
	}
	if err == nil {
		err = f.Install()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	mkdir := unix.Mkdirat(unix.AT_FDCWD, "/x", 0)
	getpid := "ok"
	if unix.Getpid() <= 0 {
		getpid = "not ok"
	}
	_, _, e := unix.RawSyscall(x32Bit|39, 0, 0, 0)
	fmt.Printf("mkdir %v, getpid %s, new call %v\n", mkdir, getpid, e)
	os.Exit(0)
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := Default().Compile(target("amd64", "CAP_SYS_CHROOT")); err != nil {
			b.Fatal(err)
		}
	}
}
