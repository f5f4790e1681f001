package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox"
)

func TestLife(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{Name: "web"}, "sleep", "600000")
	if st := state(t, c); st.Status != Created || st.Live() {
		t.Errorf("%+v", st)
	}
	start(t, c)
	st := state(t, c)
	if st.Status != Running || st.Pid == 0 || gone(st.Pid) || gone(st.Monitor) || st.Started.IsZero() {
		t.Errorf("%+v", st)
	}
	until(t, "output", func() bool { out, _ := logs(t, c, LogOptions{}); return out == "ready\n" })
	if err := c.Start(t.Context(), nil); !isStateError(err) {
		t.Errorf("second start: %v", err)
	}
	if err := c.Remove(t.Context(), false); !isStateError(err) {
		t.Errorf("remove: %v", err)
	}
	if err := c.Stop(t.Context(), StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if now := state(t, c); now.Status != Exited || now.ExitCode != 143 || now.Pid != 0 || now.Monitor != 0 || now.Finished.Before(now.Started) || !gone(st.Pid) {
		t.Errorf("%+v", now)
	}
	if err := c.Kill(t.Context(), unix.SIGTERM); !isStateError(err) {
		t.Errorf("kill: %v", err)
	}
	if err := c.Stop(t.Context(), StopOptions{}); err != nil {
		t.Errorf("stop what does not run: %v", err)
	}
	start(t, c)
	until(t, "output of the second start", func() bool { out, _ := logs(t, c, LogOptions{}); return out == "ready\nready\n" })
	if err := c.Kill(t.Context(), unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if st, err := c.Wait(t.Context()); err != nil || st.ExitCode != 137 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := c.Remove(t.Context(), false); err != nil {
		t.Error(err)
	}
	if _, err := c.State(); !errors.As(err, new(*NotFoundError)) {
		t.Errorf("removed: %v", err)
	}
}

// What is written stays; what goes wrong at the start is told and kept.
func TestRestartKeepsFiles(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{}, "write", "/work/kept", "text")
	start(t, c)
	if st, err := c.Wait(t.Context()); err != nil || st.ExitCode != 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	if raw, err := os.ReadFile(filepath.Join(c.Upper(), "work", "kept")); err != nil || string(raw) != "text" {
		t.Errorf("%q, %v", raw, err)
	}
	start(t, c)
	if st, err := c.Wait(t.Context()); err != nil || st.ExitCode != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	bad := b.create(Config{})
	bad.config.Spec.Args = nil
	missing := b.create(Config{}, "hello")
	if err := os.Remove(filepath.Join(b.low, "bin", "probe")); err != nil {
		t.Fatal(err)
	}
	err := missing.Start(t.Context(), nil)
	start, ok := errors.AsType[*sandbox.StartError](err)
	if !ok || start.Code != sandbox.CodeNoSuch {
		t.Errorf("missing command: %v", err)
	}
	if st := state(t, missing); st.Status != Created || st.ExitCode != sandbox.CodeNoSuch || st.Error == "" {
		t.Errorf("%+v", st)
	}
}

// A monitor may be killed at any instant: the container does not run then, and
// can be started again.
func TestKilledMonitor(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{}, "sleep", "600000")
	for i := range 12 {
		began := make(chan error, 1)
		go func() { began <- c.Start(context.Background(), nil) }()
		monitor := 0
		until(t, "a monitor", func() bool {
			r, err := c.load()
			if err == nil && r.live() {
				monitor = r.Monitor
			}
			return monitor != 0
		})
		time.Sleep(time.Duration(i) * 2 * time.Millisecond)
		if i%2 == 0 {
			kill9(t, -monitor) // it leads its process group
		} else {
			kill9(t, monitor)
		}
		until(t, "the monitor's end", func() bool { alive, err := c.monitored(); return err == nil && !alive })
		st := state(t, c)
		if st.Status != Exited || st.ExitCode != codeLost || !strings.Contains(st.Error, "the monitor was killed") || st.Finished.IsZero() {
			t.Errorf("after %d: %+v", i, st)
		}
		if st.Pid != 0 {
			t.Errorf("after %d: process %d", i, st.Pid)
		}
		if err := c.Kill(t.Context(), unix.SIGTERM); !isStateError(err) {
			t.Errorf("after %d: kill: %v", i, err)
		}
		<-began
	}
	start(t, c)
	st := state(t, c)
	kill9(t, st.Monitor)
	until(t, "the end of process 1", func() bool { return gone(st.Pid) })
	if st, err := c.Wait(t.Context()); err != nil || st.ExitCode != codeLost {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestRestartedMachine(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{}, "sleep", "600000")
	start(t, c)
	kill9(t, state(t, c).Monitor)
	until(t, "the monitor's end", func() bool { alive, err := c.monitored(); return err == nil && !alive })
	after := &Dir{path: b.dir.path, boot: "another"}
	again, err := after.Find(c.config.ID[:20])
	if err != nil {
		t.Fatal(err)
	}
	if st := state(t, again); st.Status != Exited || st.ExitCode != codeLost || st.Error != "the machine was restarted" {
		t.Errorf("%+v", st)
	}
}

func TestNamesAreUnique(t *testing.T) {
	b := newBox(t)
	var made, refused atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			_, err := b.dir.Create(t.Context(), Config{Name: "one", Spec: sandbox.Spec{Lower: []string{b.low}}})
			if _, taken := errors.AsType[*NameTakenError](err); taken {
				refused.Add(1)
			} else if err == nil {
				made.Add(1)
			} else {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 || refused.Load() != 19 {
		t.Errorf("%d made, %d refused", made.Load(), refused.Load())
	}
	for name, good := range map[string]bool{"a": true, "a.b_c-D9": true, "-a": false, ".a": false, "a/b": false, "ä": false, strings.Repeat("a", 128): true, strings.Repeat("a", 129): false} {
		_, err := b.dir.Create(t.Context(), Config{Name: name})
		if bad := errors.As(err, new(*NameError)); bad == good {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := b.dir.Find("on"); !errors.As(err, new(*NotFoundError)) {
		t.Errorf("a name is found by its beginning: %v", err)
	}
	if _, err := b.dir.Create(t.Context(), Config{Name: "x", Spec: sandbox.Spec{Lower: []string{"/nowhere"}}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without layers: %v", err)
	}
}

func TestStartsAtOnce(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{}, "sleep", "600000")
	var started, refused atomic.Int32
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			switch err := c.Start(t.Context(), nil); {
			case err == nil:
				started.Add(1)
			case isStateError(err):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if started.Load() != 1 || refused.Load() != 5 {
		t.Errorf("%d started, %d refused", started.Load(), refused.Load())
	}
}

// Twenty containers leave nothing.
func TestManyLeaveNothing(t *testing.T) {
	b := newBox(t)
	var all sync.WaitGroup
	slots := make(chan struct{}, 5)
	pids := make([]int, 20)
	for i := range pids {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c := b.create(Config{Remove: i%2 == 0}, "sleep", "600000")
			if err := c.Start(t.Context(), nil); err != nil {
				t.Error(err)
				return
			}
			st, err := c.State()
			if err != nil {
				t.Error(err)
				return
			}
			pids[i] = st.Pid
			if i%2 == 0 {
				err = c.Kill(t.Context(), unix.SIGKILL) // it removes itself
			} else {
				err = c.Remove(t.Context(), true)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, pid := range pids {
		if !gone(pid) {
			t.Errorf("process %d is there", pid)
		}
	}
	entries, err := os.ReadDir(b.dir.path)
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if raw, err := os.ReadFile("/proc/self/mountinfo"); err != nil || bytes.Contains(raw, []byte(b.dir.path)) {
		t.Errorf("left a mount: %v", err)
	}
}

func TestForeground(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{}, "hello", "there")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	st, err := c.Run(t.Context(), IO{Stdout: w})
	w.Close()
	var seen bytes.Buffer
	if _, cerr := seen.ReadFrom(r); err != nil || cerr != nil || st.Code != 0 || seen.String() != "hello there\n" {
		t.Errorf("%+v, %v: %q", st, err, seen.String())
	}
	if out, _ := logs(t, c, LogOptions{}); out != "hello there\n" {
		t.Errorf("log: %q", out)
	}
	if st := state(t, c); st.Status != Exited || st.ExitCode != 0 {
		t.Errorf("%+v", st)
	}
}

func TestStopKillsInTheEnd(t *testing.T) {
	b := newBox(t)
	short := 200 * time.Millisecond
	c := b.create(Config{StopTimeout: &short}, "stubborn")
	start(t, c)
	until(t, "output", func() bool { out, _ := logs(t, c, LogOptions{}); return out != "" })
	began := time.Now()
	if err := c.Stop(t.Context(), StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if st := state(t, c); st.ExitCode != 137 || time.Since(began) < short {
		t.Errorf("%+v after %v", st, time.Since(began))
	}
}

func TestInterruptedRemoval(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{Name: "dead"}, "hello")
	if err := os.WriteFile(c.file(removingFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if st := state(t, c); st.Status != Dead {
		t.Errorf("%+v", st)
	}
	if err := c.Start(t.Context(), nil); !isStateError(err) {
		t.Errorf("start: %v", err)
	}
	if _, err := b.dir.Create(t.Context(), Config{Name: "dead"}); !errors.As(err, new(*NameTakenError)) {
		t.Errorf("its name: %v", err)
	}
	damaged := b.create(Config{}, "hello")
	if err := os.WriteFile(damaged.file(configFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := b.dir.Find(damaged.config.ID)
	if err != nil {
		t.Fatal(err)
	}
	if st := state(t, found); st.Status != Dead || st.Error == "" {
		t.Errorf("%+v", st)
	}
	// A damaged state stops nobody from seeing the others, and loses no files.
	torn := b.create(Config{}, "hello")
	if err := os.WriteFile(torn.file(stateFile), []byte(`{"Status":"runn`), 0o600); err != nil {
		t.Fatal(err)
	}
	if st := state(t, torn); st.Status != Dead || st.Error == "" {
		t.Errorf("%+v", st)
	}
	// Making one that was interrupted, too.
	if err := os.Mkdir(filepath.Join(b.dir.path, strings.Repeat("ab", 32)), 0o700); err != nil {
		t.Fatal(err)
	}
	n, err := b.dir.Sweep(func(Config) bool { return true })
	if n != 2 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	for _, c := range []*Container{found, torn} {
		if err := c.Remove(t.Context(), false); err != nil {
			t.Error(err)
		}
	}
	if all, err := b.dir.List(); len(all) != 0 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
}

// One that was to be removed and was not gives its name up.
func TestRemovedAtItsEnd(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{Name: "job", Remove: true}, "sleep", "600000")
	start(t, c)
	kill9(t, state(t, c).Monitor)
	until(t, "the monitor's end", func() bool { alive, err := c.monitored(); return err == nil && !alive })
	again := b.create(Config{Name: "job", Remove: true}, "exit", "3")
	start(t, again)
	until(t, "its removal", func() bool { _, err := again.State(); return errors.As(err, new(*NotFoundError)) })
}

// A monitor holds nothing of who started it.
func TestMonitorHoldsNothing(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{}, "sleep", "600000")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETFD, 0); err != nil { // as a shell's
		t.Fatal(err)
	}
	start(t, c)
	w.Close()
	r.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := r.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the pipe is still open: %v", err)
	}
	pid := state(t, c).Monitor
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != "/" {
		t.Errorf("in %s, %v", cwd, err)
	}
	for fd := range 3 {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil || to != "/dev/null" {
			t.Errorf("%d is %s, %v", fd, to, err)
		}
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session %d, %v", sid, err)
	}
}

func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk takes root")
	}
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b := newBoxAt(t, filepath.Join(mount, "containers"))
	c := b.create(Config{}, "hello", strings.Repeat("x", 100))
	start(t, c)
	if _, err := c.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	big := b.create(Config{}, "sleep", "300")
	start(t, big)
	full, err := os.Create(filepath.Join(mount, "full"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = full.Write(make([]byte, 4096))
	}
	full.Close()
	st, err := big.Wait(t.Context())
	if err != nil || st.Status != Exited || st.ExitCode != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if st := state(t, big); st.Status != Exited || st.ExitCode != 0 {
		t.Errorf("on the full disk: %+v", st)
	}
}
