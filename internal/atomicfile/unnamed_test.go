package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestUnnamed(t *testing.T) {
	for name, open := range map[string]func(string) (*os.File, error){"Unnamed": Unnamed, "unlinked": unlinked} {
		dir := t.TempDir()
		f, err := open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(t, dir); got != "" {
			t.Errorf("%s: the directory holds %q", name, got)
		}
		if st, err := f.Stat(); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v %v", name, st.Mode(), err)
		}
		got := make([]byte, 3)
		if _, err := f.WriteAt([]byte("text"), 5); err != nil {
			t.Error(err)
		}
		if _, err := f.ReadAt(got, 6); err != nil || string(got) != "ext" {
			t.Errorf("%s: %q %v", name, got, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestUnnamedMakesTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	f, err := Unnamed(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st, err)
	}
	if _, err := Unnamed("/proc/self/nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where no directory can be made: %v", err)
	}
}
