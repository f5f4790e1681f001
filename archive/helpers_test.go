package archive

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain puts temporary directories into memory where it can: the tests force
// thousands of small files to disk, which is not what they are about. Children
// of the test use the directory of their parent, which outlives them.
func TestMain(m *testing.M) {
	const prefix = "/dev/shm/imgpack-test-"
	if strings.HasPrefix(os.Getenv("TMPDIR"), prefix) {
		os.Exit(m.Run())
	}
	if dir, err := os.MkdirTemp(filepath.Split(prefix)); err == nil {
		os.Setenv("TMPDIR", dir)
		code := m.Run()
		os.RemoveAll(dir)
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// snapshot lists a tree: names, modes and content.
func snapshot(t testing.TB, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&out, "%s %s", rel, st.Mode())
		if st.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %d %x", len(data), sha256.Sum256(data))
		}
		out.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
