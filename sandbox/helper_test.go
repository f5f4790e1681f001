//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/early"
	_ "github.com/imgpack/imgpack/sandbox/systemd" // it has to be asked where it runs
)

const (
	ordinaryEnv = "IMGPACK_TEST_ORDINARY" // set: these are the tests run again without root
	probeEnv    = "IMGPACK_TEST_PROBE"    // the probe, already built
	callerEnv   = "IMGPACK_TEST_CALLER"   // set: this process calls Run on the spec on its stdin
	habitsEnv   = "IMGPACK_TEST_HABITS"   // set: the caller first takes on bad habits
	thiefEnv    = "IMGPACK_TEST_THIEF"    // set: this process runs in a sandbox and attacks its own program
	ordinaryID  = 65534
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(thiefEnv) != "":
		thief()
	case os.Getenv(callerEnv) != "":
		caller()
	case os.Getenv(placesEnv) == placesLater:
		awaitPlaces()
	}
	code := m.Run()
	if probeDir != "" {
		os.RemoveAll(probeDir)
	}
	os.Exit(code)
}

// call is what a caller process is told in its environment.
type call struct {
	Lower    []string
	State    string
	Upper    string // also keeps it, and runs a second command
	Pause    bool   // and then pauses it
	Args     []string
	Signals  bool
	Terminal bool
	Limits   Limits
	Forbid   bool   // user namespaces, first; needs CAP_SYS_RESOURCE in one
	Seccomp  string // a profile; none is the default
	Nofile   uint64 // soft limit to start with; also ignores signals, like nohup
}

// caller is a process of its own that calls Run, to be killed or signalled.
func caller() {
	var c call
	if err := json.Unmarshal([]byte(os.Getenv(callerEnv)), &c); err != nil {
		panic(err)
	}
	if os.Getenv(habitsEnv) != "" {
		takeHabits(c.Nofile)
	}
	if c.Forbid {
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			panic(err)
		}
	}
	s := Spec{Lower: c.Lower, State: c.State, Args: c.Args, Limits: c.Limits, Terminal: c.Terminal, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if c.Upper != "" {
		s.Upper, s.Keep, s.Started = c.Upper, true, c.steer
	}
	if c.Seccomp != "" {
		s.Seccomp = []byte(c.Seccomp)
	}
	if c.Signals {
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
		s.Signals = ch
	}
	st, err := Run(context.Background(), s)
	if un := new(UnsupportedError); errors.As(err, &un) {
		fmt.Printf("unsupported %q %q\n", un.Feature, un.Setting)
		os.Exit(9)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "caller:", err)
		os.Exit(CodeStart)
	}
	os.Exit(st.Code)
}

// steer does to a sandbox what c says.
func (c call) steer(p *Process) {
	go func() {
		_, err := p.Exec(context.Background(), ExecSpec{Args: c.Args, Started: func() {
			fmt.Println("exec")
			if !c.Pause {
				return
			}
			go func() {
				if err := p.Pause(context.Background()); err != nil {
					fmt.Println("cannot", err)
				}
				fmt.Println("paused")
			}()
		}})
		fmt.Println("exec ended", err)
	}()
}

// takeHabits executes this process again with a limit, signals that are
// ignored and signals that are blocked.
func takeHabits(nofile uint64) {
	runtime.LockOSThread()
	var l syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	if err == nil {
		l.Cur = nofile
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	}
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTSTP, syscall.SIGUSR1)
	blocked := unix.Sigset_t{}
	blocked.Val[0] = 1<<(syscall.SIGUSR2-1) | 1<<(syscall.SIGCHLD-1)
	if err == nil {
		err = unix.PthreadSigmask(unix.SIG_SETMASK, &blocked, nil)
	}
	if err == nil {
		err = syscall.Exec("/proc/self/exe", os.Args, slices.DeleteFunc(os.Environ(), func(e string) bool {
			return strings.HasPrefix(e, habitsEnv)
		}))
	}
	panic(err)
}

// command is a caller process for c.
func (c call) command(t *testing.T) *exec.Cmd {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), callerEnv+"="+string(b))
	if c.Nofile > 0 {
		// A second exec, since this process's runtime restores its own limit.
		cmd.Env = append(cmd.Env, habitsEnv+"=1")
	}
	return cmd
}

// startCaller starts cmd, and does not leave it behind: what has the streams of
// this process keeps whoever reads them waiting.
func startCaller(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// startReady does that with a caller whose program says that it is ready.
func startReady(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	check(t, err)
	cmd.Stderr = os.Stderr
	startCaller(t, cmd)
	if line, err := bufio.NewReader(out).ReadString('\n'); !strings.HasPrefix(line, "ready") {
		t.Fatalf("%q, %v", line, err)
	}
}

// thief is this program, executed inside a sandbox by an image's trick.
func thief() {
	const self = "/proc/self/exe"
	fd, err := unix.Open(self, unix.O_WRONLY, 0)
	if err == nil {
		unix.Close(fd)
	}
	fmt.Println("write", err, "chmod", unix.Chmod(self, 0o4777), "chown", unix.Chown(self, 1, 1), "truncate", unix.Truncate(self, 0))
	os.Exit(0)
}

var probeDir string // holds the probe; removed at the end

// buildProbe builds the static program that images here contain.
var buildProbe = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		return "", err
	}
	probeDir = dir
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	p := filepath.Join(dir, "probe")
	if built := os.Getenv(probeEnv); built != "" {
		b, err := os.ReadFile(built)
		if err != nil {
			return "", err
		}
		return p, os.WriteFile(p, b, 0o755) // of our own, so that it can be linked
	}
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", p, "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build probe: %w\n%s", err, out)
	}
	return p, nil
})

// image is a root filesystem under test.
type image struct {
	t   testing.TB
	dir string
}

// newImage makes a root filesystem with the probe at /bin/probe and not much
// else. It skips the test where the kernel refuses the sandbox.
func newImage(t testing.TB) image {
	t.Helper()
	needSandbox(t)
	return bareImage(t)
}

func bareImage(t testing.TB) image {
	t.Helper()
	probe, err := buildProbe()
	if err != nil {
		t.Fatal(err)
	}
	im := image{t, filepath.Join(t.TempDir(), "rootfs")}
	for _, d := range []string{"bin", "etc", "tmp"} {
		im.mkdir(d)
	}
	if err := os.Chmod(im.path("tmp"), 0o1777); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(probe, im.path("bin/probe")); err != nil {
		t.Fatal(err)
	}
	im.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n", 0o644)
	im.write("etc/group", "root:x:0:\napp:x:1001:\nextra:x:2000:app,other\nmore:x:2001:app,root\n", 0o644)
	return im
}

func (im image) path(p string) string { return filepath.Join(im.dir, p) }

func (im image) mkdir(p string) {
	im.t.Helper()
	if err := os.MkdirAll(im.path(p), 0o755); err != nil {
		im.t.Fatal(err)
	}
}

func (im image) write(p, content string, mode fs.FileMode) {
	im.t.Helper()
	im.mkdir(filepath.Dir(p))
	if err := os.WriteFile(im.path(p), []byte(content), mode); err != nil {
		im.t.Fatal(err)
	}
	if err := os.Chmod(im.path(p), mode); err != nil {
		im.t.Fatal(err)
	}
}

func (im image) symlink(to, p string) {
	im.t.Helper()
	im.mkdir(filepath.Dir(p))
	if err := os.RemoveAll(im.path(p)); err != nil {
		im.t.Fatal(err)
	}
	if err := os.Symlink(to, im.path(p)); err != nil {
		im.t.Fatal(err)
	}
}

// spec runs the probe with args.
func (im image) spec(args ...string) Spec {
	return Spec{Lower: []string{im.dir}, Args: append([]string{"/bin/probe"}, args...)}
}

// result is what one run gave.
type result struct {
	st       Status
	err      error
	out      string
	errOut   string
	explains string
}

// patience is for a busy machine: what takes so long hangs.
const patience = time.Minute

// run runs s with its output captured through pipes.
func run(t *testing.T, s Spec) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return runCtx(ctx, t, s)
}

func runCtx(ctx context.Context, t *testing.T, s Spec) (r result) {
	t.Helper()
	var wg sync.WaitGroup
	var out, errOut bytes.Buffer
	capture := func(to **os.File, b *bytes.Buffer) {
		if *to != nil {
			return
		}
		pr, pw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		*to = pw
		wg.Go(func() {
			defer pr.Close()
			_, _ = b.ReadFrom(pr)
		})
	}
	owned := [2]bool{s.Stdout == nil, s.Stderr == nil}
	capture(&s.Stdout, &out)
	capture(&s.Stderr, &errOut)
	var lines []string
	prev := s.Explain
	s.Explain = func(l string) {
		lines = append(lines, l)
		if prev != nil {
			prev(l)
		}
	}
	r.st, r.err = Run(ctx, s)
	if owned[0] {
		s.Stdout.Close()
	}
	if owned[1] {
		s.Stderr.Close()
	}
	wg.Wait()
	r.out, r.errOut, r.explains = out.String(), errOut.String(), strings.Join(lines, "\n")
	return r
}

// good runs s and demands exit 0.
func good(t *testing.T, s Spec) result {
	t.Helper()
	r := run(t, s)
	if r.err != nil || r.st.Code != 0 {
		t.Fatalf("run %q: %+v, %v\nstdout: %s\nstderr: %s\n%s", s.Args, r.st, r.err, r.out, r.errOut, r.explains)
	}
	return r
}

// probe runs the probe and decodes its JSON.
func probe[T any](t *testing.T, s Spec) T {
	t.Helper()
	return decode[T](t, good(t, s).out)
}

func decode[T any](t *testing.T, out string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("probe said %q: %v", out, err)
	}
	return v
}

func readAll(f *os.File) string {
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// wantStart demands a StartError with code and words in its text.
func wantStart(t *testing.T, r result, code int, words ...string) *StartError {
	t.Helper()
	var se *StartError
	if !errors.As(r.err, &se) {
		t.Fatalf("got %+v, %v; want StartError %d\nstdout: %s\nstderr: %s", r.st, r.err, code, r.out, r.errOut)
	}
	text := se.Error() + " | " + se.Hint
	if se.Code != code {
		t.Errorf("code %d, want %d: %s", se.Code, code, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
	return se
}

var sandboxWorks = sync.OnceValue(func() error {
	dir, err := os.MkdirTemp("", "try")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	_, err = Run(context.Background(), Spec{Lower: []string{dir}, Args: []string{"/none"}})
	var un *UnsupportedError
	if errors.As(err, &un) {
		return err
	}
	return nil
})

// needSandbox skips where this host forbids sandboxes, unless they are
// required.
func needSandbox(t testing.TB) {
	t.Helper()
	if err := sandboxWorks(); err != nil {
		skip(t, err.Error())
	}
}

func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
		t.Fatal("required: " + why)
	}
	t.Skip(why)
}

// rootless says whether Run will use a user namespace here.
func rootless(t *testing.T) bool {
	t.Helper()
	r, err := early.Ordinary()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// testsAgain runs tests of this program in a process of its own, which says
// where it hangs before this one would have to.
func testsAgain(t *testing.T, which string) *exec.Cmd {
	args := []string{"-test.v", "-test.short=" + strconv.FormatBool(testing.Short()), which}
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+(time.Until(end)*9/10).String())
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.WaitDelay = patience // for who is left behind with its streams
	return cmd
}

// TestAsOrdinaryUser runs every other test again as an ordinary user.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 || os.Getenv(ordinaryEnv) != "" {
		t.Skip("already running as an ordinary user")
	}
	probe, err := buildProbe()
	if err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp("", "ordinary")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	if err := os.Chown(tmp, ordinaryID, ordinaryID); err != nil {
		t.Fatal(err)
	}
	cmd := testsAgain(t, "-test.skip=^(TestAsOrdinaryUser|Fuzz)")
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), ordinaryEnv+"=1", probeEnv+"="+probe, "TMPDIR="+tmp, "HOME="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinaryID, Gid: ordinaryID}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%d tests passed, %d skipped", strings.Count(string(out), "--- PASS"), strings.Count(string(out), "--- SKIP"))
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "_test.go") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
