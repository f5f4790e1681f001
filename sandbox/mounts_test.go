//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hostDir is a directory of the host that everybody may write to, with a file.
func hostDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	check(t, os.Chmod(dir, 0o777))
	check(t, os.WriteFile(filepath.Join(dir, "file"), []byte("host"), 0o666))
	return dir
}

func bind(source, target string, ro bool) Mount {
	return Mount{Type: Bind, Source: source, Target: target, ReadOnly: ro}
}

// tries is what writing to each path gave, as path=errno.
func tries(t *testing.T, s Spec, paths ...string) string {
	t.Helper()
	s.Args = append([]string{"/bin/probe", "writable"}, paths...)
	return strings.ReplaceAll(strings.TrimSpace(strings.ReplaceAll(good(t, s).out, "\n", ", ")), "  ", " ")
}

func TestBind(t *testing.T) {
	im := newImage(t)
	im.write("image/old", "image", 0o644)
	host := hostDir(t)
	for _, c := range []struct {
		name   string
		mounts []Mount
		want   string
	}{
		{"directory made", []Mount{bind(host, "/deep/er/data", false)}, "/deep/er/data/new ok, /deep/er/data/file ok"},
		{"directory there", []Mount{bind(host, "/image", false)}, "/image/new ok, /image/old ok"},
		{"read-only", []Mount{bind(host, "/data", true)}, "/data/new EROFS, /data/file EROFS"},
		{"file made", []Mount{bind(host+"/file", "/deep/file", false)}, "/deep/file ok"},
		{"file there, read-only", []Mount{bind(host+"/file", "/image/old", true)}, "/image/old EROFS, /image/new ok"},
		{"one in another", []Mount{bind(host, "/data/in", true), bind(host, "/data", false)}, "/data/new ok, /data/in/new EROFS"},
		{"instead of a generated file", []Mount{bind(host+"/file", "/etc/hosts", false)}, "/etc/hosts ok"},
		{"a file of the whole of /etc", []Mount{bind(host, "/etc", false)}, "/etc/file ok, /etc/hosts ok"},
		{"shared memory", []Mount{bind(host, "/dev/shm", true)}, "/dev/shm/x EROFS"},
		{"read-only root", []Mount{bind(host, "/data", false)}, "/data/x ok, /x EROFS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := im.spec()
			s.Mounts, s.ReadOnly = c.mounts, c.name == "read-only root"
			var paths []string
			for part := range strings.SplitSeq(c.want, ", ") {
				paths = append(paths, strings.Fields(part)[0])
			}
			if got := strings.TrimSuffix(tries(t, s, paths...), ","); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if b, err := os.ReadFile(host + "/new"); err != nil || string(b) != "x" {
		t.Errorf("the host has %q, %v", b, err)
	}
	if _, err := os.Stat(im.path("deep")); err == nil {
		t.Error("the target was made in the layer")
	}
}

// TestBindAttributes: what is bound has neither devices nor privileges, and
// nothing that is mounted later arrives.
func TestBindAttributes(t *testing.T) {
	im := newImage(t)
	s := im.spec("read", "/proc/self/mountinfo")
	s.Mounts = []Mount{bind(hostDir(t), "/data", false), bind(hostDir(t), "/ro", true), {Type: Tmpfs, Target: "/mem"}, {Type: Volume, Target: "/own"}}
	seen := 0
	for line := range strings.Lines(good(t, s).out) {
		f := strings.Fields(line)
		switch f[4] {
		case "/data", "/ro", "/mem", "/own":
			seen++
		default:
			continue
		}
		if !strings.Contains(f[5], "nosuid") || !strings.Contains(f[5], "nodev") || (f[4] == "/ro") != strings.HasPrefix(f[5], "ro,") {
			t.Errorf("attributes: %s", line)
		}
		if strings.Contains(line, "shared:") || strings.Contains(line, "master:") {
			t.Errorf("not private: %s", line)
		}
	}
	if seen != 4 {
		t.Errorf("%d mounts seen", seen)
	}
}

// TestBindRecursive: read-only holds for what is mounted below the source.
func TestBindRecursive(t *testing.T) {
	if !isMount(t, "/dev/shm") {
		skip(t, "/dev/shm is no mount here")
	}
	im := newImage(t)
	for _, ro := range []bool{true, false} {
		s := im.spec()
		s.Mounts = []Mount{bind("/dev", "/host", ro)}
		name := fmt.Sprintf("/host/shm/imgpack-test-%d", os.Getpid())
		got := tries(t, s, name)
		os.Remove(strings.Replace(name, "/host", "/dev", 1))
		if want := map[bool]string{true: "EROFS", false: "ok"}[ro]; !strings.Contains(got, want) {
			t.Errorf("read-only %v: %s", ro, got)
		}
	}
	s := im.spec("ls", "/host/shm")
	s.Mounts = []Mount{{Type: Bind, Source: "/dev", Target: "/host", NonRecursive: true}}
	if r := run(t, s); rootless(t) {
		wantStart(t, r, CodeStart, "mounts below it")
	} else if r.err != nil || strings.TrimSpace(r.out) != "[]" {
		t.Errorf("%q, %v", r.out, r.err)
	}
}

func isMount(t *testing.T, dir string) bool {
	t.Helper()
	var at, above unix.Stat_t
	return unix.Stat(dir, &at) == nil && unix.Stat(filepath.Dir(dir), &above) == nil && at.Dev != above.Dev
}

// tmpfsDir is a directory of the host with a tmpfs of its own.
func tmpfsDir(t *testing.T) string {
	t.Helper()
	host := hostDir(t)
	check(t, unix.Mount("tmpfs", host, "tmpfs", 0, ""))
	t.Cleanup(func() { check(t, unix.Unmount(host, unix.MNT_DETACH)) })
	return host
}

// TestNewMountsStayOutside: a source may be shared with the host's namespace.
func TestNewMountsStayOutside(t *testing.T) {
	if rootless(t) {
		t.Skip("needs root")
	}
	im := newImage(t)
	host := tmpfsDir(t)
	check(t, unix.Mount("", host, "", unix.MS_SHARED, ""))
	check(t, os.Mkdir(host+"/sub", 0o755))
	s := im.spec("await", "/data/go", "/data/sub/late")
	s.Mounts = []Mount{bind(host, "/data", false)}
	done := make(chan result)
	go func() { done <- run(t, s) }()
	await(t, func() bool { _, err := os.Stat(host + "/go"); return err == nil })
	check(t, unix.Mount("tmpfs", host+"/sub", "tmpfs", 0, ""))
	defer func() { check(t, unix.Unmount(host+"/sub", unix.MNT_DETACH)) }()
	check(t, os.WriteFile(host+"/sub/late", nil, 0o644))
	check(t, os.Remove(host+"/go"))
	if r := <-done; r.err != nil || r.out != "ENOENT\n" {
		t.Errorf("%q, %v", r.out, r.err)
	}
}

// TestMountsGoAway: what is mounted below a source may go while a sandbox starts,
// and does where somebody removes the directory that it is at.
func TestMountsGoAway(t *testing.T) {
	if rootless(t) {
		t.Skip("needs root")
	}
	im := newImage(t)
	host := tmpfsDir(t)
	check(t, os.WriteFile(host+"/file", nil, 0o644))
	const mounts = 200
	for i := range mounts {
		dir := fmt.Sprint(host, "/", i)
		check(t, os.Mkdir(dir, 0o755))
		check(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	}
	gone := make(chan error, 1)
	go func() {
		var all []error
		for i := range mounts {
			dir := fmt.Sprint(host, "/", i)
			all = append(all, unix.Unmount(dir, 0), os.Remove(dir))
		}
		gone <- errors.Join(all...)
	}()
	s := im.spec("writable", "/data/file")
	s.Mounts = []Mount{bind(host, "/data", false)}
	for runs := 0; ; runs++ {
		if r := good(t, s); r.out != "/data/file ok\n" {
			t.Errorf("%q", r.out)
		}
		select {
		case err := <-gone:
			check(t, err)
			t.Logf("%d runs", runs)
			return
		default:
		}
	}
}

// TestProveMounts has a root, what is mounted in it, and a tree of the host's
// with something of ours in that.
func TestProveMounts(t *testing.T) {
	info := func(lines ...string) (all string) {
		for _, l := range lines {
			all += l + " 0:1 / /some rw - tmpfs tmpfs rw\n"
		}
		return strings.Replace(all, "/some", "/", 1)
	}
	made := map[uint64]bool{1: false, 2: false, 3: true, 6: false}
	for name, c := range map[string]struct {
		info string
		ok   bool
	}{
		"all":               {info("1 900", "2 1", "3 1", "4 3", "5 4", "6 5"), true},
		"in another order":  {info("1 900", "6 5", "5 4", "4 3", "3 1", "2 1"), true},
		"some went":         {info("1 900", "2 1", "3 1", "6 3"), true},
		"one of ours":       {info("1 900", "3 1", "4 3", "6 3"), false},
		"one more":          {info("1 900", "2 1", "3 1", "6 3", "7 1"), false},
		"one more in ours":  {info("1 900", "2 1", "3 1", "6 3", "7 6"), false},
		"one above":         {info("1 900", "2 1", "3 1", "6 3", "900 899"), false},
		"its own parent":    {info("1 900", "2 1", "3 1", "6 3", "8 8"), false},
		"something else":    {"x", false},
		"numbers too large": {info("1 900", "99999999999999999999 1"), false},
	} {
		if err := proveMounts(c.info, made); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	two := strings.ReplaceAll(info("1 900", "2 1", "3 1", "6 3"), "/some", "/")
	if err := proveMounts(two, made); err == nil {
		t.Error("mounts on the root are taken")
	}
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatal("it did not happen")
}

func TestTmpfs(t *testing.T) {
	im := newImage(t)
	im.write("full/of", "image", 0o644)
	s := im.spec("statdir", "/full")
	s.ReadOnly = true
	s.Mounts = []Mount{{Type: Tmpfs, Target: "/full", Size: 1 << 20, Inodes: 10}}
	if r := good(t, s); r.out != "0:0 1777\n" {
		t.Errorf("%q", r.out)
	}
	if got := tries(t, s, "/full/x", "/x"); got != "/full/x ok, /x EROFS," {
		t.Errorf("%q", got)
	}
	s.Mounts[0].Mode, s.Mounts[0].ReadOnly = 0o750, true
	s.Args = []string{"/bin/probe", "statdir", "/full"}
	if r := good(t, s); r.out != "0:0 750\n" {
		t.Errorf("%q", r.out)
	}
	if got := tries(t, s, "/full/x"); got != "/full/x EROFS," {
		t.Errorf("%q", got)
	}
	s.Mounts[0].UID = 7
	s.Args = []string{"/bin/probe", "statdir", "/full"}
	if r := run(t, s); rootless(t) {
		wantStart(t, r, CodeStart, `mount "/full"`, "ids of its owner")
	} else if r.err != nil || r.out != "7:0 750\n" {
		t.Errorf("%q, %v", r.out, r.err)
	}
}

// TestVolume: what the image has is there, and can be written whatever is
// over it or above it.
func TestVolume(t *testing.T) {
	im := newImage(t)
	im.write("app/lib/of-image", "image", 0o644)
	host := hostDir(t)
	s := im.spec()
	s.ReadOnly = true
	s.Mounts = []Mount{{Type: Volume, Target: "/app/lib"}, {Type: Volume, Target: "/fresh/er"}, bind(host, "/app", false)}
	for _, state := range []string{"", stateDir(t)} {
		s.State = state
		want := "/app/lib/of-image ok, /app/lib/new ok, /fresh/er/x ok, /fresh/x EROFS, /app/file ok,"
		if got := tries(t, s, "/app/lib/of-image", "/app/lib/new", "/fresh/er/x", "/fresh/x", "/app/file"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if entries, err := os.ReadDir(host + "/lib"); err != nil || len(entries) != 0 {
		t.Errorf("the host got %v, %v", entries, err)
	}
	im.write("file", "", 0o644)
	s.Mounts = []Mount{{Type: Volume, Target: "/file"}}
	wantStart(t, run(t, s), CodeStart, "/file", "not a directory")
}

// TestMountsRefused: what is asked for and makes no sense.
func TestMountsRefused(t *testing.T) {
	im := newImage(t)
	host := hostDir(t)
	many := make([]Mount, maxMounts+1)
	var deep []Mount
	for i := range 9 {
		deep = append(deep, Mount{Type: Volume, Target: fmt.Sprint("/", i, strings.Repeat("/a", maxMountDirs/8))})
	}
	for _, c := range []struct {
		mounts []Mount
		words  string
	}{
		{[]Mount{bind(host, "/", false)}, "cannot be mounted over"},
		{[]Mount{bind(host, "/x/..", false)}, "cannot be mounted over"},
		{[]Mount{bind(host, "/proc", false)}, "cannot be mounted over"},
		{[]Mount{bind(host, "/proc/sys/kernel", false)}, "cannot be mounted over"},
		{[]Mount{bind(host, "/sys/fs", false)}, "cannot be mounted over"},
		{[]Mount{bind(host, "/dev", false)}, "cannot be mounted over"},
		{[]Mount{bind(host, "/dev/shm/x", false)}, "cannot be mounted over"},
		{[]Mount{{Type: Volume, Target: "/dev/shm"}}, "no directory of the image"},
		{[]Mount{bind(host, "data", false)}, "not an absolute path"},
		{[]Mount{bind("data", "/data", false)}, "not an absolute path"},
		{[]Mount{bind(host+"\x00", "/data", false)}, "not an absolute path"},
		{[]Mount{bind(host+"/none", "/data", false)}, "no such file"},
		{[]Mount{bind(host+"/file/none", "/data", false)}, "not a directory"},
		{[]Mount{bind(host, "/data", false), bind(host, "/x/../data/", true)}, `two mounts at "/data"`},
		{[]Mount{bind(host, "/bin/probe", false)}, "a directory is mounted on a directory"},
		{[]Mount{bind(host+"/file", "/tmp", false)}, "the source is a file"},
		{[]Mount{bind(host, "/ro", true), bind(host, "/ro/none", true)}, "read-only"},
		{[]Mount{{Type: "nfs", Target: "/data"}}, "no type of mount"},
		{[]Mount{{Type: Tmpfs, Target: "/data", Mode: 0o10000}}, "out of range"},
		{[]Mount{{Type: Tmpfs, Target: "/data", Size: -1}}, "out of range"},
		{many, "more than"},
		{deep, "directories lead to them"},
	} {
		s := im.spec("hello")
		s.Mounts = c.mounts
		wantStart(t, run(t, s), CodeStart, c.words)
	}
}

// TestHostileTargets: links of the image lead targets nowhere but into it.
func TestHostileTargets(t *testing.T) {
	im := newImage(t)
	outside := hostDir(t)
	for name, to := range map[string]string{
		"absolute": outside, "dots": strings.Repeat("../", 30) + outside, "magic": "/proc/1/root" + outside,
		"self": "/proc/self/cwd", "root": "/", "up": "..", "kernel": "/proc/sys", "device": "/dev", "devices": "/dev/new",
		"sys": "/sys/kernel", "loop": "loop", "file": outside + "/file",
	} {
		im.symlink(to, "links/"+name)
	}
	source := hostDir(t)
	before := snapshot(t, outside)
	for _, c := range []struct {
		target, want string // "": it runs
	}{
		{"/links/absolute", ""}, {"/links/dots", ""}, {"/links/absolute/deep", ""}, {"/links/up/links/up/data", ""},
		{"/links/up", "leads to /"}, {"/links/root", "leads to /"}, {"/links/up/x", ""},
		{"/links/magic", "leads into /proc"}, {"/links/self", "leads into /proc"}, {"/links/kernel", "leads into /proc"},
		{"/links/device", "leads into /proc"}, {"/links/devices", "leads into /proc"}, {"/links/sys", "leads into /proc"}, {"/links/sys/x", "leads into /proc"},
		{"/links/root/dev/shm", "leads into /proc"}, {"/links/loop", "too many levels"},
	} {
		for _, m := range []Mount{bind(source, c.target, false), {Type: Tmpfs, Target: c.target}, {Type: Volume, Target: c.target}} {
			s := im.spec("writable", c.target+"/x")
			s.Mounts = []Mount{m}
			r := run(t, s)
			switch {
			case m.Type == Volume && strings.HasPrefix(c.want, "leads to /"):
				wantStart(t, r, CodeStart, c.want)
			case c.want != "":
				wantStart(t, r, CodeStart, c.want)
			case r.err != nil || !strings.Contains(r.out, "/x ok"):
				t.Errorf("%s: %q, %v", c.target, r.out, r.err)
			}
		}
	}
	s := im.spec("writable", "/links/file")
	s.Mounts = []Mount{bind(source+"/file", "/links/file", false)}
	if r := good(t, s); r.out != "/links/file ok\n" {
		t.Error(r.out)
	}
	if after := snapshot(t, outside); after != before {
		t.Errorf("host changed:\n%s\nwas\n%s", after, before)
	}
	if b, err := os.ReadFile(source + "/file"); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestSourceSwap flips the source between a directory and a link to another
// while sandboxes start: one of the two is seen, or none, and what is read-only
// stays so.
func TestSourceSwap(t *testing.T) {
	im := newImage(t)
	top := t.TempDir()
	for _, name := range []string{"one", "secret"} {
		check(t, os.Mkdir(filepath.Join(top, name), 0o755))
		check(t, os.WriteFile(filepath.Join(top, name, "name"), []byte(name), 0o644))
	}
	check(t, os.Symlink("secret", top+"/link"))
	check(t, os.Symlink("one", top+"/source"))
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				time.Sleep(20 * time.Microsecond)
				for _, pair := range [][2]string{{"one", "away"}, {"link", "one"}, {"one", "link"}, {"away", "one"}} {
					if err := os.Rename(filepath.Join(top, pair[0]), filepath.Join(top, pair[1])); err != nil {
						t.Error(err)
					}
				}
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	runs, refused, ran := 50, 0, 0
	if testing.Short() {
		runs = 10
	}
	for ran+refused < runs {
		fd, err := unix.Open(top+"/one", unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // not there, or the link
		}
		// What is opened is named by its descriptor, so it is known which it is.
		s := im.spec("read", "/data/name")
		s.Mounts = []Mount{bind(fdPath(fd), "/data", true)}
		r := run(t, s)
		unix.Close(fd)
		switch {
		case r.err != nil:
			refused++
			wantStart(t, r, CodeStart, "/data", "find it again")
		case r.out != "one":
			t.Fatalf("saw %q", r.out)
		default:
			ran++
		}
	}
	t.Logf("%d ran, %d refused", ran, refused)
	if refused > 0 && !rootless(t) {
		t.Error("root mounts what is opened and has nothing to find again")
	}
}

// TestLinkAsSource: it is followed, as /etc/localtime is one everywhere.
func TestLinkAsSource(t *testing.T) {
	im := newImage(t)
	host := hostDir(t)
	check(t, os.Symlink("file", host+"/link"))
	s := im.spec("read", "/f")
	s.Mounts = []Mount{bind(host+"/link", "/f", true)}
	if r := good(t, s); r.out != "host" {
		t.Error(r.out)
	}
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	defer w.Close()
	s.Mounts[0].Source = fdPath(int(r.Fd()))
	if r := run(t, s); r.err == nil {
		t.Error("a pipe was mounted")
	}
}

// TestForeignSource: nobody binds what he cannot reach, by way of a sandbox.
func TestForeignSource(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reaches everything")
	}
	im := newImage(t)
	s := im.spec("read", "/f")
	s.Mounts = []Mount{bind("/proc/1/root", "/f", true)}
	wantStart(t, run(t, s), CodeStart, `open "/proc/1/root"`, "permission denied")
	s.Mounts = []Mount{bind("/etc/shadow", "/f", true)}
	if r := run(t, s); r.err != nil || r.st.Code == 0 || r.out != "" {
		t.Errorf("%+v, %v, %q", r.st, r.err, r.out)
	}
}

// TestLockedMounts: the tree of an ordinary user's mounts is locked; all of the
// host's is as good as any.
func TestLockedMounts(t *testing.T) {
	im := newImage(t)
	s := im.spec("writable", "/host/imgpack-test")
	s.Mounts = []Mount{bind("/", "/host", true)}
	if r := good(t, s); r.out != "/host/imgpack-test EROFS\n" {
		t.Errorf("%q", r.out)
	}
	for source, want := range map[string]string{"/": `"etc"`, "/sys": `"kernel"`, "/proc": `"cpuinfo"`} {
		s.Args = []string{"/bin/probe", "ls", "/host"}
		s.Mounts = []Mount{bind(source, "/host", true)}
		if r := good(t, s); !strings.Contains(r.out, want) || strings.Contains(r.out, `"upper"`) {
			t.Errorf("%s: %q", source, r.out)
		}
	}
}

func TestMountsWithIDMap(t *testing.T) {
	if rootless(t) {
		t.Skip("needs root")
	}
	im := newImage(t)
	host := hostDir(t)
	check(t, os.WriteFile(host+"/own", nil, 0o600))
	s := im.spec()
	s.UIDMap, s.GIDMap = []IDMap{{0, 100000, 65536}}, []IDMap{{0, 100000, 65536}}
	s.Mounts = []Mount{bind(host, "/data", false), {Type: Volume, Target: "/own"}, {Type: Tmpfs, Target: "/mem", UID: 5}}
	if got := tries(t, s, "/data/new", "/data/own", "/own/x", "/mem/x"); got != "/data/new ok, /data/own EACCES, /own/x ok, /mem/x ok," {
		t.Errorf("%q", got)
	}
	var st unix.Stat_t
	if check(t, unix.Stat(host+"/new", &st)); st.Uid != 100000 {
		t.Errorf("owner %d", st.Uid)
	}
}

// TestMountsAreGone: nothing of them is left on the host.
func TestMountsAreGone(t *testing.T) {
	im := newImage(t)
	host, state := hostDir(t), stateDir(t)
	s := im.spec("sleep", "60000")
	s.State = state
	s.Mounts = []Mount{bind(host, "/data", false), {Type: Tmpfs, Target: "/mem"}, {Type: Volume, Target: "/own"}}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if r := runCtx(ctx, t, s); r.err == nil {
		t.Error("it was not killed")
	}
	noMountLeft(t, im.dir, host, state)
}

// TestUserOfAMount: users are looked up where the process would.
func TestUserOfAMount(t *testing.T) {
	im := newImage(t)
	passwd := filepath.Join(t.TempDir(), "passwd")
	check(t, os.WriteFile(passwd, []byte("guest:x:0:0::/guest:/bin/sh\n"), 0o644))
	s := im.spec("env")
	s.User, s.Mounts = "guest", []Mount{bind(passwd, "/etc/passwd", true)}
	if r := good(t, s); !strings.Contains(r.out, "HOME=/guest") {
		t.Error(r.out)
	}
}
