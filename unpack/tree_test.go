package unpack

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree lists a directory: path → type, mode, owner, time, attributes, content
// and the first other name of the same file.
func tree(t testing.TB, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		if name == "." {
			line = fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", len(raw), sha256.Sum256(raw))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" %x", st.Rdev)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if f, ok := first[st.Ino]; ok {
				line += " = " + f
			} else {
				first[st.Ino] = name
			}
		}
		out[name] = line + xattrsOf(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func xattrsOf(t testing.TB, path string) string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return ""
	}
	var out []string
	for _, name := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		value := make([]byte, 64<<10)
		k, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf(" %s=%q", name, value[:k]))
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

// sameTree compares two listings.
func sameTree(t testing.TB, what string, want, got map[string]string) {
	t.Helper()
	var all []string
	for n := range want {
		all = append(all, n)
	}
	for n := range got {
		if _, ok := want[n]; !ok {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	bad := 0
	for _, n := range all {
		if want[n] != got[n] {
			if bad++; bad < 12 {
				t.Errorf("%s: %q\nwant %s\ngot  %s", what, n, want[n], got[n])
			}
		}
	}
	if bad > 0 {
		t.Errorf("%s: %d of %d names differ", what, bad, len(all))
	}
}
