//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/imgpack/imgpack/sandbox/early"
)

// TestAhead runs with a process 1 that was started before all was known.
func TestAhead(t *testing.T) {
	im := newImage(t)
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	defer w.Close()
	before := runtime.NumGoroutine()
	files := len(dirNames(t, "/proc/self/fd"))
	for _, c := range []struct {
		name   string
		spec   Spec // for Prepare
		change func(*Spec)
		used   bool
	}{
		{"used", Spec{Stdout: w}, func(*Spec) {}, true},
		{"used, read-only", Spec{Stdout: w}, func(s *Spec) { s.ReadOnly, s.User = true, "app" }, true},
		{"other network", Spec{Stdout: w}, func(s *Spec) { s.Network = Host }, false},
		{"other network, ahead", Spec{Stdout: w, Network: Host}, func(*Spec) {}, false},
		{"id map without root's ids", Spec{Stdout: w, UIDMap: []IDMap{{1, 1, 1}}}, func(*Spec) {}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := im.spec("hello")
			s.Stdout = w
			c.change(&s)
			s.Ahead = Prepare(c.spec)
			<-s.Ahead.ready
			pid := 0
			if s.Ahead.failed == nil {
				pid = s.Ahead.box.proc.Pid
			}
			p, err := newPlan(&s)
			check(t, err)
			if used := pid != 0 && s.Ahead.box.plan.startsLike(p); used != c.used {
				t.Errorf("used: %t", used)
			}
			for i := range 2 { // the second time there is none left
				good(t, s)
				buf := make([]byte, 64)
				if n, err := r.Read(buf); err != nil || strings.TrimSpace(string(buf[:n])) != "hello" {
					t.Errorf("run %d: %q, %v", i, buf[:n], err)
				}
			}
			noSandboxLeft(t)
			s.Ahead.Close()
			s.Ahead.Close()
		})
	}
	Prepare(Spec{Stdout: w}).Close()
	noSandboxLeft(t)
	s := im.spec("hello")
	s.Ahead = Prepare(Spec{})
	s.Args = nil
	wantStart(t, run(t, s), CodeStart, "no command")
	s.Ahead.Close()
	noSandboxLeft(t)
	waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
	waitFor(t, "files to be closed", func() bool { return len(dirNames(t, "/proc/self/fd")) <= files })
}

// TestEarlyAhead takes a process 1 that was started before anything was known.
func TestEarlyAhead(t *testing.T) {
	if ordinary, err := early.Ordinary(); err != nil || ordinary {
		t.Skip("only root starts one that early")
	}
	im := newImage(t)
	before := runtime.NumGoroutine()
	files := len(dirNames(t, "/proc/self/fd"))
	for _, c := range []struct {
		name string
		spec Spec
		used bool
	}{
		{"used", Spec{}, true},
		{"other network", Spec{Network: Host}, false},
		{"limited", Spec{Limits: Limits{CPUs: 1}}, false},
		{"kept", Spec{Keep: true}, false},
		{"id map", Spec{UIDMap: []IDMap{{0, 0, 1 << 16}}, GIDMap: []IDMap{{0, 0, 1 << 16}}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			early.Begin()
			s := im.spec("hello")
			s.Network, s.Limits, s.Keep, s.UIDMap, s.GIDMap = c.spec.Network, c.spec.Limits, c.spec.Keep, c.spec.UIDMap, c.spec.GIDMap
			s.Ahead = Prepare(s)
			defer s.Ahead.Close()
			<-s.Ahead.ready
			if s.Ahead.failed != nil {
				t.Fatal(s.Ahead.failed)
			}
			if used := s.Ahead.box.how == early.ReadOnlyMount && s.Ahead.early; used != c.used {
				t.Errorf("used: %t", used)
			}
			if early.Take() != nil {
				t.Error("it can be taken twice")
			}
			good(t, s)
			noSandboxLeft(t)
		})
	}
	early.Begin()
	begun := early.Take()
	if begun.Process() == nil {
		t.Fatal("none was started")
	}
	check(t, begun.Process().Kill())
	if how, err := begun.Process().Wait(); err != nil || how != "signal: killed" {
		t.Errorf("%s, %v", how, err)
	}
	if err := begun.Process().Kill(); !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	check(t, begun.Process().Control.Close())
	begun.Release()
	noSandboxLeft(t)
	waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
	waitFor(t, "files to be closed", func() bool { return len(dirNames(t, "/proc/self/fd")) <= files })
}
