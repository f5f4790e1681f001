package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func resume(t *testing.T, target string, want bool) *File {
	t.Helper()
	f, left, err := Resume(target, true)
	if err != nil {
		t.Fatal(err)
	}
	if left != want {
		t.Errorf("left is %v, want %v", left, want)
	}
	return f
}

func TestResume(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "out")
	f := resume(t, target, false)
	write(t, f, "half")
	if _, _, err := Resume(target, true); !errors.Is(err, ErrBusy) {
		t.Errorf("while it is written: %v", err)
	}
	if err := f.Keep(); err != nil {
		t.Fatal(err)
	}
	f.Abort() // nothing, as deferred
	if f.Keep() == nil || f.Commit() == nil {
		t.Error("ended twice")
	}
	if got := names(t, dir); got != ".out.imgpack-partial" {
		t.Fatalf("kept: %q", got)
	}
	f = resume(t, target, true)
	if _, err := f.WriteAt([]byte(" done"), 4); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil || content(t, target) != "half done" || names(t, dir) != "out" {
		t.Errorf("%v, %q", err, names(t, dir))
	}
	if _, _, err := Resume(target, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("existing target: %v", err)
	}
}

func TestResumeAfterAKilledProcess(t *testing.T) {
	target := filepath.Join(t.TempDir(), "out")
	killed(t, "file", target)
	f := resume(t, target, true)
	defer f.Abort()
	if got := content(t, TempPath(target)); got != "half written" {
		t.Errorf("left: %q", got)
	}
}

func TestCreateTakesNothingOver(t *testing.T) {
	target := filepath.Join(t.TempDir(), "out")
	killed(t, "file", target)
	f, err := Create(target, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	if got := content(t, TempPath(target)); got != "" {
		t.Errorf("it holds %q", got)
	}
}

func TestResumeReplacesWhatIsStrange(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	for name, plant := range map[string]func(temp string) error{
		"second name": func(temp string) error { return os.Link(victim, temp) },
		"fifo":        func(temp string) error { return unix.Mkfifo(temp, 0o600) },
		"open to others": func(temp string) error {
			return errors.Join(os.WriteFile(temp, []byte("x"), 0o600), os.Chmod(temp, 0o644))
		},
		"setuid": func(temp string) error {
			return errors.Join(os.WriteFile(temp, []byte("x"), 0o600), os.Chmod(temp, 0o600|fs.ModeSetuid))
		},
		"somebody else's": func(temp string) error {
			if os.Geteuid() != 0 {
				return os.WriteFile(temp, []byte("x"), 0o640)
			}
			return errors.Join(os.WriteFile(temp, []byte("x"), 0o600), os.Chown(temp, 1234, 0))
		},
	} {
		if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(dir, "out")
		if err := plant(TempPath(target)); err != nil {
			t.Fatal(err)
		}
		f, left, err := Resume(target, true)
		if err != nil || left {
			t.Errorf("%s: left %v, %v", name, left, err)
			continue
		}
		if content(t, TempPath(target)) != "" || content(t, victim) != "precious" {
			t.Errorf("%s: taken over", name)
		}
		f.Abort()
	}
	target := filepath.Join(dir, "out2")
	if err := os.Symlink(victim, TempPath(target)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Resume(target, true); !errors.Is(err, unix.ELOOP) {
		t.Errorf("symlink: %v", err)
	}
}

func TestReserveKeepsContent(t *testing.T) {
	target := filepath.Join(t.TempDir(), "out")
	f := resume(t, target, false)
	write(t, f, "0123456789")
	for _, step := range []struct {
		size int64
		want string
	}{{4, "0123"}, {6, "0123\x00\x00"}, {0, ""}} {
		if err := f.Reserve(step.size); err != nil || content(t, TempPath(target)) != step.want {
			t.Errorf("%d: %q, %v", step.size, content(t, TempPath(target)), err)
		}
	}
	f.Abort()
}

// TestManyResumers: the file is in one hand at a time, and nothing that a
// resumed one held is lost.
func TestManyResumers(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "out")
	var wg sync.WaitGroup
	var wrote atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 50 {
				f, _, err := Resume(target, true)
				if errors.Is(err, ErrBusy) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				st, err := f.Stat()
				if err == nil {
					_, err = f.WriteAt([]byte("x"), st.Size())
				}
				if err = errors.Join(err, f.Keep()); err != nil {
					t.Error(err)
					return
				}
				wrote.Add(1)
			}
		})
	}
	wg.Wait()
	f := resume(t, target, wrote.Load() > 0)
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := len(content(t, target)); int64(got) != wrote.Load() || names(t, dir) != "out" {
		t.Errorf("%d bytes, want %d; left %q", got, wrote.Load(), names(t, dir))
	}
}
