package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox"
)

func TestExecInContainer(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{}, "sleep", "600000")
	c.config.Spec.Env = []string{"A=b"}
	if _, err := c.Exec(t.Context(), sandbox.ExecSpec{Args: []string{"/bin/probe", "hello"}}); !isStateError(err) {
		t.Errorf("not running: %v", err)
	}
	start(t, c)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	st, err := c.Exec(t.Context(), sandbox.ExecSpec{Args: []string{"/bin/probe", "hello", "you"}, Stdout: w})
	w.Close()
	var seen bytes.Buffer
	seen.ReadFrom(r)
	if err != nil || st.Code != 0 || seen.String() != "hello you\n" {
		t.Errorf("%+v, %v: %q", st, err, seen.String())
	}
	if st, err := c.Exec(t.Context(), sandbox.ExecSpec{Args: []string{"/bin/probe", "exit", "7"}}); err != nil || st.Code != 7 {
		t.Errorf("%+v, %v", st, err)
	}
	_, err = c.Exec(t.Context(), sandbox.ExecSpec{Args: []string{"/bin/none"}})
	if s, ok := errors.AsType[*sandbox.StartError](err); !ok || s.Code != sandbox.CodeNoSuch {
		t.Errorf("missing command: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	go func() { time.Sleep(200 * time.Millisecond); cancel(why) }()
	if _, err := c.Exec(ctx, sandbox.ExecSpec{Args: []string{"/bin/probe", "sleep", "600000"}}); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
	if st := state(t, c); st.Status != Running {
		t.Errorf("%+v", st)
	}
}

// supported skips the test where this host cannot pause.
func supported(t *testing.T, err error) {
	t.Helper()
	if un, ok := errors.AsType[*sandbox.UnsupportedError](err); ok {
		t.Skip(un)
	} else if err != nil {
		t.Fatal(err)
	}
}

func TestPause(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{}, "sleep", "600000")
	start(t, c)
	supported(t, c.Pause(t.Context()))
	if st := state(t, c); st.Status != Paused {
		t.Errorf("%+v", st)
	}
	if err := c.Pause(t.Context()); !isStateError(err) {
		t.Errorf("paused twice: %v", err)
	}
	if _, err := c.Exec(t.Context(), sandbox.ExecSpec{Args: []string{"/bin/probe", "hello"}}); !isStateError(err) {
		t.Errorf("exec: %v", err)
	}
	if err := c.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := state(t, c); st.Status != Running {
		t.Errorf("%+v", st)
	}
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(t.Context(), StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if st := state(t, c); st.Status != Exited || st.ExitCode != 143 {
		t.Errorf("stopped while paused: %+v", st)
	}
	// The monitor of a paused one may be killed too.
	start(t, c)
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	st := state(t, c)
	kill9(t, st.Monitor)
	until(t, "the monitor's end", func() bool { alive, err := c.monitored(); return err == nil && !alive })
	if st := state(t, c); st.Status != Exited {
		t.Errorf("%+v", st)
	}
	until(t, "the end of what was paused", func() bool { return gone(st.Pid) })
}

// TestPauseVersion1 is TestPause where there is no cgroup of version 2.
func TestPauseVersion1(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("takes root")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m) - cgroup \S+ \S*\bfreezer\b`).Match(mounts) {
		t.Skip("no freezer of version 1 is mounted here")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `umount -l -a -t cgroup2; exec "$0" -test.v -test.run='^TestPause$'`, self)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestPause")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// What is paused for somebody goes on when he lets it, and when he is killed.
func TestPauseFor(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{}, "sleep", "600000")
	start(t, c)
	resume, err := c.PauseFor(t.Context())
	supported(t, err)
	if st := state(t, c); st.Status != Paused {
		t.Errorf("%+v", st)
	}
	if _, err := c.PauseFor(t.Context()); !isStateError(err) {
		t.Errorf("twice: %v", err)
	}
	if err := resume(); err != nil {
		t.Error(err)
	}
	if st := state(t, c); st.Status != Running {
		t.Errorf("%+v", st)
	}
	conn, err := c.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.exchange(t.Context(), conn, json.NewDecoder(conn), request{Op: opPause, Held: true}, &reply{}); err != nil {
		t.Fatal(err)
	}
	conn.Close() // as the kernel does
	until(t, "it to go on", func() bool { return state(t, c).Status == Running })
	if resume, err = c.PauseFor(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(t.Context(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := resume(); err != nil {
		t.Errorf("after its end: %v", err)
	}
}
