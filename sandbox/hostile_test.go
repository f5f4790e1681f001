//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// snapshot tells everything about a tree that a sandbox must not change.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		buf := make([]byte, 4096)
		n, _ := unix.Llistxattr(p, buf)
		fmt.Fprintf(&b, "%s %o %d:%d %d %d %v %q", p, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim, buf[:max(n, 0)])
		switch {
		case d.Type().IsRegular():
			c, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", sha256.Sum256(c))
		case d.Type() == fs.ModeSymlink:
			to, _ := os.Readlink(p)
			fmt.Fprintf(&b, " %q", to)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestLayersAreNeverChanged lets the process do all it can to the image.
func TestLayersAreNeverChanged(t *testing.T) {
	im := newImage(t)
	for i := range 20 {
		im.write(fmt.Sprintf("etc/conf.d/%d", i), strings.Repeat("x", i), 0o644)
	}
	check(t, os.Link(im.path("etc/conf.d/1"), im.path("etc/conf.d/hard")))
	before := snapshot(t, im.dir)
	for _, state := range []string{"", stateDir(t)} {
		s := im.spec("ruin")
		s.State = state
		got := probe[map[string]int](t, s)
		for _, what := range []string{"written", "chmod", "renamed", "removed"} {
			if got[what] == 0 {
				t.Errorf("the probe did no harm: %v", got)
			}
		}
		if after := snapshot(t, im.dir); after != before {
			t.Errorf("layer changed:\n%s\nwas\n%s", after, before)
		}
	}
}

// TestHostileMountTargets puts links at every place something is mounted on.
func TestHostileMountTargets(t *testing.T) {
	targets := []string{"proc", "sys", "dev", "etc", "etc/hosts", "etc/resolv.conf", "dev/null", "work"}
	for _, target := range targets {
		for _, style := range []string{"absolute", "dots", "magic root", "dangling", "loop"} {
			t.Run(target+" "+style, func(t *testing.T) {
				im := newImage(t)
				host := t.TempDir()
				check(t, os.Chmod(host, 0o777))
				check(t, os.WriteFile(filepath.Join(host, "hosts"), []byte("host"), 0o666))
				to := map[string]string{
					"absolute": host, "dots": strings.Repeat("../", 30) + host,
					"magic root": "/proc/1/root" + host, "dangling": "/none/deep/er", "loop": filepath.Base(target),
				}[style]
				if strings.HasPrefix(target, "etc/") && (style == "absolute" || style == "dots") {
					to += "/hosts"
				}
				im.symlink(to, target)
				before := snapshot(t, host)
				s := im.spec("isolate", "1", "x", "1", "/x", "1")
				s.Cwd = "/work"
				r := run(t, s)
				if r.err != nil {
					wantStart(t, r, CodeStart)
				} else if !strings.Contains(r.out, `"mount":"EPERM"`) || !strings.Contains(r.out, `"size keys":"0"`) {
					t.Errorf("ran with %s", r.out)
				}
				if after := snapshot(t, host); after != before {
					t.Errorf("host changed:\n%s\nwas\n%s", after, before)
				}
			})
		}
	}
}

// TestLinksAtTopAreRefused: a link at /proc could be swapped by the process.
func TestLinksAtTopAreRefused(t *testing.T) {
	for _, name := range []string{"proc", "sys", "dev"} {
		im := newImage(t)
		im.symlink("/tmp", name)
		wantStart(t, run(t, im.spec("hello")), CodeStart, "symbolic link", "/"+name)
		check(t, os.Remove(im.path(name)))
		im.write(name, "a file", 0o644)
		wantStart(t, run(t, im.spec("hello")), CodeStart, "/"+name)
	}
}

// TestLinksAreFollowedInside: resolv.conf as a link is common in images.
func TestLinksAreFollowedInside(t *testing.T) {
	im := newImage(t)
	im.symlink("../run/systemd/resolve/stub-resolv.conf", "etc/resolv.conf")
	for _, p := range []string{"/etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf"} {
		if r := good(t, im.spec("read", p)); r.out != "# no network\n" {
			t.Errorf("%s: %q", p, r.out)
		}
	}
	check(t, os.RemoveAll(im.path("etc")))
	if r := good(t, im.spec("read", "/etc/hostname")); r.out != "localhost\n" {
		t.Errorf("image without /etc: %q", r.out)
	}
}

// TestEtcIsNotMountedOverTheKernels: a link of the image steers no generated file
// over a device, nor over what the kernel says of process 1.
func TestEtcIsNotMountedOverTheKernels(t *testing.T) {
	im := newImage(t)
	im.symlink("/dev/null", "etc/hosts")
	im.symlink("../proc/self/status", "etc/hostname")
	im.symlink("/sys/kernel/notes", "etc/resolv.conf")
	if r := good(t, im.spec("read", "/etc/hosts")); r.out != "" || !strings.Contains(r.explains, "/dev") {
		t.Errorf("/dev/null: %q\n%s", r.out, r.explains)
	}
	if r := good(t, im.spec("read", "/proc/1/status")); !strings.HasPrefix(r.out, "Name:") {
		t.Errorf("/proc/1/status: %q", r.out)
	}
}

// TestOwnProgramIsSafe lets images execute and attack the program that
// sandboxes them (CVE-2019-5736).
func TestOwnProgramIsSafe(t *testing.T) {
	im := newImage(t)
	exe, err := os.Open("/proc/self/exe")
	check(t, err)
	defer exe.Close()
	look := func() string {
		var st unix.Stat_t
		check(t, unix.Fstat(int(exe.Fd()), &st))
		return fmt.Sprint(st.Ino, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim, st.Ctim)
	}
	before := look()

	got := probe[map[string]string](t, im.spec("exe"))
	if !anyOf("EACCES EPERM", got["write /proc/1/exe"]) {
		t.Errorf("process 1: %q", got)
	}
	// The interpreter of a script is found while this program still is
	// /proc/self/exe.
	im.write("bin/thief", "#!/proc/self/exe\n", 0o755)
	for _, caps := range [][]string{nil, {"CAP_SYS_PTRACE", "CAP_FOWNER", "CAP_DAC_OVERRIDE", "CAP_CHOWN"}} {
		s := im.spec()
		s.Args, s.Env, s.Capabilities = []string{"/bin/thief"}, []string{thiefEnv + "=1"}, caps
		r := run(t, s)
		t.Logf("%+v %v %s", r.st, r.err, r.out)
		// An ordinary user who owns the program runs a sealed copy of it, whose
		// mode may change; the program's own is looked at below.
		if strings.Contains(r.out, "write <nil>") || strings.Contains(r.out, "truncate <nil>") {
			t.Errorf("the program could be changed: %s", r.out)
		}
	}
	if after := look(); after != before {
		t.Errorf("the program changed: %s, was %s", after, before)
	}
}

// TestSealedCopy is what callers get who own the program and are not root.
func TestSealedCopy(t *testing.T) {
	fd, err := sealedCopy("/proc/self/exe")
	check(t, err)
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, 0o777); err != nil {
		t.Logf("chmod: %v", err)
	}
	if w, err := unix.Open(fdPath(fd), unix.O_RDWR, 0); err == nil {
		if _, err := unix.Write(w, []byte("x")); err == nil {
			t.Error("a sealed copy can be written")
		}
		unix.Close(w)
	}
	if err := unix.Ftruncate(fd, 0); err == nil {
		t.Error("a sealed copy can be truncated")
	}
}

// TestSetuid: no_new_privs makes set-user-id programs ordinary ones.
func TestSetuid(t *testing.T) {
	im := newImage(t)
	b, err := os.ReadFile(im.path("bin/probe"))
	check(t, err)
	im.write("bin/su", string(b), 0o755|fs.ModeSetuid|fs.ModeSetgid)
	s := im.spec()
	s.Args, s.User = []string{"/bin/su", "identity"}, "app"
	got := probe[map[string]string](t, s)
	if got["euid"] != "1000" || got["CapEff"] != noCaps || got["CapPrm"] != noCaps {
		t.Errorf("gained: %v", got)
	}
}
