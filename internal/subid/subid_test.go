package subid

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestParse: what a file may hold, and what comes of it for user 1000, alice.
func TestParse(t *testing.T) {
	own := Range{0, 1000, 1}
	for name, c := range map[string]struct {
		file string
		want []Range
	}{
		"by name":         {"bob:5:6\nalice:100000:65536\n", []Range{own, {1, 100000, 65536}}},
		"by number":       {"1000:100000:65536", []Range{own, {1, 100000, 65536}}},
		"several":         {"alice:300000:10\n1000:100000:5\nalice:200000:1\n", []Range{own, {1, 300000, 10}, {11, 100000, 5}, {16, 200000, 1}}},
		"blank":           {"\n  alice:100000:2  \n\n", []Range{own, {1, 100000, 2}}},
		"twice":           {"alice:100000:65536\n1000:100000:65536\n", []Range{own, {1, 100000, 65536}}},
		"overlap":         {"alice:100000:100\nalice:100099:100\nalice:100100:1\n", []Range{own, {1, 100000, 100}, {101, 100100, 1}}},
		"own id":          {"alice:900:101\nalice:1001:1\n", []Range{own, {1, 1001, 1}}},
		"root":            {"alice:0:10\n", []Range{own}},
		"none":            {"", []Range{own}},
		"other user":      {"malice:100000:65536\n10001:100000:65536\n", []Range{own}},
		"no name":         {":100000:65536\n", []Range{own}},
		"missing fields":  {"alice\nalice:\nalice:100000\nalice:100000:\nalice::5\n", []Range{own}},
		"words":           {"alice:many:few\nalice:0x10:5\nalice:1e5:5\nalice:100000:5 6\n", []Range{own}},
		"negative":        {"alice:-5:10\nalice:5:-10\n", []Range{own}},
		"more fields":     {"alice:100000:5:6:7\n", []Range{own, {1, 100000, 5}}},
		"largest":         {"alice:4294967294:1\n", []Range{own, {1, 4294967294, 1}}},
		"one past":        {"alice:4294967295:1\nalice:4294967294:2\n", []Range{own}},
		"huge":            {"alice:99999999999999999999:1\nalice:5:99999999999999999999\nalice:9223372036854775807:9223372036854775807\n", []Range{own}},
		"all there are":   {"alice:1001:4294966294\n", []Range{own, {1, 1001, 4294966294}}},
		"comment":         {"# alice:1:1\n", []Range{own}},
		"carriage return": {"alice:100000:5\r\n", []Range{own, {1, 100000, 5}}},
	} {
		ranges, err := parse(strings.NewReader(c.file), "alice", 1000)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(layOut(ranges, 1000), c.want); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// TestParseBounds: no file is too long to be refused.
func TestParseBounds(t *testing.T) {
	if _, err := parse(strings.NewReader(strings.Repeat("x", 1<<20)), "alice", 1000); err == nil {
		t.Error("a line of a megabyte was read")
	}
	many := strings.Repeat("bob:1:1\n", maxFile/8+1)
	if _, err := parse(strings.NewReader(many), "alice", 1000); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a file past the bound: %v", err)
	}
	if _, err := parse(strings.NewReader(many[:maxFile]), "alice", 1000); err != nil {
		t.Errorf("a file at the bound: %v", err)
	}
	var lines strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&lines, "alice:%d:1\n", 100_000+2*i)
	}
	ranges, err := parse(strings.NewReader(lines.String()), "alice", 1000)
	if got := layOut(ranges, 1000); err != nil || len(got) != maxExtents {
		t.Errorf("%d ranges, %v; the kernel takes %d", len(got), err, maxExtents)
	}
}

func FuzzLayOut(f *testing.F) {
	f.Add("alice:100000:65536\n1000:5:6\n", uint32(1000))
	f.Add("alice:4294967294:1\nalice:1:4294967294", uint32(0))
	f.Fuzz(func(t *testing.T, file string, own uint32) {
		ranges, err := parse(strings.NewReader(file), "alice", 1000)
		if err != nil {
			return
		}
		var inside uint64
		seen := layOut(ranges, own)
		for i, r := range seen {
			if r.Count == 0 || uint64(r.Inside) != inside || uint64(r.Outside)+uint64(r.Count) > max(noID, uint64(own)+1) || i > 0 && r.Outside == 0 {
				t.Fatalf("range %d: %+v of %+v", i, r, seen)
			}
			inside += uint64(r.Count)
			for _, o := range seen[:i] {
				if uint64(r.Outside) < uint64(o.Outside)+uint64(o.Count) && uint64(o.Outside) < uint64(r.Outside)+uint64(r.Count) {
					t.Fatalf("%+v and %+v overlap", r, o)
				}
			}
		}
		if inside > noID {
			t.Fatalf("%d ids", inside)
		}
	})
}

func TestText(t *testing.T) {
	m := Maps{UIDs: []Range{{0, 1000, 1}, {1, 100000, 65536}}, GIDs: []Range{{0, 1000, 1}, {1, 100000, 65536}}}
	if got, want := m.String(), "users and groups 0 are 1000 here, 1-65536 are 100000-165535 here"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	m.GIDs = []Range{{0, 100, 1}}
	if got, want := m.String(), "users 0 are 1000 here, 1-65536 are 100000-165535 here; groups 0 are 100 here"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestOwn(t *testing.T) {
	m, err := Own()
	if err != nil || len(m.UIDs) == 0 || len(m.GIDs) == 0 {
		t.Errorf("%+v, %v", m, err)
	}
	got, err := parseMap(strings.NewReader("         1     100000      65536\n         0       1000          1\n"))
	if diff := cmp.Diff(got, []Range{{0, 1000, 1}, {1, 100000, 65536}}); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := parseMap(strings.NewReader("0 -1 1\n")); err == nil {
		t.Error("read a negative id")
	}
}

// TestNoInit: a process that Run has not started is not taken for one, and the
// socket of another parent does not make it one.
func TestNoInit(t *testing.T) {
	if Init() != nil {
		t.Fatal("taken for a child")
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if madeByParent(fds[0]) { // made by this process itself
		t.Error("a socket of its own is taken for its parent's")
	}
	if madeByParent(-1) {
		t.Error("no descriptor is taken for a socket")
	}
}

// TestHelpers: only what root alone can change, and what gets rights, is used.
func TestHelpers(t *testing.T) {
	empty := t.TempDir()
	var un *UnavailableError
	if _, err := findHelpers([]string{empty}); !errors.As(err, &un) || !strings.Contains(un.Reason, "newuidmap is not installed") || un.Hint == "" {
		t.Errorf("no helper: %v", err)
	}
	if os.Getuid() != 0 {
		t.Skip("giving files to users needs root")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "newuidmap")
	for _, c := range []struct {
		uid  int
		mode uint32
		caps bool
		want string // "" = is used
	}{
		{0, 0o4755, false, ""},
		{0, 0o4711, false, ""},
		{0, 0o755, true, ""},
		{0, 0o755, false, "neither set-user-id root nor has file capabilities"},
		{1000, 0o4755, false, "can be changed by others"},
		{0, 0o4775, false, "can be changed by others"},
		{0, 0o4757, false, "can be changed by others"},
		{0, 0o4644, false, "is no program"},
	} {
		os.Remove(path)
		must(t, os.WriteFile(path, []byte("#!/bin/false\n"), 0o600))
		must(t, os.Chown(path, c.uid, 0))
		must(t, unix.Chmod(path, c.mode))
		if c.caps { // version 2, CAP_SETUID permitted and effective
			must(t, unix.Setxattr(path, "security.capability", []byte{1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
		}
		got, err := findHelper([]string{empty, dir}, "newuidmap")
		switch {
		case c.want == "" && (err != nil || got != path):
			t.Errorf("%+v: %q, %v", c, got, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	os.Remove(path)
	must(t, os.Mkdir(path, 0o4755))
	if _, err := findHelper([]string{dir}, "newuidmap"); err == nil {
		t.Error("a directory is used")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
