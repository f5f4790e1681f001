//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExitCodes(t *testing.T) {
	im := newImage(t)
	for _, c := range []struct {
		args []string
		want Status
	}{
		{[]string{"exit", "0"}, Status{}},
		{[]string{"exit", "3"}, Status{Code: 3}},
		{[]string{"exit", "125"}, Status{Code: 125}},
		{[]string{"exit", "255"}, Status{Code: 255}},
		{[]string{"die", "9"}, Status{Code: 137, Signal: syscall.SIGKILL}},
		{[]string{"die", "15"}, Status{Code: 143, Signal: syscall.SIGTERM}},
	} {
		r := run(t, im.spec(c.args...))
		if r.err != nil || r.st != c.want {
			t.Errorf("%q: %+v, %v; want %+v", c.args, r.st, r.err, c.want)
		}
	}
}

func TestCommandFaults(t *testing.T) {
	im := newImage(t)
	other, otherName := elf.EM_AARCH64, "arm64"
	if runtime.GOARCH == "arm64" {
		other, otherName = elf.EM_X86_64, "amd64"
	}
	native := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV}[runtime.GOARCH]
	im.write("bin/plain", "data", 0o644)
	im.write("bin/text", "echo hello\n", 0o755)
	im.write("bin/script", "#!/bin/none -x\n", 0o755)
	im.write("bin/foreign", tinyELF(other, "\x90", ""), 0o755)
	im.write("bin/dynamic", tinyELF(native, "\x90", "/lib/ld-none.so"), 0o755)
	im.symlink("loop", "bin/loop")
	im.symlink("/proc/self/exe", "bin/self")
	im.write("bin2/probe", "not this one", 0o644)
	for _, c := range []struct {
		name  string
		args0 string
		code  int
		words []string
	}{
		{"absent", "none", CodeNoSuch, []string{`"none"`, "not found in PATH"}},
		{"empty", "", CodeNoSuch, []string{"empty"}},
		{"absent path", "/bin/none", CodeNoSuch, []string{"no such file"}},
		{"absent directory", "/opt/app/bin/none", CodeNoSuch, []string{"no such file", `no "/opt"`}},
		{"below a file", "/bin/plain/x", CodeNoSuch, []string{"no such file"}},
		{"not executable", "/bin/plain", CodeNotExec, []string{"permission denied"}},
		{"in PATH, not executable", "plain", CodeNotExec, []string{"permission denied"}},
		{"directory", "/bin", CodeNotExec, []string{"is a directory"}},
		{"no format", "/bin/text", CodeNotExec, []string{"exec format error", "#!"}},
		{"other machine", "/bin/foreign", CodeNotExec, []string{"exec format error", otherName, runtime.GOARCH}},
		{"no interpreter", "/bin/script", CodeNoSuch, []string{`interpreter "/bin/none"`}},
		{"no loader", "/bin/dynamic", CodeNoSuch, []string{`loader "/lib/ld-none.so"`}},
		{"link to itself", "/bin/loop", CodeNotExec, []string{"symbolic links"}},
		{"own program", "/proc/self/exe", CodeNotExec, []string{"link of /proc"}},
		{"link to own program", "/bin/self", CodeNotExec, []string{"link of /proc"}},
		{"descriptor", "/proc/self/fd/3", CodeNoSuch, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := im.spec()
			s.Args = []string{c.args0}
			r := run(t, s)
			if c.words == nil {
				var se *StartError
				if !errors.As(r.err, &se) || se.Code == CodeStart {
					t.Errorf("%+v, %v", r.st, r.err)
				}
				return
			}
			wantStart(t, r, c.code, c.words...)
		})
	}
	s := im.spec("hello")
	s.Args[0], s.Env = "probe", []string{"PATH=/bin2:/none:/bin"}
	if r := good(t, s); r.out != "hello\n" {
		t.Errorf("what may not be executed hides what may: %q", r.out)
	}
	big := im.spec(strings.Repeat("x", 1<<20))
	wantStart(t, run(t, big), CodeNotExec, "argument list too long")
}

func TestSpecFaults(t *testing.T) {
	im := newImage(t)
	file := im.path("etc/passwd")
	for name, change := range map[string]func(*Spec){
		"no layers":        func(s *Spec) { s.Lower = nil },
		"relative layer":   func(s *Spec) { s.Lower = []string{"rootfs"} },
		"absent layer":     func(s *Spec) { s.Lower = []string{"/none/none"} },
		"layer is a file":  func(s *Spec) { s.Lower = []string{file} },
		"too many layers":  func(s *Spec) { s.Lower = make([]string, 501) },
		"no command":       func(s *Spec) { s.Args = nil },
		"zero in argument": func(s *Spec) { s.Args = []string{"/bin/probe", "a\x00b"} },
		"relative cwd":     func(s *Spec) { s.Cwd = "tmp" },
		"cwd is a file":    func(s *Spec) { s.Cwd = "/etc/passwd" },
		"bad host name":    func(s *Spec) { s.Hostname = "a\n1.2.3.4 bank" },
		"long host name":   func(s *Spec) { s.Hostname = strings.Repeat("a", 65) },
		"absent state":     func(s *Spec) { s.State = "/none/none" },
		"open state":       func(s *Spec) { s.State = filepath.Dir(im.dir) },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "open state" {
				if err := os.Chmod(filepath.Dir(im.dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			s := im.spec("hello")
			change(&s)
			wantStart(t, run(t, s), CodeStart)
		})
	}
}

// TestEnvironment: an image must not be able to ask for the caller's values.
func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET", "of the host")
	im := newImage(t)
	s := im.spec("env")
	s.Env = []string{"SECRET", "=x", "A=b=c", "TWICE=1", "EMPTY=", "TWICE=2", "Z\x00=1"}
	got := probe[[]string](t, s)
	want := []string{"A=b=c", "EMPTY=", "TWICE=2", "HOME=/root"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	s.User, s.Env = "app", nil
	if got := probe[[]string](t, s); !slices.Equal(got, []string{"HOME=/home/app"}) {
		t.Errorf("%q", got)
	}
	s.Env = []string{"HOME=/mine"}
	if got := probe[[]string](t, s); !slices.Equal(got, []string{"HOME=/mine"}) {
		t.Errorf("%q", got)
	}
	s.Env = []string{"SECRET"}
	if r := good(t, s); !strings.Contains(r.explains, `left out "SECRET"`) {
		t.Errorf("not explained:\n%s", r.explains)
	}
}

func TestUsers(t *testing.T) {
	im := newImage(t)
	nested := rootless(t)
	for _, c := range []struct{ user, uid, gid, groups string }{
		{"", "0", "0", "0 2001"},
		{"app", "1000", "1001", "1001 2000 2001"},
		{"1000", "1000", "1001", "1001 2000 2001"},
		{"1000:extra", "1000", "2000", "2000"},
		{"4242:4243", "4242", "4243", "4243"},
		{"app:0", "1000", "0", "0"},
	} {
		s := im.spec("identity")
		s.User = c.user
		got := probe[map[string]string](t, s)
		for key, want := range map[string]string{"Uid": c.uid, "Gid": c.gid} {
			if w := strings.Join([]string{want, want, want, want}, " "); got[key] != w {
				t.Errorf("%q: %s %s, want %s", c.user, key, got[key], w)
			}
		}
		if !nested && got["Groups"] != c.groups {
			t.Errorf("%q: groups %s, want %s", c.user, got["Groups"], c.groups)
		}
	}
	for _, bad := range []string{"4294967296", "2147483648", "0x0", "-1", "1000:99999999999", "nobody", "app:none", "../../etc"} {
		s := im.spec("identity")
		s.User = bad
		wantStart(t, run(t, s), CodeStart, "look up user")
	}
}

// TestHostileUserFiles: /etc/passwd as something that must not be read.
func TestHostileUserFiles(t *testing.T) {
	for name, make := range map[string]func(image){
		"fifo":      func(im image) { check(im.t, unix.Mkfifo(im.path("etc/passwd"), 0o644)) },
		"directory": func(im image) { im.mkdir("etc/passwd") },
		"huge": func(im image) {
			im.write("etc/passwd", "root:x:0:0:::\n", 0o644)
			check(im.t, os.Truncate(im.path("etc/passwd"), 1<<30))
		},
		"device":    func(im image) { im.symlink("/dev/zero", "etc/passwd") },
		"link loop": func(im image) { im.symlink("passwd", "etc/passwd") },
		"group":     func(im image) { check(im.t, os.Remove(im.path("etc/group"))); im.mkdir("etc/group") },
	} {
		t.Run(name, func(t *testing.T) {
			im := newImage(t)
			if name != "group" {
				check(t, os.Remove(im.path("etc/passwd")))
			}
			make(im)
			s := im.spec("identity")
			s.User = "app"
			wantStart(t, run(t, s), CodeStart)
		})
	}
	// A link to the host's file must find the image's, or nothing.
	im := newImage(t)
	im.symlink("../../../../../../etc/passwd.host", "etc/passwd")
	im.write("etc/passwd.host", "app:x:77:78::/:/bin/sh\n", 0o644)
	s := im.spec("identity")
	s.User = "app"
	if got := probe[map[string]string](t, s); !strings.HasPrefix(got["Uid"], "77 ") {
		t.Errorf("uid %s", got["Uid"])
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWorkingDirectory(t *testing.T) {
	im := newImage(t)
	im.symlink("/tmp", "link")
	im.symlink("../../../../../tmp/made/by/link", "far")
	for _, c := range []struct{ cwd, want string }{
		{"", "/"},
		{"/", "/"},
		{"/tmp", "/tmp"},
		{"/link", "/tmp"},
		{"/new/deep/dir", "/new/deep/dir"},
		{"/far", "/tmp/made/by/link"},
		{"/../../..", "/"},
		{"/tmp/../bin", "/bin"},
	} {
		s := im.spec("where")
		s.Cwd = c.cwd
		if got := probe[[]string](t, s); got[0] != c.want || got[1] != c.want {
			t.Errorf("%q: %q, want %q", c.cwd, got, c.want)
		}
	}
	for _, dir := range []string{"/proc/self/cwd", "/proc/self/root", "/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/fd/10", "/proc/1/cwd", "/proc/1/root", "/proc/new"} {
		s := im.spec("where")
		s.Cwd = dir
		r := run(t, s)
		if r.err == nil && !strings.HasPrefix(r.out, `["/`) {
			t.Errorf("%q: %s", dir, r.out)
		}
		if r.err != nil {
			wantStart(t, r, CodeStart)
		}
	}
	s := im.spec("statdir", "/new/dir")
	s.User, s.Cwd = "1000:1001", "/new/dir"
	if r := good(t, s); r.out != "1000:1001 755\n" {
		t.Errorf("made directory: %q", r.out)
	}
}

func TestGeneratedFiles(t *testing.T) {
	im := newImage(t)
	s := im.spec("read", "/etc/hosts")
	s.Hostname = "box.lan"
	if r := good(t, s); !strings.Contains(r.out, "127.0.0.1\tlocalhost\n") || !strings.Contains(r.out, "\tbox.lan\n") {
		t.Errorf("hosts: %q", r.out)
	}
	s.Args[2] = "/etc/hostname"
	if r := good(t, s); r.out != "box.lan\n" {
		t.Errorf("hostname: %q", r.out)
	}
	s.Args = []string{"/bin/probe", "identity"}
	if got := probe[map[string]string](t, s)["host"]; got != "box.lan" {
		t.Errorf("host name: %q", got)
	}
	if name, err := os.Hostname(); err != nil || name == "box.lan" {
		t.Errorf("the host's own name is %q, %v", name, err)
	}
}

func TestReadOnly(t *testing.T) {
	im := newImage(t)
	places := []string{"/x", "/tmp/x", "/etc/hosts", "/etc/passwd", "/bin/probe", "/dev/shm/x", "/new/x"}
	s := im.spec(append([]string{"writable"}, places...)...)
	s.Cwd = "/new"
	for _, readOnly := range []bool{false, true} {
		s.ReadOnly = readOnly
		r := good(t, s)
		for line := range strings.Lines(r.out) {
			place, got, _ := strings.Cut(strings.TrimSpace(line), " ")
			want := "ok"
			switch {
			case place == "/dev/shm/x":
			case place == "/bin/probe":
				want = "ETXTBSY EROFS"
			case readOnly:
				want = "EROFS"
			}
			if !anyOf(want, got) {
				t.Errorf("read-only %v: %s: %s, want %s", readOnly, place, got, want)
			}
		}
	}
}

// TestLayers: whiteouts and opaque marks count, the topmost layer wins, nothing
// of a run stays.
func TestLayers(t *testing.T) {
	im := newImage(t)
	im.write("gone", "x", 0o644)
	im.write("dir/below", "x", 0o644)
	im.write("same", "below", 0o644)
	top := t.TempDir()
	upper := image{t, filepath.Join(top, "l")}
	upper.mkdir("dir")
	upper.write("same", "above", 0o644)
	if err := unix.Mknod(upper.path("gone"), unix.S_IFCHR, 0); err != nil {
		skip(t, "cannot make whiteouts here: "+err.Error())
	}
	if err := unix.Setxattr(upper.path("dir"), "user.overlay.opaque", []byte("y"), 0); err != nil {
		skip(t, "cannot set user extended attributes here: "+err.Error())
	}
	s := im.spec("ls", "/")
	s.Lower = []string{upper.dir, im.dir}
	for _, state := range []string{"", stateDir(t)} {
		s.State = state
		s.Args = []string{"/bin/probe", "ls", "/"}
		if got := probe[[]string](t, s); slices.Contains(got, "gone") || !slices.Contains(got, "dir") {
			t.Errorf("%q", got)
		}
		s.Args[2] = "/dir"
		if got := probe[[]string](t, s); len(got) != 0 {
			t.Errorf("opaque directory shows %q", got)
		}
		s.Args = []string{"/bin/probe", "read", "/same"}
		if r := good(t, s); r.out != "above" {
			t.Errorf("%q", r.out)
		}
		s.Args = []string{"/bin/probe", "write", "/same", "changed"}
		good(t, s)
	}
	s.Args = []string{"/bin/probe", "read", "/same"}
	if r := good(t, s); r.out != "above" {
		t.Errorf("a run's change stayed: %q", r.out)
	}
}

func TestManyLayers(t *testing.T) {
	im := newImage(t)
	s := im.spec("ls", "/many")
	base := t.TempDir()
	const most = maxLower
	for i := range most - 1 {
		l := image{t, filepath.Join(base, fmt.Sprintf("a-directory-with-a-name-as-long-as-a-digest-%064d", i))}
		l.write(fmt.Sprintf("many/%03d", i), "x", 0o644)
		s.Lower = append([]string{l.dir}, s.Lower...)
	}
	all := s.Lower
	for _, n := range []int{199, most - 1} {
		s.Lower = append(slices.Clone(all[:n]), im.dir)
		if got := probe[[]string](t, s); len(got) != n {
			t.Errorf("%d of %d layers show", len(got), n)
		}
	}
}

// TestLegacyOverlay mounts by mount(2), as on kernels without lowerdir+.
func TestLegacyOverlay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts outside of a sandbox need root")
	}
	needSandbox(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // ends with the mount namespace
		done <- mountLegacy(t.TempDir())
	}()
	check(t, <-done)
}

func mountLegacy(dir string) error {
	if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("t", dir, "tmpfs", 0, "")); err != nil {
		return err
	}
	o := &overlay{}
	open := func(name string) int {
		check := errors.Join(os.MkdirAll(filepath.Join(dir, name), 0o755))
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if check != nil || err != nil {
			return -1
		}
		return fd
	}
	for i := range 100 {
		name := fmt.Sprintf("layer-%03d", i)
		o.lower = append(o.lower, open(name))
		if err := os.WriteFile(filepath.Join(dir, name, name), nil, 0o644); err != nil {
			return err
		}
	}
	open("at")
	o.upper, o.work, o.dir, o.name = open("upper"), open("work"), open("."), "at"
	root, err := o.mountByPath()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/thread-self/fd/%d", root))
	if err != nil || len(entries) != 100 {
		return fmt.Errorf("%d entries, %w", len(entries), err)
	}
	for len(o.lower) < 250 {
		o.lower = append(o.lower, o.lower[0])
	}
	if _, err := o.mountByPath(); err == nil || !strings.Contains(err.Error(), "too many") {
		return fmt.Errorf("options over a page: %w", err)
	}
	return nil
}
