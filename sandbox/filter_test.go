//go:build linux && (amd64 || arm64)

package sandbox

import (
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	docker "github.com/moby/profiles/seccomp"

	"github.com/imgpack/imgpack/sandbox/internal/startlimit"
)

// refused is what the default filter makes of system calls, for any user.
var refused = map[string]string{
	"NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "1",
	"add_key": "EPERM", "keyctl": "EPERM", "request_key": "EPERM", "bpf": "EPERM", "perf_event_open": "EPERM", "userfaultfd": "EPERM",
	"io_uring_setup": "EPERM", "kexec_load": "EPERM", "init_module": "EPERM", "open_by_handle_at": "EPERM", "quotactl": "EPERM",
	"acct": "EPERM", "swapon": "EPERM", "reboot": "EPERM", "settimeofday": "EPERM", "syslog": "EPERM", "unshare": "EPERM", "setns": "EPERM",
	"clone user": "EPERM", "clone3": "ENOSYS", "personality": "EPERM", "x32": "ENOSYS", "new call": "ENOSYS",
	"alg": "EPERM", "vsock": "EPERM", "packet": "EPERM",
	"terminal": "ok", "sti": "EPERM", "sti high": "EPERM", "linux": "EPERM", "linux high": "EPERM",
	"personality 0": "ok", "getpid": "ok", "unix": "ok", "mkdir": "ok",
}

// wantCalls makes system calls, and wants what is said of the filter.
func wantCalls(t *testing.T, s Spec, all map[string]string, said string) {
	t.Helper()
	r := good(t, s)
	got := decode[map[string]string](t, r.out)
	for call, want := range all {
		if got[call] != want {
			t.Errorf("user %q: %s: %q, want %q", s.User, call, got[call], want)
		}
	}
	if !strings.Contains(r.explains, said) {
		t.Errorf("not explained:\n%s", r.explains)
	}
}

// TestFilter makes the system calls that the default filter is about, as root
// and as another user of the image.
func TestFilter(t *testing.T) {
	im := newImage(t)
	for _, user := range []string{"", "app"} {
		s := im.spec("calls")
		s.User = user
		wantCalls(t, s, refused, "system calls: 3")
	}
}

// TestFilterFollowsCapabilities: what docker allows to a capability is allowed
// with it.
func TestFilterFollowsCapabilities(t *testing.T) {
	im := newImage(t)
	s := im.spec("calls")
	s.Capabilities = append(DefaultCapabilities(), "CAP_SYS_ADMIN", "CAP_SYSLOG")
	got := probe[map[string]string](t, s)
	// Refused by the kernel, for its own reasons.
	if got["setns"] == "EPERM" || got["clone3"] == "ENOSYS" || got["clone user"] != "ENOSPC" {
		t.Errorf("setns %s, clone3 %s, clone %s", got["setns"], got["clone3"], got["clone user"])
	}
	if got["keyctl"] != "EPERM" || got["sti"] != "EPERM" {
		t.Errorf("keyctl %s, TIOCSTI %s", got["keyctl"], got["sti"])
	}
}

func TestUnconfined(t *testing.T) {
	im := newImage(t)
	for _, user := range []string{"", "app"} {
		s := im.spec("calls")
		s.User, s.Unconfined = user, true
		// The limit on user namespaces does without the filter.
		wantCalls(t, s, map[string]string{"Seccomp": "0", "personality": "ok", "clone user": "ENOSPC", "keyctl": "ok"}, "system calls: not filtered, as asked for")
	}
}

// TestOwnProfile runs under profiles in docker's JSON.
func TestOwnProfile(t *testing.T) {
	im := newImage(t)
	s := im.spec("calls")
	s.Seccomp = []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}`)
	for _, user := range []string{"", "app"} {
		s.User = user
		r := good(t, s)
		got := decode[map[string]string](t, r.out)
		for call, want := range map[string]string{"Seccomp": "2", "mkdir": "ENOSPC", "personality": "ok", "clone user": "ENOSPC", "x32": "ENOSYS"} {
			if got[call] != want {
				t.Errorf("user %q: %s: %q, want %q", user, call, got[call], want)
			}
		}
		if !strings.Contains(r.explains, "by the given profile") {
			t.Errorf("not explained:\n%s", r.explains)
		}
	}
	raw, err := json.Marshal(docker.DefaultProfile())
	check(t, err)
	s = im.spec("calls")
	s.Seccomp = raw
	got := probe[map[string]string](t, s)
	for call, want := range refused {
		if got[call] != want && !strings.Contains(call, "sti") && !strings.Contains(call, "linux") {
			t.Errorf("docker's profile: %s: %q, want %q", call, got[call], want)
		}
	}
	s.Seccomp = []byte(`{"defaultAction":"SCMP_ACT_MAYBE"}`)
	wantStart(t, run(t, s), CodeStart, "check system call filter", "SCMP_ACT_MAYBE")
	s.Seccomp = []byte{}
	wantStart(t, run(t, s), CodeStart, "check system call filter", "empty")
}

// exitELF ends with 7, by exit_group alone.
func exitELF() string {
	return tinyELF(elf.EM_X86_64, "\xb8\xe7\x00\x00\x00\xbf\x07\x00\x00\x00\x0f\x05", "")
}

// TestNarrowProfile: what starts the command needs nothing of the profile but
// execve, neither in process 1 nor in the child.
func TestNarrowProfile(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("has machine code of amd64")
	}
	im := newImage(t)
	im.write("bin/seven", exitELF(), 0o755)
	im.write("bin/broken", "\x7fELF", 0o755)
	for _, c := range []struct {
		calls, action, command string
		code                   int // of the command
		start                  int // of a StartError
	}{
		{`"execve","exit_group"`, "SCMP_ACT_KILL_PROCESS", "/bin/seven", 7, 0},
		{`"execve","exit_group"`, "SCMP_ACT_ERRNO", "/bin/seven", 7, 0},
		{`"execve"`, "SCMP_ACT_KILL_PROCESS", "/bin/seven", 128 + int(syscall.SIGSYS), 0},
		{`"exit_group"`, "SCMP_ACT_KILL_PROCESS", "/bin/seven", 128 + int(syscall.SIGSYS), 0},
		{`"exit_group","write"`, "SCMP_ACT_ERRNO", "/bin/seven", 0, CodeStart},
		{`"execve","exit_group","write"`, "SCMP_ACT_ERRNO", "/bin/broken", 0, CodeNotExec},
		{`"execve"`, "SCMP_ACT_ERRNO", "/bin/broken", 128 + int(syscall.SIGSEGV), 0}, // it cannot even exit
	} {
		for _, user := range []string{"", "app"} {
			s := im.spec()
			s.Args, s.User = []string{c.command}, user
			s.Seccomp = []byte(`{"defaultAction":"` + c.action + `","syscalls":[{"names":[` + c.calls + `],"action":"SCMP_ACT_ALLOW"}]}`)
			r := run(t, s)
			switch {
			case c.start != 0:
				se := wantStart(t, r, c.start)
				if c.start == CodeStart && !strings.Contains(se.Hint, "execve") {
					t.Errorf("no hint: %v", se)
				}
			case r.err != nil || r.st.Code != c.code:
				t.Errorf("%+v as %q: %+v, %v, want %d", c, user, r.st, r.err, c.code)
			}
		}
	}
}

// TestOtherTable: calls by the table of 32-bit programs end the process.
func TestOtherTable(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("has machine code of amd64")
	}
	im := newImage(t)
	getpid := "\xb8\x14\x00\x00\x00\xcd\x80" // getpid by int 0x80
	im.write("bin/old", tinyELF(elf.EM_X86_64, getpid+"\xb8\xe7\x00\x00\x00\x31\xff\x0f\x05", ""), 0o755)
	s := im.spec()
	s.Args = []string{"/bin/old"}
	if r := run(t, s); r.err != nil || r.st.Signal != syscall.SIGSYS {
		t.Errorf("%+v, %v", r.st, r.err)
	}
	s.Unconfined = true
	good(t, s)
}

// TestFilteredLimits: a child that installs the filter itself has the caller's
// limit of open files too.
func TestFilteredLimits(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("has machine code of amd64")
	}
	var now unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &now))
	if startlimit.Nofile[1] != now.Max || startlimit.Nofile[0] > now.Cur {
		t.Errorf("at the start %v, now %v", startlimit.Nofile, now)
	}
	im := newImage(t)
	im.write("bin/nofile", nofileELF(), 0o755)
	const soft = 777
	c := call{Lower: []string{im.dir}, Args: []string{"/bin/nofile"}, Nofile: soft, Seccomp: `{"defaultAction":"SCMP_ACT_ALLOW"}`}
	out, err := c.command(t).Output()
	if err != nil || len(out) != 16 {
		t.Fatalf("%v, %d bytes", err, len(out))
	}
	if got := binary.LittleEndian.Uint64(out); got != soft {
		t.Errorf("open files: %d, want %d", got, soft)
	}
}

// TestHeavyPackages keeps what filters are made of out of the program's start.
func TestHeavyPackages(t *testing.T) {
	const most, tries = 200 * time.Microsecond, 20 // others may have the processor in between
	least := map[string]time.Duration{}
	for range tries {
		cmd := call{}.command(t)
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1", callerEnv+"={}")
		out, _ := cmd.CombinedOutput() // it has nothing to run
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			if len(f) < 6 || f[0] != "init" || !strings.Contains(f[1], "seccomp") && !strings.Contains(f[1], "startlimit") && !strings.Contains(f[1], "runtime-spec") {
				continue
			}
			d, err := time.ParseDuration(f[4] + f[5])
			check(t, err)
			if before, ok := least[f[1]]; !ok || d < before {
				least[f[1]] = d
			}
		}
		if len(least) > 0 && slices.Max(slices.Collect(maps.Values(least))) <= most {
			t.Log(least)
			return
		}
	}
	t.Errorf("heavy: %v", least)
}
