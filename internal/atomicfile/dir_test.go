package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func fill(t *testing.T, d *Dir) {
	t.Helper()
	for _, err := range []error{
		os.Mkdir(filepath.Join(d.Path(), "sub"), 0o700),
		os.WriteFile(filepath.Join(d.Path(), "sub", "f"), []byte("new"), 0o600),
		os.Chmod(filepath.Join(d.Path(), "sub"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestDirCommit(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "tree")
	d, err := CreateDir(target+"/", false)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(d.Path()); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("while building: %v %v", st, err)
	}
	fill(t, d)
	if _, err := CreateDir(target, false); !errors.Is(err, ErrBusy) {
		t.Errorf("second writer: %v", err)
	}
	d.Mode = 0o711
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	d.Abort()
	if names(t, dir) != "tree" {
		t.Errorf("left: %q", names(t, dir))
	}
	if st, err := os.Stat(target); err != nil || st.Mode().Perm() != 0o711 {
		t.Errorf("%v %v", st, err)
	}
	if err := d.Commit(); err == nil {
		t.Error("committed twice")
	}
	if err := os.Chmod(filepath.Join(target, "sub"), 0o700); err != nil || content(t, filepath.Join(target, "sub", "f")) != "new" {
		t.Error("content is lost")
	}
}

func TestDirInTheWay(t *testing.T) {
	dir := t.TempDir()
	plant := func(name string, f func(path string) error) string {
		path := filepath.Join(dir, name)
		if err := f(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty := plant("empty", func(p string) error { return os.Mkdir(p, 0o755) })
	full := plant("full", func(p string) error { return os.MkdirAll(filepath.Join(p, "x"), 0o755) })
	file := plant("file", func(p string) error { return os.WriteFile(p, nil, 0o644) })
	link := plant("link", func(p string) error { return os.Symlink("nowhere", p) })
	for _, target := range []string{empty, full, file, link} {
		if _, err := CreateDir(target, false); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", target, err)
		}
	}
	for _, target := range []string{full, file, link} {
		if _, err := CreateDir(target, true); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s with replace: %v", target, err)
		}
	}
	d, err := CreateDir(empty, true)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d)
	if err := d.Commit(); err != nil || names(t, empty) != "sub" {
		t.Errorf("over an empty directory: %v", err)
	}
	os.Chmod(filepath.Join(empty, "sub"), 0o700) // for the test's own cleaning up
	// What comes to be meanwhile stays.
	for _, replace := range []bool{false, true} {
		late := filepath.Join(dir, "late")
		d, err := CreateDir(late, replace)
		if err != nil {
			t.Fatal(err)
		}
		plant("late", func(p string) error { return os.MkdirAll(filepath.Join(p, "theirs"), 0o755) })
		if err := d.Commit(); !errors.Is(err, fs.ErrExist) {
			t.Errorf("replace %v: %v", replace, err)
		}
		if names(t, late) != "theirs" {
			t.Errorf("replace %v: merged", replace)
		}
		os.RemoveAll(late)
	}
	if got := names(t, dir); got != "empty file full link" {
		t.Errorf("left: %q", got)
	}
}

func TestDirAbortAndLeftovers(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "tree")
	d, err := CreateDir(target, false)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d)
	d.Abort()
	if names(t, dir) != "" {
		t.Errorf("left: %q", names(t, dir))
	}
	killed(t, "dir", target)
	d, err = CreateDir(target, false)
	if err != nil {
		t.Fatal(err)
	}
	if names(t, d.Path()) != "" {
		t.Errorf("the leftover was kept: %q", names(t, d.Path()))
	}
	if err := d.Commit(); err != nil || names(t, dir) != "tree" {
		t.Errorf("%v, left %q", err, names(t, dir))
	}
}

// TestClosedDirectoriesAreRemoved matters to ordinary users only.
func TestClosedDirectoriesAreRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	if err := os.MkdirAll(filepath.Join(dir, "b", "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Join(dir, "b"), 0)
	if err := removeAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
