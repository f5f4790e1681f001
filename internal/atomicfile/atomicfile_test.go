package atomicfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain doubles as a process that is killed while it writes.
func TestMain(m *testing.M) {
	switch target := os.Getenv("ATOMICFILE_TEST_KILL"); os.Getenv("ATOMICFILE_TEST_KIND") {
	case "file":
		f, err := Create(target, true)
		if err == nil {
			f.WriteString("half written")
		}
		suicide(err)
	case "dir":
		d, err := CreateDir(target, true)
		if err == nil {
			err = os.WriteFile(filepath.Join(d.Path(), "half"), []byte("written"), 0o600)
		}
		suicide(err)
	}
	os.Exit(m.Run())
}

func suicide(err error) {
	if err != nil {
		os.Exit(3)
	}
	unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}

// killed leaves what a killed process leaves.
func killed(t *testing.T, kind, target string) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "ATOMICFILE_TEST_KILL="+target, "ATOMICFILE_TEST_KIND="+kind)
	err := c.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("child: %v", err)
	}
	if _, err := os.Lstat(TempPath(target)); err != nil {
		t.Fatalf("nothing was left: %v", err)
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func write(t *testing.T, f *File, text string) {
	t.Helper()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestCommit(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "out")
	f, err := Create(target, false)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, "new")
	if got := names(t, dir); got != ".out.imgpack-partial" {
		t.Errorf("while writing: %q", got)
	}
	if st, err := f.Stat(); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode while writing: %v %v", st.Mode(), err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	f.Abort()
	if names(t, dir) != "out" || content(t, target) != "new" {
		t.Errorf("after: %q", names(t, dir))
	}
	if err := f.Commit(); err == nil {
		t.Error("committed twice")
	}
}

func TestModeIsThatOfANewFile(t *testing.T) {
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	target := filepath.Join(t.TempDir(), "out")
	if err := WriteFile(target, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(target); err != nil || st.Mode() != 0o640 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	unix.Umask(0o077)
	d, err := CreateDir(target+"dir", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(target + "dir"); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

func TestParseUmask(t *testing.T) {
	if m, ok := parseUmask([]byte("Name:\tx\nUmask:\t0022\nState:\tR\n")); !ok || m != 0o022 {
		t.Errorf("%v %v", m, ok)
	}
	for _, text := range []string{"", "Name: x\n", "Umask:\tx\n", "Umask:\n"} {
		if _, ok := parseUmask([]byte(text)); ok {
			t.Errorf("%q was read", text)
		}
	}
	if umaskCall() != umask() {
		t.Error("two ways to read the mask differ")
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "out")
	if err := WriteFile(target, []byte("old")); err != nil {
		t.Fatal(err)
	}
	f, err := Create(target, true)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, "new")
	f.Abort()
	f.Abort()
	if names(t, dir) != "out" || content(t, target) != "old" {
		t.Errorf("%q holds %q", names(t, dir), content(t, target))
	}
	if err := f.Commit(); err == nil {
		t.Error("committed after abort")
	}
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "out")
	if err := WriteFile(target, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(target, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("existing target: %v", err)
	}
	if err := WriteFile(target, []byte("new")); err != nil || content(t, target) != "new" {
		t.Errorf("%v", err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(filepath.Join(dir, "link"), false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("dangling link: %v", err)
	}
	// What comes to be while the file is written is not replaced either.
	f, err := Create(filepath.Join(dir, "late"), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "late"), []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("target made meanwhile: %v", err)
	}
	if content(t, filepath.Join(dir, "late")) != "first" || names(t, dir) != "late link out" {
		t.Errorf("left: %q", names(t, dir))
	}
}

func TestLeftoverOfAKilledProcess(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "out")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	killed(t, "file", target)
	if content(t, target) != "old" {
		t.Error("the target was touched")
	}
	if err := WriteFile(target, []byte("n")); err != nil {
		t.Fatal(err)
	}
	if names(t, dir) != "out" || content(t, target) != "n" {
		t.Errorf("%q holds %q", names(t, dir), content(t, target))
	}
}

func TestStrangeLeftovers(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	for name, plant := range map[string]func(temp string) error{
		"hard link": func(temp string) error { return os.Link(victim, temp) },
		"fifo":      func(temp string) error { return unix.Mkfifo(temp, 0o600) },
		"read only": func(temp string) error { return os.WriteFile(temp, []byte("x"), 0o400) },
	} {
		if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(dir, "out")
		if err := plant(TempPath(target)); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(target, []byte("new")); name != "read only" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if content(t, victim) != "precious" {
			t.Errorf("%s: the victim holds %q", name, content(t, victim))
		}
		os.Remove(TempPath(target))
	}
	target := filepath.Join(dir, "out2")
	if err := os.Symlink(victim, TempPath(target)); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(target, []byte("new")); !errors.Is(err, unix.ELOOP) {
		t.Errorf("symlink: %v", err)
	}
	if content(t, victim) != "precious" {
		t.Error("written through a symlink")
	}
}

func TestConcurrentWritersAreRefused(t *testing.T) {
	target := filepath.Join(t.TempDir(), "out")
	f, err := Create(target, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	write(t, f, "mine")
	if _, err := Create(target, true); !errors.Is(err, ErrBusy) {
		t.Errorf("second writer: %v", err)
	}
	if err := f.Commit(); err != nil || content(t, target) != "mine" {
		t.Errorf("%v", err)
	}
}

// TestManyWriters: each one's content is there whole or not at all, whatever
// the order in which they make, commit and abort.
func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "out")
	var wg sync.WaitGroup
	var mu sync.Mutex
	committed := 0
	for w := range 8 {
		wg.Go(func() {
			for i := range 60 {
				f, err := Create(target, true)
				if errors.Is(err, ErrBusy) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				f.Write(bytes.Repeat([]byte{byte('a' + w)}, 5000))
				if i%3 == 0 {
					f.Abort()
					continue
				}
				if err := f.Commit(); err != nil {
					t.Error(err)
					return
				}
				raw, err := os.ReadFile(target)
				if err != nil || len(raw) != 5000 || len(bytes.Trim(raw, string(raw[:1]))) > 0 {
					t.Errorf("torn: %d bytes, %v", len(raw), err)
					return
				}
				mu.Lock()
				committed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if committed == 0 {
		t.Error("nobody got through")
	}
	if names(t, dir) != "out" {
		t.Errorf("left: %q", names(t, dir))
	}
}

func TestCreateIn(t *testing.T) {
	dir := t.TempDir()
	if _, err := Create(filepath.Join(dir, "no", "out"), true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "d"), []byte("x")); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if names(t, dir) != "d" {
		t.Errorf("left: %q", names(t, dir))
	}
}
