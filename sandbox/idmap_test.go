//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const mappedRoot = 100000

// remapped runs the probe with ids mapped.
func (im image) remapped(args ...string) Spec {
	if os.Getuid() != 0 {
		im.t.Skip("id maps take root")
	}
	s := im.spec(args...)
	s.UIDMap = []IDMap{{0, mappedRoot, 5000}}
	s.GIDMap = []IDMap{{0, mappedRoot + 7, 5000}}
	// The way to the layers is closed to the mapped ids.
	if err := os.Chmod(filepath.Dir(im.dir), 0o700); err != nil {
		im.t.Fatal(err)
	}
	return s
}

// owners lists a tree's owners and modes.
func owners(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d %d\n", path, st.Mode, st.Uid, st.Gid, st.Size, st.Ctim.Nano())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestRemap(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("giving files away takes root")
	}
	im := newImage(t)
	im.write("etc/shadow", "secret", 0o600)
	im.write("app/data", "its", 0o600)
	for p, id := range map[string]int{"app": 1000, "app/data": 1000, "tmp": 0} {
		if err := os.Chown(im.path(p), id, id); err != nil {
			t.Fatal(err)
		}
	}
	before := owners(t, im.dir)
	for _, state := range []string{"", stateDir(t)} {
		s := im.remapped("read", "/etc/shadow")
		s.State = state
		r := good(t, s)
		if r.out != "secret" || !strings.Contains(r.explains, "user 0 is 100000 outside, group 0 is 100007") {
			t.Errorf("%q\n%s", r.out, r.explains)
		}
		if state != "" && !strings.Contains(r.explains, "on disk") {
			t.Errorf("changes are not kept on disk:\n%s", r.explains)
		}
		s.Args = []string{"/bin/probe", "write", "/etc/shadow", "changed"}
		good(t, s)
		s.User, s.Args = "app", []string{"/bin/probe", "write", "/app/data", "changed"}
		good(t, s)
		s.Args = []string{"/bin/probe", "read", "/etc/shadow"}
		if r := run(t, s); r.st.Code == 0 {
			t.Errorf("user 1000 reads what is root's: %q", r.out)
		}
	}
	if after := owners(t, im.dir); after != before {
		t.Errorf("the layer was\n%s\nand is\n%s", before, after)
	}
}

// TestRemapOutside looks at the process from outside.
func TestRemapOutside(t *testing.T) {
	im := newImage(t)
	noSandboxLeft(t)
	s := im.remapped("sleep", "60000")
	s.User = "app"
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := make(chan []string, 1)
	onReady(t, &s, func(string) {
		defer cancel()
		var of []string
		for _, p := range descendants(t, os.Getpid()) {
			raw, err := os.ReadFile("/proc/" + p + "/status")
			if err == nil && strings.Contains(string(raw), fmt.Sprintf("\nUid:\t%d\t", mappedRoot+1000)) && strings.Contains(string(raw), fmt.Sprintf("\nGid:\t%d\t", mappedRoot+7+1001)) {
				of = append(of, p)
			}
		}
		seen <- of
	})
	r := runCtx(ctx, t, s)
	select {
	case of := <-seen:
		if len(of) != 1 {
			t.Errorf("processes of the mapped user: %v", of)
		}
	default:
		t.Errorf("%+v, %v", r.st, r.err) // it was not ready
	}
}

func TestRemapStreams(t *testing.T) {
	im := newImage(t)
	if r := good(t, im.remapped("write", "/dev/stdout", "again")); r.out != "again" {
		t.Errorf("%q", r.out)
	}
	good(t, im.remapped("chown", "/dev/stdout", "1000"))
}

func TestRemapFaults(t *testing.T) {
	im := newImage(t)
	s := im.remapped("hello")
	s.User = "5000:0"
	se := wantStart(t, run(t, s), CodeStart, "set user 5000")
	if !strings.Contains(se.Hint, "id map") {
		t.Errorf("hint %q", se.Hint)
	}
	s = im.remapped("hello")
	s.GIDMap = nil
	wantStart(t, run(t, s), CodeStart, "together")
	s = im.remapped("hello")
	s.UIDMap = []IDMap{{1, 1, 1}}
	wantStart(t, run(t, s), CodeStart, "no range has id 0")
	s = im.remapped("hello")
	s.UIDMap = []IDMap{{0, 1, 10}, {5, 100, 10}}
	if r := run(t, s); r.err == nil {
		t.Error("overlapping ranges are taken")
	}
}

// TestRemapUnsupported has layers on a filesystem without mapped mounts.
func TestRemapUnsupported(t *testing.T) {
	im := newImage(t)
	s := im.remapped("hello")
	dir := t.TempDir()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, "mode=755"); err != nil {
		skip(t, "cannot mount a ramfs: "+err.Error())
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s.Lower = append(s.Lower, dir)
	r := run(t, s)
	var un *UnsupportedError
	if !errors.As(r.err, &un) || !strings.Contains(un.Error(), dir) || un.Hint == "" {
		t.Errorf("%v", r.err)
	}
}

func TestRemapManyLayers(t *testing.T) {
	im := newImage(t)
	s := im.remapped("ls", "/many")
	base := t.TempDir()
	for i := range maxLower - 1 {
		l := image{t, filepath.Join(base, fmt.Sprint(i))}
		l.write(fmt.Sprintf("many/%03d", i), "x", 0o644)
		s.Lower = append(s.Lower, l.dir)
	}
	if got := probe[[]string](t, s); len(got) != maxLower-1 {
		t.Errorf("%d layers show", len(got))
	}
	s.Lower = append(s.Lower, base)
	wantStart(t, run(t, s), CodeStart, "501 layers; the kernel takes 500")
}
