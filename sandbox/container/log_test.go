package container

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func FuzzParseSignal(f *testing.F) {
	f.Add("TERM")
	f.Add("RTMIN+3")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSignal(s); err == nil && (n < 1 || n > rtMax) {
			t.Errorf("%q is %d", s, n)
		}
	})
}

func TestSplitter(t *testing.T) {
	long := strings.Repeat("ä", maxLine) // a character of two bytes across the cut, had it an odd place
	text := "one\ntwo\n\n" + "x" + long + "\nend"
	for _, step := range []int{1, 7, maxLine - 1, maxLine, len(text)} {
		var s splitter
		var lines []string
		for rest := []byte(text); len(rest) > 0; {
			n := min(step, len(rest))
			lines = append(lines, s.cut(rest[:n])...)
			rest = rest[n:]
		}
		if string(s.rest) != "end" || strings.Join(lines, "")+"end" != text || !slices.Equal(lines[:3], []string{"one\n", "two\n", "\n"}) {
			t.Errorf("step %d: %d lines, rest %q", step, len(lines), s.rest)
		}
		for _, l := range lines {
			if len(l) > maxLine || !bytes.Equal([]byte(l), []byte(strings.ToValidUTF8(l, "?"))) {
				t.Errorf("step %d: a piece of %d bytes, not whole", step, len(l))
			}
		}
	}
}

// logOf is a container with a log, and its logger.
func logOf(t *testing.T) (*Container, *logger) {
	c := &Container{dir: &Dir{}, path: t.TempDir(), config: Config{Name: "x"}}
	l := c.newLogger(func(error, int64) {})
	if err := c.save(record{State: State{Status: Exited}}); err != nil {
		t.Fatal(err)
	}
	return c, l
}

func TestLogs(t *testing.T) {
	c, l := logOf(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	l.now = func() time.Time { at = at.Add(time.Second); return at }
	l.add(streamOut, []string{"one\n", "two\n"})
	l.add(streamErr, []string{"bad \xff bytes\n"})
	l.close()
	// A monitor that was killed while it wrote.
	f, err := os.OpenFile(c.file(logFile), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString(`{"log":"torn`)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	l.add(streamOut, []string{"three\n"})
	for _, o := range []struct {
		LogOptions
		out, err string
	}{
		{LogOptions{}, "one\ntwo\nthree\n", "bad \xff bytes\n"},
		{LogOptions{Tail: 2}, "three\n", "bad \xff bytes\n"},
		{LogOptions{Tail: 1}, "three\n", ""},
		{LogOptions{Tail: 99}, "one\ntwo\nthree\n", "bad \xff bytes\n"},
		{LogOptions{Tail: -1}, "", ""},
		{LogOptions{Since: at}, "three\n", ""},
		{LogOptions{Until: at.Add(-1)}, "one\ntwo\n", "bad \xff bytes\n"},
		{LogOptions{Tail: 1, Timestamps: true}, "2026-01-02T03:04:08.000000006Z three\n", ""},
		{LogOptions{Follow: true}, "one\ntwo\nthree\n", "bad \xff bytes\n"},
	} {
		if out, errs := logs(t, c, o.LogOptions); out != o.out || errs != o.err {
			t.Errorf("%+v: %q, %q", o.LogOptions, out, errs)
		}
	}
}

func TestLogRotation(t *testing.T) {
	c, l := logOf(t)
	line := strings.Repeat("x", 8000) + "\n"
	for range 3 * maxLog / len(line) {
		l.add(streamOut, []string{line})
	}
	l.add(streamOut, []string{"last\n"})
	var total int64
	for _, name := range []string{logFile, oldLog} {
		st, err := os.Stat(c.file(name))
		if err != nil || st.Size() > maxLog {
			t.Fatalf("%v, %v", st, err)
		}
		total += st.Size()
	}
	if total < maxLog {
		t.Errorf("only %d bytes are kept", total)
	}
	if out, _ := logs(t, c, LogOptions{Tail: 2}); out != line+"last\n" {
		t.Errorf("%d bytes", len(out))
	}
}

// Lines come while the log is put aside under a reader.
func TestFollow(t *testing.T) {
	c, l := logOf(t)
	lock, err := os.Create(c.file(lockFile))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := lockByte(lock, lifeByte, false); err != nil {
		t.Fatal(err)
	}
	if err := c.save(record{State: State{Status: Running}}); err != nil {
		t.Fatal(err)
	}
	read := &lines{}
	done := make(chan error)
	go func() { done <- c.Logs(context.Background(), read, read, LogOptions{Follow: true}) }()
	want := int64(0)
	for i := range 30 {
		aside := i%10 == 9
		if aside { // a reader that comes to it once between two times misses nothing
			until(t, "the lines to be read", func() bool { return read.Load() == want })
		}
		l.add(streamOut, []string{"line\n"})
		want++
		if aside {
			if err := os.Rename(l.path, l.old); err != nil {
				t.Fatal(err)
			}
			l.close()
		}
	}
	if err := c.save(record{State: State{Status: Exited}}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || read.Load() != want {
		t.Errorf("%d lines of %d, %v", read.Load(), want, err)
	}
}

// lines counts what is written to it.
type lines struct{ atomic.Int64 }

func (l *lines) Write(p []byte) (int, error) {
	l.Add(int64(bytes.Count(p, []byte("\n"))))
	return len(p), nil
}

// What a full disk does not take is counted, and told in the log later.
func TestLostOutput(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk takes root")
	}
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	c := &Container{dir: &Dir{}, path: mount, config: Config{Name: "x"}}
	told := 0
	l := c.newLogger(func(err error, lost int64) {
		told++
		if !errors.Is(err, unix.ENOSPC) {
			t.Error(err)
		}
	})
	line := strings.Repeat("x", 1000) + "\n"
	for range 100 {
		l.add(streamOut, []string{line})
	}
	n, why := l.lostSoFar()
	if n == 0 || told != 1 || !errors.Is(why, unix.ENOSPC) {
		t.Errorf("%d lost, told %d times: %v", n, told, why)
	}
	if err := unix.Mount("", mount, "", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	l.add(streamOut, []string{"again\n"})
	out, errs := logs(t, c, LogOptions{})
	if !strings.HasSuffix(out, line+"again\n") || !strings.Contains(errs, "lines of output were lost here: ") {
		t.Errorf("%d bytes, %q", len(out), errs)
	}
	if left, err := filepath.Glob(filepath.Join(mount, "*")); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
}

// Whatever is in a log or a state, reading it ends without more than an error.
func FuzzFiles(f *testing.F) {
	f.Add([]byte(`{"log":"x\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}`+"\n"), []byte(`{"Status":"exited"}`))
	f.Add([]byte("{\n\n\x00"), []byte(`{"Status":"running","Starting":true}`))
	dir := f.TempDir()
	c := &Container{dir: &Dir{}, path: dir, config: Config{Name: "x"}}
	if err := os.WriteFile(c.file(lockFile), nil, 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, log, state []byte) {
		if err := errors.Join(os.WriteFile(c.file(logFile), log, 0o600), os.WriteFile(c.file(stateFile), state, 0o600)); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := c.Logs(t.Context(), &out, &out, LogOptions{Tail: 3}); err != nil {
			t.Error(err)
		}
		if st, err := c.State(); err == nil && st.Live() {
			t.Errorf("%q runs without a monitor", state)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"Op":"exec","Exec":{"Args":["x"]}}` + "\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fds[0]), "socket")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		raw = raw[:min(len(raw), 32<<10)] // what the socket holds
		if _, err := unix.Write(fds[1], raw); err != nil {
			t.Fatal(err)
		}
		unix.Close(fds[1])
		_, files, _, _ := receive(conn.(*net.UnixConn))
		closeAll(files)
	})
}
