//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStdinPipe(t *testing.T) {
	im := newImage(t)
	r, w, err := os.Pipe()
	check(t, err)
	go func() { fmt.Fprint(w, "through a pipe"); w.Close() }()
	s := im.spec("cat")
	s.Stdin = r
	if got := good(t, s); got.out != "through a pipe" {
		t.Errorf("%q", got.out)
	}
	r.Close()
}

// TestStreamsOfAnotherUser: /dev/stdout opens for a command that is not root,
// whether it is the caller's pipe or a relay's.
func TestStreamsOfAnotherUser(t *testing.T) {
	im := newImage(t)
	s := im.spec("write", "/dev/stdout", "said")
	s.User = "1000"
	if got := good(t, s); got.out != "said" {
		t.Errorf("pipe: %q", got.out)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	check(t, err)
	s.Stdout = f
	defer f.Close()
	if got := run(t, s); got.err != nil || got.st.Code != 0 {
		t.Errorf("file: %+v, %v, %s", got.st, got.err, got.errOut)
	}
	if got, err := os.ReadFile(f.Name()); string(got) != "said" || err != nil {
		t.Errorf("file: %q, %v", got, err)
	}
}

func TestNoStreams(t *testing.T) {
	im := newImage(t)
	s := im.spec("cat")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	check(t, err)
	defer null.Close()
	for _, f := range []*os.File{nil, null} {
		s.Stdin = f
		if got := good(t, s); got.out != "" {
			t.Errorf("%q", got.out)
		}
	}
	s.Args = []string{"/bin/probe", "streams"}
	got := probe[map[string]string](t, s)
	if got["0"] != "/dev/null" || !anyOf("EROFS EPERM", got["chmod 0"]) {
		t.Errorf("%v", got)
	}
}

// TestFilesAreRelayed: a process must not hold the caller's files, which it
// could reopen, chmod or chown.
func TestFilesAreRelayed(t *testing.T) {
	im := newImage(t)
	dir := t.TempDir()
	in, err := os.OpenFile(filepath.Join(dir, "in"), os.O_RDWR|os.O_CREATE, 0o600)
	check(t, err)
	defer in.Close()
	_, err = in.WriteString(strings.Repeat("0123456789", 100_000))
	check(t, err)
	_, err = in.Seek(0, 0)
	check(t, err)
	out, err := os.OpenFile(filepath.Join(dir, "out"), os.O_RDWR|os.O_CREATE, 0o600)
	check(t, err)
	defer out.Close()
	s := im.spec("cat")
	s.Stdin, s.Stdout = in, out
	good(t, s)
	a, err := os.ReadFile(in.Name())
	check(t, err)
	b, err := os.ReadFile(out.Name())
	check(t, err)
	if string(a) != string(b) {
		t.Errorf("%d bytes in, %d bytes out", len(a), len(b))
	}
	check(t, out.Truncate(0))
	_, err = out.Seek(0, 0)
	check(t, err)
	s.Args = []string{"/bin/probe", "streams"}
	good(t, s)
	b, err = os.ReadFile(out.Name())
	check(t, err)
	if n := strings.Count(string(b), ":\"pipe:["); n != 3 {
		t.Errorf("streams: %s", b)
	}
	if st, err := os.Stat(out.Name()); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// TestTerminalIsRelayed: nothing can be pushed into the caller's terminal, and
// input that the process does not take stays there.
func TestTerminalIsRelayed(t *testing.T) {
	im := newImage(t)
	ptmx, pts := openPTY(t)
	s := im.spec("streams")
	s.Stdin, s.Stderr = pts, pts
	got := probe[map[string]string](t, s)
	for fd := range 3 {
		if !strings.HasPrefix(got[fmt.Sprint(fd)], "pipe:[") {
			t.Errorf("stream %d is %s", fd, got[fmt.Sprint(fd)])
		}
		for _, op := range []string{"sti", "sti high", "linux"} {
			if e := got[fmt.Sprint(op, " ", fd)]; !anyOf("ENOTTY EPERM EINVAL EIO", e) {
				t.Errorf("%s on %d: %s", op, fd, e)
			}
		}
	}
	s = im.spec("cat")
	s.Stdin = pts
	_, err := ptmx.WriteString("typed\n\x04")
	check(t, err)
	if r := good(t, s); r.out != "typed\n" {
		t.Errorf("%q", r.out)
	}
	// A run that reads nothing: what is typed later is not lost.
	s.Args = []string{"/bin/probe", "hello"}
	good(t, s)
	_, err = ptmx.WriteString("later\n")
	check(t, err)
	buf := make([]byte, 64)
	if n, err := pts.Read(buf); string(buf[:max(n, 0)]) != "later\n" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

func openPTY(t *testing.T) (ptmx, pts *os.File) {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		skip(t, "no terminals here: "+err.Error())
	}
	t.Cleanup(func() { ptmx.Close() })
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	check(t, err)
	check(t, unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0))
	pts, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		skip(t, "no terminals here: "+err.Error())
	}
	t.Cleanup(func() { pts.Close() })
	return ptmx, pts
}

// TestStdinStaysOpen: a run ends although nobody closes its input.
func TestStdinStaysOpen(t *testing.T) {
	im := newImage(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	check(t, unix.Mkfifo(fifo, 0o600))
	f, err := os.OpenFile(fifo, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	s := im.spec("hello")
	s.Stdin = f
	good(t, s)
}

func TestFullOutput(t *testing.T) {
	im := newImage(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		skip(t, err.Error())
	}
	defer full.Close()
	s := im.spec("hello")
	s.Stdout = full
	if r := run(t, s); !errors.Is(r.err, syscall.ENOSPC) {
		t.Errorf("%+v, %v", r.st, r.err)
	}
}
