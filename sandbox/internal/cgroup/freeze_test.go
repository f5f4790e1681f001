//go:build linux

package cgroup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hosts are this host with one version of freezers at a time.
func hosts(t *testing.T) map[string]*host {
	t.Helper()
	h, err := readHost()
	check(t, err)
	return map[string]*host{
		"version 1": {v1: h.v1},
		"version 2": {v1: map[string]string{}, v2: h.v2},
	}
}

// freezableGroup makes a group that h can freeze, or skips.
func freezableGroup(t *testing.T, h *host) *Group {
	t.Helper()
	g := newGroup(t, Limits{})
	err := g.makeFreezable(h)
	if un := new(FreezeError); errors.As(err, &un) {
		if g.Freezable() || un.Remedy == "" {
			t.Errorf("%v, %v, remedy %q", g.Freezable(), err, un.Remedy)
		}
		t.Skip(err)
	}
	check(t, err)
	return g
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// size tells how far a process that writes has come.
func size(t *testing.T, file string) int64 {
	t.Helper()
	st, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	check(t, err)
	return st.Size()
}

func TestFreeze(t *testing.T) {
	for name, h := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			g := freezableGroup(t, h)
			file := filepath.Join(t.TempDir(), "f")
			cmd := start(t, g, "while :; do echo x >>"+file+"; done")
			goesOn := func() {
				t.Helper()
				from := size(t, file)
				for range 6000 {
					if time.Sleep(10 * time.Millisecond); size(t, file) > from {
						return
					}
				}
				t.Error("it does not go on")
			}
			goesOn()
			for range 2 {
				check(t, g.Freeze(patient(t)))
				from := size(t, file)
				if time.Sleep(100 * time.Millisecond); size(t, file) != from {
					t.Error("it goes on, frozen")
				}
				check(t, g.Thaw())
				goesOn()
			}
			check(t, g.Freeze(patient(t)))
			check(t, g.Kill())
			_ = cmd.Wait()
			if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
				t.Errorf("ended with %v", cmd.ProcessState)
			}
		})
	}
}

// TestFreezeCancelled: a group that does not stand still in time goes on.
func TestFreezeCancelled(t *testing.T) {
	for name, h := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			g := freezableGroup(t, h)
			cmd := start(t, g, "exit 3")
			check(t, g.Thaw())
			ctx, cancel := context.WithCancelCause(context.Background())
			why := errors.New("enough")
			cancel(why)
			if err := g.Freeze(ctx); err != nil && !errors.Is(err, why) {
				t.Error(err)
			} else if err == nil {
				check(t, g.Thaw()) // it was faster
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 3 {
				t.Errorf("ended with %v", cmd.ProcessState)
			}
		})
	}
}

// TestFreezeWhereLimited: one directory of version 2 does for both.
func TestFreezeWhereLimited(t *testing.T) {
	g := newGroup(t, Limits{Pids: 20})
	before := len(g.dirs)
	if err := g.MakeFreezable(); err != nil {
		t.Skip(err)
	}
	want := before + 1
	if g.of["pids"].v2 {
		want = before
	}
	if len(g.dirs) != want {
		t.Errorf("%d directories, before %d", len(g.dirs), before)
	}
	cmd := start(t, g, "exec sleep 20")
	check(t, g.Freeze(patient(t)))
	check(t, g.Kill())
	_ = cmd.Wait()
}

// TestSweepThaws: what a killed caller left frozen and killed comes to its end.
func TestSweepThaws(t *testing.T) {
	h := hosts(t)["version 1"]
	g := freezableGroup(t, h)
	cmd := start(t, g, "exec sleep 20")
	check(t, g.Freeze(patient(t)))
	check(t, cmd.Process.Kill())
	check(t, g.freezer.lock.Close()) // as if its maker were gone
	done := make(chan error)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
		t.Log("another swept, or this kernel kills what version 1 has frozen")
	case <-time.After(50 * time.Millisecond):
		check(t, Sweep())
		<-done
	}
	path := g.freezer.path
	g.dirs = nil      // of which the lock is closed
	check(t, Sweep()) // the process may have taken its time
	swept(t, path)
}

func TestNoFreezer(t *testing.T) {
	for _, h := range []*host{
		{v1: map[string]string{}},
		{v1: map[string]string{"freezer": t.TempDir()}},
		{v1: map[string]string{}, v2: &v2Place{own: t.TempDir()}},
	} {
		g := &Group{}
		err := g.makeFreezable(h)
		var un *FreezeError
		if !errors.As(err, &un) || un.Remedy == "" || g.Freezable() || len(g.dirs) > 0 || strings.Contains(err.Error(), prefix) {
			t.Errorf("%+v: %v", h, err)
		}
	}
}
