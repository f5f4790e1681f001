//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"os"
	"runtime"
	"strings"
	"testing"
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
