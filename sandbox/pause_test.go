//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needPause skips where this user can freeze nothing.
func needPause(t *testing.T, r *running) {
	t.Helper()
	err := r.Pause(context.Background())
	if un := new(UnsupportedError); errors.As(err, &un) {
		if un.Feature != "pausing" || un.Err == nil || un.Hint == "" {
			t.Errorf("%+v", un)
		}
		if os.Getenv(ordinaryEnv) != "" {
			t.Skip(err)
		}
		skip(t, err.Error())
	}
	check(t, err)
	check(t, r.Resume(context.Background()))
}

func TestPause(t *testing.T) {
	im := newImage(t)
	upper := stateDir(t)
	s := im.spec("tick", "/ticks")
	s.Upper = upper
	r := keep(t, s)
	needPause(t, r)
	size := func() int64 {
		st, err := os.Stat(filepath.Join(upper, "upper/ticks"))
		if err != nil {
			return 0
		}
		return st.Size()
	}
	goesOn := func() {
		t.Helper()
		from := size()
		waitFor(t, "it to go on", func() bool { return size() > from })
	}
	goesOn()
	ctx := context.Background()
	for range 2 {
		check(t, r.Pause(ctx))
		check(t, r.Pause(ctx))
		from := size()
		if time.Sleep(50 * time.Millisecond); size() != from {
			t.Error("it goes on while it is paused")
		}
		if res := r.exec(ExecSpec{Args: []string{"/bin/probe"}}); !errors.Is(res.err, ErrPaused) {
			t.Errorf("exec: %v", res.err)
		}
		check(t, r.Resume(ctx))
		check(t, r.Resume(ctx))
		goesOn()
		if out := r.good("hello"); out != "hello\n" {
			t.Errorf("%q", out)
		}
	}
	check(t, r.Pause(ctx))
	check(t, r.Signal(syscall.SIGTERM)) // for later
	select {
	case res := <-r.ended:
		t.Errorf("ended while it was paused: %+v, %v", res.st, res.err)
	case <-time.After(50 * time.Millisecond):
	}
	check(t, r.Resume(ctx))
	if res := <-r.ended; res.err != nil || res.st != (Status{Code: 143, Signal: 15}) {
		t.Errorf("%+v, %v", res.st, res.err)
	}
}

// TestEndWhilePaused: what is paused can be killed, whoever does it.
func TestEndWhilePaused(t *testing.T) {
	im := newImage(t)
	for name, end := range map[string]func(*Process) error{
		"kill":    (*Process).Kill,
		"SIGKILL": func(p *Process) error { return p.Signal(syscall.SIGKILL) },
	} {
		r := keep(t, im.spec("stubborn"))
		needPause(t, r)
		check(t, r.Pause(context.Background()))
		check(t, end(r.Process))
		if res := <-r.ended; res.err != nil || res.st != killed {
			t.Errorf("%s: %+v, %v", name, res.st, res.err)
		}
		noSandboxLeft(t)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	s := im.spec("stubborn")
	s.Keep = true
	s.Started = func(p *Process) {
		go func() {
			check(t, p.Pause(context.Background()))
			cancel(why)
		}()
	}
	if r := runCtx(ctx, t, s); !errors.Is(r.err, why) {
		t.Errorf("%+v, %v", r.st, r.err)
	}
	noSandboxLeft(t)
}

func TestKill(t *testing.T) {
	im := newImage(t)
	r := keep(t, im.spec("stubborn"))
	check(t, r.Kill())
	if res := <-r.ended; res.err != nil || res.st != killed {
		t.Errorf("%+v, %v", res.st, res.err)
	}
	if err := r.Kill(); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	noSandboxLeft(t)
}

// TestKeptIsWeak: process 1 keeps only what starting commands takes.
func TestKeptIsWeak(t *testing.T) {
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); e == unix.ENOTSUP {
		t.Skip("a program built with cgo cannot drop the capabilities of all threads")
	}
	im := newImage(t)
	s := im.spec("cat")
	s.Capabilities = []string{}
	r := keep(t, s)
	r.good("hello")
	var eff uint64
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.Pid()))
	check(t, err)
	for line := range strings.Lines(string(b)) {
		if hex, ok := strings.CutPrefix(line, "CapPrm:\t"); ok {
			_, err := fmt.Sscanf(hex, "%x", &eff)
			check(t, err)
		}
	}
	most := uint64(1<<unix.CAP_KILL | 1<<unix.CAP_SETPCAP | 1<<unix.CAP_SYS_ADMIN)
	if rootless(t) {
		most |= 1<<unix.CAP_SETFCAP | 1<<unix.CAP_SYS_RESOURCE
	} else {
		most |= 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_CHOWN
	}
	if eff&^most != 0 || !strings.Contains(string(b), "NoNewPrivs:\t1") {
		t.Errorf("%x, at most %x", eff, most)
	}
	r.end()
}

// TestUpper: what was written is there in the next run, in the form of a layer.
func TestUpper(t *testing.T) {
	im := newImage(t)
	im.write("gone", "x", 0o644)
	im.write("opaque/old", "old", 0o644)
	upper := stateDir(t)
	s := im.spec("rebuild")
	s.Upper = upper
	good(t, s)
	var st unix.Stat_t
	check(t, unix.Lstat(filepath.Join(upper, "upper/gone"), &st))
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("no whiteout: mode %o, device %d", st.Mode, st.Rdev)
	}
	mark := make([]byte, 8)
	n, err := unix.Lgetxattr(filepath.Join(upper, "upper/opaque"), "user.overlay.opaque", mark)
	if err != nil || string(mark[:n]) != "y" {
		t.Errorf("not opaque: %q, %v", mark, err)
	}
	for range 2 {
		for path, want := range map[string]string{"/made": "made", "/opaque/new": "new"} {
			s.Args = []string{"/bin/probe", "read", path}
			if r := good(t, s); r.out != want {
				t.Errorf("%s: %q", path, r.out)
			}
		}
		for _, path := range []string{"/gone", "/opaque/old"} {
			s.Args = []string{"/bin/probe", "read", path}
			if r := run(t, s); r.st.Code != 98 {
				t.Errorf("%s is there again: %+v, %v", path, r.st, r.err)
			}
		}
		s.Args = []string{"/bin/probe", "mode", "/"}
		if r := good(t, s); r.out != "drwx--x--x\n" {
			t.Errorf("mode of /: %q", r.out)
		}
	}
	if names := dirNames(t, upper); strings.Join(names, " ") != "upper work" {
		t.Errorf("left: %q", names)
	}
	check(t, RemoveUpper(upper))
	if names := dirNames(t, upper); len(names) != 0 {
		t.Errorf("left: %q", names)
	}
	check(t, RemoveUpper(upper))
}

func TestUpperRefused(t *testing.T) {
	im := newImage(t)
	s := im.spec("cat")
	s.Upper = stateDir(t)
	r := keep(t, s)
	other := im.spec("hello")
	other.Upper = s.Upper
	wantStart(t, run(t, other), CodeStart, "in use")
	r.end()
	good(t, other)
	check(t, os.Chmod(s.Upper, 0o755))
	wantStart(t, run(t, other), CodeStart, "0700")
	other.Upper += "/none"
	wantStart(t, run(t, other), CodeStart, "no such file")
}

// TestKilledCallerOfKept: everything is gone when the caller is killed, and is
// gone when it was paused.
func TestKilledCallerOfKept(t *testing.T) {
	im := newImage(t)
	for _, paused := range []bool{false, true} {
		upper := stateDir(t)
		cmd := call{Lower: []string{im.dir}, Upper: upper, Args: []string{"/bin/probe", "stubborn"}, Pause: paused}.command(t)
		out, err := cmd.StdoutPipe()
		check(t, err)
		cmd.Stderr = os.Stderr
		startCaller(t, cmd)
		lines := bufio.NewReader(out)
		want := map[string]bool{"ready": true, "exec": true}
		if paused {
			want = map[string]bool{"paused": true}
		}
		for len(want) > 0 {
			line, err := lines.ReadString('\n')
			if err != nil {
				break
			}
			if strings.HasPrefix(line, "cannot") {
				break
			}
			delete(want, strings.Fields(line)[0])
		}
		killCaller(t, cmd)
		s := im.spec("hello")
		s.Upper = upper
		good(t, s)
	}
}
