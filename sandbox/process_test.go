//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// running is a sandbox that goes on while a test does things to it.
type running struct {
	t *testing.T
	*Process
	ended chan result
	input *os.File // closing it ends "cat"
}

// keep starts s with Spec.Keep and returns when its command runs.
func keep(t *testing.T, s Spec) *running {
	t.Helper()
	r := &running{t: t, ended: make(chan result, 1)}
	if s.Stdin == nil {
		in, w, err := os.Pipe()
		check(t, err)
		s.Stdin, r.input = in, w
		t.Cleanup(func() { in.Close(); w.Close() })
	}
	up := make(chan *Process, 1)
	s.Keep, s.Started = true, func(p *Process) { up <- p }
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		r.ended <- run(t, s)
	}()
	select {
	case r.Process = <-up:
	case res := <-r.ended:
		t.Fatalf("%+v, %v: %s", res.st, res.err, res.errOut)
	}
	t.Cleanup(func() {
		_ = r.Kill()
		<-gone
	})
	return r
}

// end ends a sandbox whose command reads its input.
func (r *running) end() result {
	r.t.Helper()
	r.input.Close()
	res := <-r.ended
	if res.err != nil || res.st != (Status{}) {
		r.t.Errorf("%+v, %v", res.st, res.err)
	}
	return res
}

// exec runs another command, with its output captured.
func (r *running) exec(e ExecSpec) (res result) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.execCtx(ctx, e)
}

func (r *running) execCtx(ctx context.Context, e ExecSpec) (res result) {
	var out, errOut bytes.Buffer
	var wg sync.WaitGroup
	defer func() {
		wg.Wait()
		res.out, res.errOut = out.String(), errOut.String()
	}()
	for _, c := range []struct {
		to *(*os.File)
		b  *bytes.Buffer
	}{{&e.Stdout, &out}, {&e.Stderr, &errOut}} {
		if *c.to != nil {
			continue
		}
		pr, pw, err := os.Pipe()
		if err != nil {
			res.err = err
			return res
		}
		*c.to = pw
		defer pw.Close()
		wg.Go(func() {
			defer pr.Close()
			_, _ = c.b.ReadFrom(pr)
		})
	}
	res.st, res.err = r.Process.Exec(ctx, e)
	return res
}

// good runs the probe and returns its output.
func (r *running) good(args ...string) string {
	r.t.Helper()
	return r.goodAs(ExecSpec{Args: append([]string{"/bin/probe"}, args...)})
}

func (r *running) goodAs(e ExecSpec) string {
	r.t.Helper()
	file := filepath.Join(r.t.TempDir(), "out")
	f, err := os.Create(file)
	check(r.t, err)
	defer f.Close()
	e.Stdout = f // relayed, and so complete when Exec returns
	res := r.exec(e)
	if res.err != nil || res.st != (Status{}) {
		r.t.Fatalf("%q: %+v, %v: %s", e.Args, res.st, res.err, res.errOut)
	}
	b, err := os.ReadFile(file)
	check(r.t, err)
	return string(b)
}

func TestExec(t *testing.T) {
	im := newImage(t)
	im.mkdir("work")
	s := im.spec("cat")
	s.Env, s.Cwd = []string{"PATH=/bin", "A=first"}, "/tmp"
	r := keep(t, s)
	if out := r.good("hello", "you"); out != "hello you\n" {
		t.Errorf("%q", out)
	}
	for code := range 3 {
		if res := r.exec(ExecSpec{Args: []string{"probe", "exit", fmt.Sprint(code)}}); res.err != nil || res.st != (Status{Code: code}) {
			t.Errorf("exit %d: %+v, %v", code, res.st, res.err)
		}
	}
	if res := r.exec(ExecSpec{Args: []string{"probe", "die", "15"}}); res.err != nil || res.st != (Status{Code: 143, Signal: 15}) {
		t.Errorf("killed: %+v, %v", res.st, res.err)
	}
	if env := decode[[]string](t, r.good("env")); strings.Join(env, " ") != "PATH=/bin A=first HOME=/root" {
		t.Errorf("its environment: %q", env)
	}
	env := decode[[]string](t, r.goodAs(ExecSpec{Args: []string{"/bin/probe", "env"}, Env: []string{"B=2", "odd", "B=3"}, User: "app"}))
	if strings.Join(env, " ") != "B=3 HOME=/home/app" {
		t.Errorf("environment of its own: %q", env)
	}
	if where := decode[[]string](t, r.good("where")); where[0] != "/tmp" || where[1] != "/tmp" {
		t.Errorf("its directory: %q", where)
	}
	if where := decode[[]string](t, r.goodAs(ExecSpec{Args: []string{"probe", "where"}, Cwd: "/work"})); where[0] != "/work" {
		t.Errorf("directory of its own: %q", where)
	}
	in, w, err := os.Pipe()
	check(t, err)
	defer in.Close()
	_, err = w.WriteString("typed")
	check(t, err)
	check(t, w.Close())
	if out := r.goodAs(ExecSpec{Args: []string{"probe", "cat"}, Stdin: in}); out != "typed" {
		t.Errorf("input: %q", out)
	}
	r.good("write", "/tmp/seen", "x")
	if out := r.good("read", "/tmp/seen"); out != "x" {
		t.Errorf("not the same root filesystem: %q", out)
	}
	r.end()
	noSandboxLeft(t)
}

func TestExecRefused(t *testing.T) {
	im := newImage(t)
	im.write("bin/data", "no program", 0o644)
	im.write("etc/passwd", "root:x:0:0::/:\n", 0o644)
	r := keep(t, im.spec("cat"))
	for _, c := range []struct {
		e    ExecSpec
		code int
		word string
	}{
		{ExecSpec{Args: []string{"none"}}, CodeNoSuch, "not found in PATH"},
		{ExecSpec{Args: []string{"/bin/none"}}, CodeNoSuch, "no such file"},
		{ExecSpec{Args: []string{"/bin/data"}}, CodeNotExec, "permission denied"},
		{ExecSpec{Args: []string{"/bin"}}, CodeNotExec, "is a directory"},
		{ExecSpec{Args: []string{"/proc/1/exe"}}, CodeNotExec, ""},
		{ExecSpec{Args: []string{"/bin/probe"}, Cwd: "/none"}, CodeStart, "no such file"},
		{ExecSpec{Args: []string{"/bin/probe"}, Cwd: "none"}, CodeStart, "absolute"},
		{ExecSpec{Args: []string{"/bin/probe"}, User: "none"}, CodeStart, "no user"},
		{ExecSpec{Args: []string{"/bin/probe"}, User: "4294967296"}, CodeStart, "user"},
		{ExecSpec{}, CodeStart, "no command"},
	} {
		wantStart(t, r.exec(c.e), c.code, c.word)
	}
	if out := r.good("hello"); out != "hello\n" { // it is none the worse
		t.Errorf("%q", out)
	}
	r.end()
	for what, err := range map[string]error{
		"exec":   r.exec(ExecSpec{Args: []string{"probe"}}).err,
		"signal": r.Signal(syscall.SIGTERM),
		"kill":   r.Kill(),
		"pause":  r.Pause(context.Background()),
		"resume": r.Resume(context.Background()),
	} {
		if !errors.Is(err, ErrEnded) {
			t.Errorf("%s after the end: %v", what, err)
		}
	}
}

// TestNotKept: without Keep there is no further command.
func TestNotKept(t *testing.T) {
	im := newImage(t)
	s := im.spec("sleep", "20000")
	s.Started = func(p *Process) {
		go func() {
			for what, err := range map[string]error{
				"exec":  (&running{t: t, Process: p}).exec(ExecSpec{Args: []string{"/bin/probe"}}).err,
				"pause": p.Pause(context.Background()),
			} {
				if un := new(UnsupportedError); !errors.As(err, &un) {
					t.Errorf("%s: %v", what, err)
				}
			}
			check(t, p.Signal(syscall.SIGTERM))
		}()
	}
	if r := run(t, s); r.err != nil || r.st != (Status{Code: 143, Signal: 15}) {
		t.Errorf("%+v, %v", r.st, r.err)
	}
}

// TestExecIsAsWeak: another command has just what the first would have.
func TestExecIsAsWeak(t *testing.T) {
	im := newImage(t)
	for name, change := range map[string]func(*Spec){
		"default":    func(*Spec) {},
		"none":       func(s *Spec) { s.Capabilities = []string{} },
		"other":      func(s *Spec) { s.Capabilities = []string{"CAP_MKNOD", "CAP_NET_RAW"} },
		"unconfined": func(s *Spec) { s.Unconfined = true },
		"own":        func(s *Spec) { s.Seccomp = []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`) },
		"rlimits":    func(s *Spec) { s.Rlimits = []Rlimit{{"nofile", 77, 78}} },
	} {
		for _, user := range []string{"", "app", "5:6"} {
			s := im.spec("identity")
			change(&s)
			s.User = user
			want := probe[map[string]string](t, s)
			calls := im.spec("calls")
			change(&calls)
			calls.User = user
			wantCalls := probe[map[string]string](t, calls)
			s.Args[1] = "cat"
			if user == "5:6" {
				s.User = "" // another than the first command's
			}
			r := keep(t, s)
			got := decode[map[string]string](t, r.goodAs(ExecSpec{Args: []string{"/bin/probe", "identity"}, User: user}))
			if !maps.Equal(got, want) {
				t.Errorf("%s, user %q:\n got %v\nwant %v", name, user, got, want)
			}
			got = decode[map[string]string](t, r.goodAs(ExecSpec{Args: []string{"/bin/probe", "calls"}, User: user}))
			for call, want := range wantCalls {
				// Without the filter, what the kernel says of nonsense varies.
				if got[call] != want && !s.Unconfined && s.Seccomp == nil {
					t.Errorf("%s, user %q: %s: %s, not %s", name, user, call, got[call], want)
				}
			}
			r.end()
		}
	}
}

// TestExecIsIsolated: it sees the namespaces of the first command.
func TestExecIsIsolated(t *testing.T) {
	im := newImage(t)
	r := keep(t, im.spec("cat"))
	ns := func(pid int, name string) string {
		l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
		if err != nil {
			t.Skip(err)
		}
		return l
	}
	in, w, err := os.Pipe()
	check(t, err)
	defer in.Close()
	defer w.Close()
	started := make(chan struct{})
	done := make(chan result, 1)
	go func() {
		done <- r.exec(ExecSpec{Args: []string{"/bin/probe", "cat"}, Stdin: in, Started: func() { close(started) }})
	}()
	select {
	case <-started:
	case res := <-done:
		t.Fatalf("%+v, %v", res.st, res.err)
	}
	var pids []int
	for _, child := range descendants(t, r.Pid()) {
		var pid int
		_, err := fmt.Sscan(child, &pid)
		check(t, err)
		pids = append(pids, pid)
	}
	if len(pids) != 2 {
		t.Fatalf("processes %v", pids)
	}
	for _, name := range []string{"pid", "mnt", "net", "ipc", "uts"} {
		if a, b := ns(pids[0], name), ns(pids[1], name); a != b {
			t.Errorf("%s namespaces %s and %s", name, a, b)
		}
	}
	cgroups := func(pid int) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		check(t, err)
		return string(b)
	}
	if a, b := cgroups(pids[0]), cgroups(pids[1]); a != b {
		t.Errorf("cgroups\n%s%s", a, b)
	}
	w.Close()
	if res := <-done; res.err != nil || res.st != (Status{}) {
		t.Errorf("%+v, %v", res.st, res.err)
	}
	r.end()
}

func TestExecSignals(t *testing.T) {
	im := newImage(t)
	r := keep(t, im.spec("cat"))
	ch := make(chan os.Signal, 1)
	pr, pw, err := os.Pipe()
	check(t, err)
	defer pr.Close()
	defer pw.Close()
	go func() {
		if line, err := bufio.NewReader(pr).ReadString('\n'); err == nil && line == "ready\n" {
			ch <- syscall.SIGUSR1
		}
	}()
	if res := r.exec(ExecSpec{Args: []string{"/bin/probe", "signals"}, Signals: ch, Stdout: pw}); res.err != nil || res.st.Code != int(syscall.SIGUSR1) {
		t.Errorf("%+v, %v", res.st, res.err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	res := r.execCtx(ctx, ExecSpec{Args: []string{"/bin/probe", "stubborn"}, Started: func() { cancel(why) }})
	if !errors.Is(res.err, why) || res.st.Signal != syscall.SIGKILL {
		t.Errorf("%+v, %v", res.st, res.err)
	}
	waitFor(t, "the group to be gone", func() bool { return len(descendants(t, r.Pid())) == 1 })
	r.end()
}

// TestSignalsToProcessOne: none ends the sandbox, and in one that is kept the
// command gets them.
func TestSignalsToProcessOne(t *testing.T) {
	im := newImage(t)
	args := []string{"killone"}
	for _, sig := range forInit {
		args = append(args, strconv.Itoa(int(sig)))
	}
	if r := run(t, im.spec(args...)); r.err != nil || r.st.Code != 0 {
		t.Errorf("%+v, %v, %s", r.st, r.err, r.errOut)
	}
	s := im.spec("signals")
	pr, pw, err := os.Pipe()
	check(t, err)
	defer pr.Close()
	defer pw.Close()
	s.Stdout = pw
	r := keep(t, s)
	if line, err := bufio.NewReader(pr).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	r.exec(ExecSpec{Args: []string{"/bin/probe", "killone", strconv.Itoa(int(syscall.SIGUSR2))}})
	if res := <-r.ended; res.err != nil || res.st.Code != int(syscall.SIGUSR2) {
		t.Errorf("%+v, %v", res.st, res.err)
	}
}

// TestExecEndsWithSandbox: the first command's end is everybody's.
func TestExecEndsWithSandbox(t *testing.T) {
	im := newImage(t)
	r := keep(t, im.spec("cat"))
	res := r.exec(ExecSpec{Args: []string{"/bin/probe", "stubborn"}, Started: func() { r.input.Close() }})
	if !errors.Is(res.err, ErrEnded) || res.st.Signal != syscall.SIGKILL {
		t.Errorf("%+v, %v", res.st, res.err)
	}
	r.end()
	noSandboxLeft(t)
}

// TestExecLeavesBehind: what has the streams and stays holds nobody up.
func TestExecLeavesBehind(t *testing.T) {
	im := newImage(t)
	r := keep(t, im.spec("cat"))
	errOut, err := os.Create(filepath.Join(t.TempDir(), "err"))
	check(t, err)
	defer errOut.Close()
	if out := r.goodAs(ExecSpec{Args: []string{"/bin/probe", "behind"}, Stderr: errOut}); !strings.HasPrefix(out, "left\n") && out != "ready\nleft\n" {
		t.Errorf("%q", out)
	}
	r.end()
}

// TestExecTerminal: another command can have a terminal, of its user.
func TestExecTerminal(t *testing.T) {
	im := newImage(t)
	r := keep(t, im.spec("cat"))
	for _, user := range []string{"", "app"} {
		out := r.goodAs(ExecSpec{Args: []string{"/bin/probe", "terminal"}, User: user, Terminal: true, Size: Size{Rows: 33, Cols: 44}})
		got := decode[map[string]string](t, out)
		for what, want := range map[string]string{
			"size": "33x44", "session": "true ok", "foreground": "true ok", "TERM": "xterm", "open /dev/tty": "ok", "more": "0",
		} {
			if got[what] != want {
				t.Errorf("user %q: %s is %q, not %q", user, what, got[what], want)
			}
		}
	}
	r.end()
	noSandboxLeft(t)
}

func TestManyExecs(t *testing.T) {
	im := newImage(t)
	s := im.spec("cat")
	r := keep(t, s)
	errs := make(chan error)
	const many = 50
	for i := range many {
		go func() {
			st, err := r.Exec(context.Background(), ExecSpec{Args: []string{"/bin/probe", "exit", fmt.Sprint(i)}})
			if err == nil && st.Code != i {
				err = fmt.Errorf("exec %d: %+v", i, st)
			}
			errs <- err
		}()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if os.Getuid() == 0 {
		waitFor(t, "process 1 to let go", func() bool {
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.Pid()))
			return err == nil && len(fds) < 12
		})
	}
	r.end()
}

// TestExecWithLimits: the limit of processes holds for all commands, and does
// not harm process 1.
func TestExecWithLimits(t *testing.T) {
	im := newImage(t)
	limits := Limits{Pids: 10}
	needLimits(t, limits)
	s := im.spec("cat")
	s.Limits = limits
	r := keep(t, s)
	for range 20 {
		r.good("hello")
	}
	if out := r.good("fork", "100"); !strings.Contains(out, "EAGAIN") {
		t.Errorf("%s", out)
	}
	r.end()
}
