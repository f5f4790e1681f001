//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/early"
)

func stateDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	check(t, os.Mkdir(dir, 0o700))
	return dir
}

// onReady makes s's stdout a pipe and calls f once the process says "ready".
func onReady(t *testing.T, s *Spec, f func(line string)) {
	t.Helper()
	r, w, err := os.Pipe()
	check(t, err)
	s.Stdout = w
	t.Cleanup(func() { r.Close(); w.Close() })
	go func() {
		line, err := bufio.NewReader(r).ReadString('\n')
		if err == nil {
			f(line)
		}
	}()
}

func TestSignals(t *testing.T) {
	im := newImage(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2} {
		ch := make(chan os.Signal, 1)
		s := im.spec("signals")
		s.Signals = ch
		onReady(t, &s, func(string) { ch <- sig })
		if r := run(t, s); r.err != nil || r.st.Code != int(sig) {
			t.Errorf("%v: %+v, %v", sig, r.st, r.err)
		}
	}
	// A signal that the process does not handle ends it.
	ch := make(chan os.Signal, 1)
	s := im.spec("sleep", "20000")
	s.Signals = ch
	onReady(t, &s, func(string) { ch <- syscall.SIGTERM; close(ch) })
	if r := run(t, s); r.err != nil || r.st != (Status{Code: 143, Signal: syscall.SIGTERM}) {
		t.Errorf("%+v, %v", r.st, r.err)
	}
}

// TestCallerIsSignalled goes the whole way: a process that calls Run.
func TestCallerIsSignalled(t *testing.T) {
	im := newImage(t)
	cmd := call{Lower: []string{im.dir}, Args: []string{"/bin/probe", "signals"}, Signals: true}.command(t)
	out, err := cmd.StdoutPipe()
	check(t, err)
	startCaller(t, cmd)
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	check(t, cmd.Process.Signal(syscall.SIGTERM))
	if line, _ := r.ReadString('\n'); line != "terminated\n" {
		t.Errorf("%q", line)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != int(syscall.SIGTERM) {
		t.Error(err)
	}
}

func TestCancel(t *testing.T) {
	im := newImage(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	s := im.spec("stubborn")
	onReady(t, &s, func(string) { cancel(why) })
	r := runCtx(ctx, t, s)
	if !errors.Is(r.err, why) || r.st.Signal != syscall.SIGKILL {
		t.Errorf("%+v, %v", r.st, r.err)
	}
	noSandboxLeft(t)
	if r := runCtx(ctx, t, im.spec("hello")); !errors.Is(r.err, why) {
		t.Errorf("cancelled before: %v", r.err)
	}
}

// sandboxProcesses lists processes below one, other than itself. It asks each
// for its parent: a parent's threads, when they end, hand children on to others
// that may have been asked by then.
func sandboxProcesses(t *testing.T, parent int) (all []string) {
	t.Helper()
	for _, dir := range glob(t, "/proc/[0-9]*") {
		b, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue // it has just ended
		}
		const ppid = 1 // after the name, in which anything may be
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if f[ppid] == strconv.Itoa(parent) {
			all = append(all, filepath.Base(dir))
		}
	}
	return all
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	check(t, err)
	return names
}

func noSandboxLeft(t *testing.T) {
	t.Helper()
	if left := sandboxProcesses(t, os.Getpid()); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

// killCaller kills what has a sandbox, and waits for the end of all that is below
// it.
func killCaller(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	tree := descendants(t, cmd.Process.Pid)
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	waitFor(t, "processes to be gone", func() bool {
		for _, pid := range tree {
			if b, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && !strings.Contains(string(b), ") Z ") {
				return false
			}
		}
		return true
	})
	if len(tree) < 3 {
		t.Errorf("processes: %v", tree)
	}
}

// TestKilledCaller: everything is gone when the caller is killed.
func TestKilledCaller(t *testing.T) {
	im := newImage(t)
	state := stateDir(t)
	cmd := call{Lower: []string{im.dir}, State: state, Args: []string{"/bin/probe", "stubborn"}}.command(t)
	startReady(t, cmd)
	killCaller(t, cmd)
	if left := dirNames(t, state); len(left) != 1 {
		t.Fatalf("left in the state directory: %v", left)
	}
	s := im.spec("hello")
	s.State = state
	good(t, s)
	if left := dirNames(t, state); len(left) != 0 {
		t.Errorf("the next run left in the state directory: %v", left)
	}
}

func descendants(t *testing.T, pid int) []string {
	t.Helper()
	var out []string
	for _, child := range sandboxProcesses(t, pid) {
		var n int
		if _, err := fmt.Sscan(child, &n); err == nil {
			out = append(append(out, child), descendants(t, n)...)
		}
	}
	return out
}

func dirNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	const most = 30 * time.Second // the machine may be busy; it takes a millisecond
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Errorf("waited in vain for %s", what)
}

func TestOrphansAreReaped(t *testing.T) {
	im := newImage(t)
	r := run(t, im.spec("orphan"))
	if r.err != nil || r.st.Code != 3 || r.out != "processes 2\n" {
		t.Errorf("%+v, %v: %s %s", r.st, r.err, r.out, r.errOut)
	}
	noSandboxLeft(t)
}

// TestProcessOneHoldsNothing looks at the reaper from the host.
func TestProcessOneHoldsNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can look into a process that is not dumpable")
	}
	im := newImage(t)
	leak, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // inheritable
	check(t, err)
	defer unix.Close(leak)
	noSandboxLeft(t)
	s := im.spec("sleep", "60000")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	odd := make(chan []string, 1)
	onReady(t, &s, func(string) {
		defer cancel()
		const tries = 500 // process 1 lets go just after the command has started
		var left []string
		for range tries {
			if left = holdings(sandboxProcesses(t, os.Getpid())); len(left) == 0 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		odd <- left
	})
	r := runCtx(ctx, t, s)
	select {
	case left := <-odd:
		if len(left) > 0 {
			t.Errorf("process 1 has %q", left)
		}
	default:
		t.Errorf("%+v, %v", r.st, r.err) // it was not ready
	}
}

// holdings tells what process 1, the only one of pids, has that it should not.
func holdings(pids []string) (odd []string) {
	if len(pids) != 1 {
		return []string{"processes " + strings.Join(pids, " ")}
	}
	proc := "/proc/" + pids[0] + "/"
	fds, err := os.ReadDir(proc + "fd")
	if err != nil || len(fds) < 4 {
		return []string{fmt.Sprint(len(fds), " files, ", err)}
	}
	for _, fd := range fds {
		to, _ := os.Readlink(proc + "fd/" + fd.Name())
		if to == "/dev/null" || strings.HasPrefix(to, "anon_inode:") || fd.Name() == "3" && strings.HasPrefix(to, "socket:") {
			continue
		}
		odd = append(odd, fd.Name()+" "+to)
	}
	if cwd, _ := os.Readlink(proc + "cwd"); cwd != "/" {
		odd = append(odd, "cwd "+cwd)
	}
	env, err := os.ReadFile(proc + "environ")
	if want := strings.Join(early.Env, "\x00") + "\x00"; err != nil || string(env) != want {
		odd = append(odd, "environment "+string(env))
	}
	return odd
}

// TestProcessOneIsWeak: process 1 can signal and nothing else.
func TestProcessOneIsWeak(t *testing.T) {
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); e == unix.ENOTSUP {
		t.Skip("a program built with cgo cannot drop the capabilities of all threads")
	}
	im := newImage(t)
	for _, user := range []string{"", "app"} {
		s := im.spec("oneiskill")
		s.User = user
		if r := good(t, s); r.out != "ok\n" {
			t.Errorf("user %q: %s\n%s", user, r.out, r.explains)
		}
	}
}

// TestNothingLeaks runs many sandboxes and looks at what is left.
// TestProcessOneIsKilled: who kills process 1, be it the program by a limit that
// it gives it, ends the sandbox as the program being killed does.
func TestProcessOneIsKilled(t *testing.T) {
	s := newImage(t).spec("sleep", "60000")
	s.Started = func(p *Process) { _ = unix.Kill(p.Pid(), unix.SIGKILL) }
	if r := run(t, s); r.err != nil || r.st.Code != 137 || r.st.Signal != syscall.SIGKILL {
		t.Errorf("%+v, %v", r.st, r.err)
	}
}

func TestNothingLeaks(t *testing.T) {
	im := newImage(t)
	state := stateDir(t)
	runs := 100
	if testing.Short() || os.Getenv(ordinaryEnv) != "" {
		runs = 20
	}
	s := im.spec("hello")
	good(t, s)
	fds := len(dirNames(t, "/proc/self/fd"))
	goroutines := runtime.NumGoroutine()
	for i := range runs {
		s.State = ""
		if i%2 == 1 {
			s.State = state
		}
		if i%10 == 9 {
			s.Args = []string{"/none"}
			wantStart(t, run(t, s), CodeNoSuch)
			s.Args = []string{"/bin/probe", "hello"}
			continue
		}
		good(t, s)
	}
	noSandboxLeft(t)
	if left := dirNames(t, state); len(left) != 0 {
		t.Errorf("left in the state directory: %v", left)
	}
	if now := len(dirNames(t, "/proc/self/fd")); now > fds {
		t.Errorf("%d open files, before %d", now, fds)
	}
	noMountLeft(t, im.dir, state)
	waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
}

func TestSeveralAtOnce(t *testing.T) {
	im := newImage(t)
	state := stateDir(t)
	errs := make(chan error)
	for i := range 8 {
		go func() {
			s := im.spec("exit", fmt.Sprint(i))
			s.State = state
			st, err := Run(context.Background(), s)
			if err == nil && st.Code != i {
				err = fmt.Errorf("run %d: %+v", i, st)
			}
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if left := dirNames(t, state); len(left) != 0 {
		t.Errorf("left in the state directory: %v", left)
	}
}

// TestInitIsOnlyForProcessOne: an ordinary process called by that name must
// not obey a plan.
func TestInitIsOnlyForProcessOne(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{early.Name, "-test.run=^$"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
