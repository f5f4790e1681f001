//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTerminal(t *testing.T) {
	im := newImage(t)
	for name, change := range map[string]func(*Spec){
		"root":         func(*Spec) {},
		"app":          func(s *Spec) { s.User = "app" },
		"read-only":    func(s *Spec) { s.ReadOnly = true },
		"own profile":  func(s *Spec) { s.Seccomp = []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`) },
		"unconfined":   func(s *Spec) { s.Unconfined, s.Init = true, true },
		"no rights":    func(s *Spec) { s.Capabilities = []string{} },
		"stderr":       func(s *Spec) { s.Stderr = os.Stderr },
		"host network": func(s *Spec) { s.Network = Host },
		"mapped":       func(s *Spec) { s.UIDMap, s.GIDMap = []IDMap{{0, 200000, 65536}}, []IDMap{{0, 200000, 65536}} },
		"few groups": func(s *Spec) {
			s.UIDMap, s.GIDMap = []IDMap{{0, 200000, 65536}}, []IDMap{{0, 200000, 5}, {6, 200006, 60000}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			sc := newScreen(t)
			s := sc.sit(im.spec("terminal"))
			change(&s)
			if s.UIDMap != nil && rootless(t) {
				t.Skip("id maps take root")
			}
			shown := sc.whole(s)
			got := decode[map[string]string](t, shown[max(strings.Index(shown, "{"), 0):])
			gid := "5"
			if rootless(t) || name == "few groups" {
				gid = "0"
			}
			owner := "0:" + gid
			if name == "app" {
				owner = "1000:" + strings.Replace(gid, "0", "1001", 1) // the one group that there is
			}
			for k, want := range map[string]string{
				"0": "/dev/pts/0", "1": "/dev/pts/0", "2": "/dev/pts/0", "more": "0",
				"foreground": "true ok", "session": "true ok", "TERM": "xterm", "size": "30x100", "owner": owner + " 620",
				"open /dev/tty": "ok", "open /dev/pts/0": "ok", "open /dev/stdout": "ok", "same /dev/stdout": "true",
				"same /dev/pts/0": "true", "open /dev/console": "ok", "same /dev/console": "true",
			} {
				if got[k] != want {
					t.Errorf("%s: %s, want %s", k, got[k], want)
				}
			}
			for fd := range 3 {
				if e := got[fmt.Sprint("sti ", fd)]; s.Seccomp == nil && !s.Unconfined && e != "EPERM" {
					t.Errorf("TIOCSTI on %d: %s", fd, e)
				}
			}
		})
	}
}

func TestTerminalPrograms(t *testing.T) {
	im := newImage(t)
	im.programs("sh", "tty", "stty")
	sc := newScreen(t)
	s := sc.sit(im.spec())
	s.Args = []string{"sh", "-c", "tty; stty size; stty -a | grep -o ' echo '; exec tty </dev/tty"}
	s.Env = []string{"TERM=vt100", "PATH=/bin"}
	im.programs("grep")
	if got, want := sc.whole(s), "/dev/pts/0\r\n30 100\r\n echo \r\n/dev/tty\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestTerminalShell: an interactive shell has job control.
func TestTerminalShell(t *testing.T) {
	im := newImage(t)
	im.programs("sh")
	sc := newScreen(t)
	before := sc.settings()
	s := sc.sit(im.spec())
	s.Args, s.Env = []string{"sh", "-i"}, []string{"PS1=ready> "}
	run := sc.start(context.Background(), s)
	sc.await("ready> ")
	if raw := sc.settings(); raw.Lflag&(unix.ECHO|unix.ISIG|unix.ICANON) != 0 {
		t.Error("the caller's terminal is not raw")
	}
	sc.typeIn("probe job\r")
	sc.await("begun\r\n")
	sc.typeIn("\x1a") // ^Z
	sc.await("Stopped")
	sc.typeIn("bg; jobs -l\r")
	sc.await("Running")
	sc.await("continued 1\r\n")
	sc.typeIn("fg\r")
	sc.await("continued 2\r\n")
	sc.typeIn("\x03") // ^C
	sc.typeIn("echo status $?\r")
	sc.await("status 130")
	sc.typeIn("exit 7\r")
	r := sc.end(run)
	if r.err != nil || r.st.Code != 7 {
		t.Errorf("%+v, %v", r.st, r.err)
	}
	if strings.Contains(sc.text(), "access tty") || strings.Contains(sc.text(), "job control") {
		t.Errorf("%q", sc.text())
	}
	if sc.settings() != before {
		t.Error("the caller's terminal is not as it was")
	}
}

// TestTerminalInterrupt: ^C is for all in the foreground.
func TestTerminalInterrupt(t *testing.T) {
	im := newImage(t)
	im.programs("sh", "sleep")
	sc := newScreen(t)
	s := sc.sit(im.spec())
	s.Args = []string{"sh", "-c", `trap 'echo caught; exit 5' INT; sh -c 'echo ready; exec sleep 1000'; echo not reached`}
	run := sc.start(context.Background(), s)
	sc.await("ready")
	sc.typeIn("\x03")
	if r := sc.end(run); r.err != nil || r.st.Code != 5 || !strings.Contains(r.out, "caught") {
		t.Errorf("%+v, %v, %q", r.st, r.err, sc.text())
	}
}

func TestTerminalSize(t *testing.T) {
	im := newImage(t)
	sc := newScreen(t)
	ch := make(chan os.Signal, 1)
	s := sc.sit(im.spec("sizes"))
	s.Signals = ch
	run := sc.start(context.Background(), s)
	sc.await("size 30x100\r\n")
	sc.resize(50, 120)
	ch <- syscall.SIGWINCH
	sc.await("size 50x120\r\n")
	sc.typeIn("\r")
	if r := sc.end(run); r.err != nil || r.st.Code != 0 {
		t.Errorf("%+v, %v", r.st, r.err)
	}
	// Without a terminal of the caller's, or one that is not to be asked.
	s = im.spec("terminal")
	s.Terminal = true
	if got := probe[map[string]string](t, s); got["size"] != "24x80" {
		t.Errorf("size %s", got["size"])
	}
	s.Size = Size{Rows: 11, Cols: 22}
	if got := probe[map[string]string](t, s); got["size"] != "11x22" {
		t.Errorf("size %s", got["size"])
	}
}

// TestTerminalOutput: all of it arrives, however much and however late.
func TestTerminalOutput(t *testing.T) {
	im := newImage(t)
	sc := newScreen(t)
	const size = 10_000_000
	got := sc.whole(sc.sit(im.spec("flood", fmt.Sprint(size))))
	if want := strings.Repeat(strings.Repeat("x", 99)+"\r\n", size/100) + "end\r\n"; got != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	s := im.spec("flood", "1000000")
	s.Terminal = true
	if r := good(t, s); len(r.out) != 1010000+5 {
		t.Errorf("%d bytes through a pipe", len(r.out))
	}
}

// TestTerminalIsLeft: output after the command let go of its terminal, and the
// end in spite of others that have it.
func TestTerminalIsLeft(t *testing.T) {
	im := newImage(t)
	s := im.spec("leave")
	s.Terminal = true
	if r := good(t, s); r.out != "back\r\n" {
		t.Errorf("%q", r.out)
	}
	im.programs("sh", "sleep")
	s.Args = []string{"sh", "-c", "trap '' HUP; sleep 1000 & echo done"}
	if r := good(t, s); r.out != "done\r\n" {
		t.Errorf("%q", r.out)
	}
}

// TestTerminalLingers: who else has the terminal does not hold up the end of
// what was one command's, and a slow reader misses nothing.
func TestTerminalLingers(t *testing.T) {
	ptmx, slave := openPTY(t)
	fd, err := duplicate(ptmx)
	check(t, err)
	check(t, unix.SetNonblock(fd, true))
	held, err := duplicate(slave)
	check(t, err)
	defer unix.Close(held)
	term := &terminal{master: os.NewFile(uintptr(fd), "terminal"), slave: slave}
	want := strings.Repeat("x", 3000)
	_, err = slave.WriteString(want)
	check(t, err)
	slow := &slowWriter{}
	done := make(chan error)
	go func() { done <- show(slow, term.master) }()
	term.endOutput()
	select {
	case err := <-done:
		if err != nil || slow.String() != want {
			t.Errorf("%d bytes, %v", slow.Len(), err)
		}
	case <-time.After(patience):
		t.Error("does not end")
	}
	term.hangUp()
}

// slowWriter takes longer than lingerTime, and little at a time.
type slowWriter struct{ bytes.Buffer }

func (w *slowWriter) ReadFrom(r io.Reader) (n int64, err error) {
	b := make([]byte, 1000)
	for {
		k, err := r.Read(b)
		n += int64(k)
		w.Write(b[:k])
		time.Sleep(2 * lingerTime)
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
	}
}

// TestTerminalHangsUp: when the caller's line breaks the command gets to know.
func TestTerminalHangsUp(t *testing.T) {
	im := newImage(t)
	sc := newScreen(t)
	run := sc.start(context.Background(), sc.sit(im.spec("signals")))
	sc.await("ready")
	check(t, sc.ptmx.Close())
	if r := sc.end(run); r.st.Code != int(syscall.SIGHUP) {
		t.Errorf("%+v, %v", r.st, r.err)
	}
}

// TestTerminalOfNobody: neither output that nobody takes nor input that nobody
// reads keeps a cancelled run from ending.
func TestTerminalOfNobody(t *testing.T) {
	im := newImage(t)
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	defer w.Close()
	in, typed, err := os.Pipe()
	check(t, err)
	defer in.Close()
	defer typed.Close()
	go func() { _, _ = typed.WriteString(strings.Repeat("typed ahead\n", 50_000)) }()
	ctx, cancel := context.WithTimeoutCause(context.Background(), time.Second, errors.New("enough"))
	defer cancel()
	s := im.spec("flood", "10000000")
	s.Terminal, s.Stdin, s.Stdout = true, in, w
	if _, err := Run(ctx, s); !errors.Is(err, context.Cause(ctx)) {
		t.Error(err)
	}
	// Input alone: the command ends by itself.
	s = im.spec("sleep", "300")
	s.Terminal, s.Stdin = true, in
	good(t, s)
}

// TestTerminalCaller goes the whole way: a caller that is signalled, whose
// output nobody takes any more, that fails.
func TestTerminalCaller(t *testing.T) {
	im := newImage(t)
	for name, c := range map[string]struct {
		args    []string
		act     func(*screen, *exec.Cmd)
		closed  bool
		code    int
		explain string
	}{
		"end":     {args: []string{"exit", "3"}, code: 3},
		"TERM":    {args: []string{"signals"}, code: 15, act: func(_ *screen, c *exec.Cmd) { check(t, c.Process.Signal(syscall.SIGTERM)) }},
		"INT":     {args: []string{"signals"}, code: 2, act: func(_ *screen, c *exec.Cmd) { check(t, c.Process.Signal(syscall.SIGINT)) }},
		"HUP":     {args: []string{"signals"}, code: 1, act: func(_ *screen, c *exec.Cmd) { check(t, c.Process.Signal(syscall.SIGHUP)) }},
		"typed":   {args: []string{"signals"}, code: 2, act: func(s *screen, _ *exec.Cmd) { s.typeIn("\x03") }},
		"killed":  {args: []string{"die", "9"}, code: 137},
		"no such": {args: nil, code: CodeStart},
		"closed":  {args: []string{"flood", "1000000"}, closed: true, code: CodeStart},
	} {
		t.Run(name, func(t *testing.T) {
			sc := newScreen(t)
			before := sc.settings()
			args := append([]string{"/bin/probe"}, c.args...)
			if c.args == nil {
				args[0] = "/no/such"
			}
			cmd := call{Lower: []string{im.dir}, Args: args, Signals: true, Terminal: true}.command(t)
			var errOut bytes.Buffer
			cmd.Stdin, cmd.Stdout, cmd.Stderr = sc.pts, sc.pts, &errOut
			if c.closed {
				r, w, err := os.Pipe()
				check(t, err)
				r.Close()
				defer w.Close()
				cmd.Stdout = w
			}
			startCaller(t, cmd)
			if c.act != nil {
				sc.await("ready")
				if sc.settings() == before {
					t.Error("the terminal is not raw")
				}
				c.act(sc, cmd)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != c.code {
				t.Errorf("code %d, want %d: %v %s\n%q", got, c.code, cmd.ProcessState, errOut.String(), sc.text())
			}
			if sc.settings() != before {
				t.Error("the terminal is not as it was")
			}
		})
	}
}

// TestTerminalLeavesNothing looks for descriptors.
func TestTerminalLeavesNothing(t *testing.T) {
	im := newImage(t)
	sc := newScreen(t)
	count := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		check(t, err)
		return len(all)
	}
	sc.whole(sc.sit(im.spec("hello")))
	before := count()
	for range 3 {
		sc.whole(sc.sit(im.spec("hello")))
		s := sc.sit(im.spec("hello"))
		s.Args = []string{"/no/such"}
		if r := sc.end(sc.start(context.Background(), s)); r.err == nil {
			t.Error("no error")
		}
		s.Lower = []string{filepath.Join(im.dir, "absent")}
		if r := sc.end(sc.start(context.Background(), s)); r.err == nil {
			t.Error("no error")
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	noSandboxLeft(t)
}

// TestInit: signals for the whole group.
func TestInit(t *testing.T) {
	im := newImage(t)
	im.programs("sh", "sleep")
	for group, nap := range map[bool]string{false: "3", true: "1000"} {
		ch := make(chan os.Signal, 1)
		s := im.spec()
		// A shell runs its trap when the child in the foreground has ended.
		s.Args = []string{"sh", "-c", `trap 'echo told; exit 4' TERM; sh -c 'echo ready; sleep ` + nap + `; echo slept >&2'; exit 3`}
		s.Signals, s.Init = ch, group
		onReady(t, &s, func(string) { ch <- syscall.SIGTERM })
		if r := run(t, s); r.err != nil || r.st.Code != 4 || strings.Contains(r.errOut, "slept") == group {
			t.Errorf("group %v: %+v, %v, %q", group, r.st, r.err, r.errOut)
		}
	}
}
