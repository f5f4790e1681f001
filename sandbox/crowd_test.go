//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowd is how many sandboxes are alive at once: 200, and fewer where the
// memory is not there for that many process 1, each with a Go runtime.
func crowd(t *testing.T) int {
	t.Helper()
	const most, each = 200, 24 << 20
	if testing.Short() || os.Getenv(ordinaryEnv) != "" {
		return 20
	}
	b, err := os.ReadFile("/proc/meminfo")
	check(t, err)
	_, rest, ok := strings.Cut(string(b), "MemAvailable:")
	var free int
	if _, err := fmt.Sscan(rest, &free); !ok || err != nil {
		t.Fatal("no MemAvailable", err)
	}
	return max(min(most, free<<10/each), 2)
}

// member is one sandbox of the crowd. Its command echoes what it is sent.
type member struct {
	in, out *os.File // ours
	cancel  context.CancelFunc
	done    chan error
}

// join starts a sandbox, of which every third is killed in the end.
func join(s Spec, killed bool) (m *member, err error) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m = &member{in, out, cancel, make(chan error, 1)}
	s.Stdin, s.Stdout = theirIn, theirOut
	go func() {
		st, err := Run(ctx, s)
		theirIn.Close()
		theirOut.Close()
		if killed && errors.Is(err, context.Canceled) {
			err = nil
		} else if err == nil && st != (Status{}) {
			err = fmt.Errorf("it ended with %+v", st)
		}
		m.done <- err
	}()
	return m, nil
}

// echo waits until the sandbox is alive.
func (m *member) echo() error {
	if _, err := m.in.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(m.out, make([]byte, 1))
	return err
}

// TestCrowd has many sandboxes alive at once and looks at what they leave. All
// are started at the same time; they end at the same time too, a third of them
// killed.
func TestCrowd(t *testing.T) {
	im := newImage(t)
	state := stateDir(t)
	limits := Limits{Pids: 100}
	if os.Getuid() != 0 {
		limits = Limits{}
	} else {
		needLimits(t, limits)
	}
	fds := len(dirNames(t, "/proc/self/fd"))
	members := make([]*member, crowd(t))
	for i := range members {
		s := im.spec("cat")
		if i%2 == 0 {
			s.State = state
		}
		if i%4 == 1 {
			s.Limits = limits
		}
		m, err := join(s, i%3 == 0)
		check(t, err)
		members[i] = m
	}
	for i, m := range members {
		if err := m.echo(); err != nil {
			t.Fatalf("sandbox %d of %d: %v, %v", i, len(members), err, <-m.done)
		}
	}
	pids := sandboxProcesses(t, os.Getpid())
	if len(pids) != len(members) {
		t.Errorf("%d sandboxes have %d processes below this one", len(members), len(pids))
	}
	groups := groupsOf(pids)
	if limits != (Limits{}) && len(groups) == 0 {
		t.Error("no sandbox has a cgroup")
	}
	for i, m := range members {
		if i%3 == 0 {
			m.cancel()
		}
		m.in.Close()
	}
	for i, m := range members {
		if err := <-m.done; err != nil {
			t.Errorf("sandbox %d: %v", i, err)
		}
		m.cancel()
		m.out.Close()
	}
	noSandboxLeft(t)
	if left := dirNames(t, state); len(left) != 0 {
		t.Errorf("left in the state directory: %v", left)
	}
	for _, dir := range groups {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left: %s, %v", dir, err)
		}
	}
	if now := len(dirNames(t, "/proc/self/fd")); now > fds {
		t.Errorf("%d open files, before %d", now, fds)
	}
	noMountLeft(t, im.dir, state)
	t.Logf("%d at once, %d cgroups", len(members), len(groups))
}

// noMountLeft looks at what names a directory of this test or is mounted like a
// sandbox's: others mount and unmount things meanwhile.
func noMountLeft(t *testing.T, dirs ...string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	for line := range strings.Lines(string(b)) {
		if slices.ContainsFunc(append(dirs, " scratch ", "upperdir=/proc/self/fd/"), func(part string) bool { return strings.Contains(line, part) }) {
			t.Errorf("left mounted: %s", line)
		}
	}
}

// groupsOf lists the cgroups that were made for processes.
func groupsOf(pids []string) (dirs []string) {
	for _, pid := range pids {
		b, _ := os.ReadFile("/proc/" + pid + "/cgroup") // it may have ended
		for line := range strings.Lines(string(b)) {
			part := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if len(part) != 3 || !strings.Contains(part[2], "imgpack-") {
				continue
			}
			for _, root := range []string{filepath.Join("/sys/fs/cgroup", part[1]), "/sys/fs/cgroup/unified"} {
				if dir := filepath.Join(root, part[2]); unix.Access(dir, unix.F_OK) == nil {
					dirs = append(dirs, dir)
				}
			}
		}
	}
	return dirs
}

// TestManyShortRuns starts sandboxes as fast as they end, several at a time.
func TestManyShortRuns(t *testing.T) {
	im := newImage(t)
	state := stateDir(t)
	const atOnce, most = 16, 80
	runs := min(crowd(t), most)
	began := time.Now()
	errs := make(chan error)
	for first := range atOnce {
		go func() {
			var all []error
			for i := first; i < runs; i += atOnce {
				s := im.spec("exit", fmt.Sprint(i%100))
				s.State = state
				if st, err := Run(context.Background(), s); err != nil || st.Code != i%100 {
					all = append(all, fmt.Errorf("run %d: %+v, %w", i, st, err))
				}
			}
			errs <- errors.Join(all...)
		}()
	}
	for range atOnce {
		check(t, <-errs)
	}
	noSandboxLeft(t)
	if left := dirNames(t, state); len(left) != 0 {
		t.Errorf("left in the state directory: %v", left)
	}
	t.Logf("%d runs, %d at a time, in %v", runs, atOnce, time.Since(began))
}
