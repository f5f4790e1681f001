//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// screen is a terminal of the test's, at which the caller sits.
type screen struct {
	t         *testing.T
	ptmx, pts *os.File
	mu        sync.Mutex
	shown     bytes.Buffer
	done      chan struct{}
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	s := &screen{t: t, done: make(chan struct{})}
	ptmx, pts := openPTY(t)
	fd, err := duplicate(ptmx)
	check(t, err)
	check(t, ptmx.Close())
	check(t, unix.SetNonblock(fd, true)) // so that it can be closed while it is read
	s.ptmx, s.pts = os.NewFile(uintptr(fd), "ptmx"), pts
	t.Cleanup(func() { s.ptmx.Close() })
	s.resize(30, 100)
	go func() {
		defer close(s.done)
		buf := make([]byte, 32<<10)
		for {
			n, err := s.ptmx.Read(buf)
			s.mu.Lock()
			s.shown.Write(buf[:max(n, 0)])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) resize(rows, cols uint16) {
	s.t.Helper()
	check(s.t, unix.IoctlSetWinsize(int(s.pts.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}))
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.ReplaceAll(s.shown.String(), screenEnd, "")
}

// screenEnd is written when a run has ended: all before it is then shown.
const screenEnd = "\x00end\x00"

func (s *screen) await(text string) {
	s.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		s.mu.Lock()
		ok := bytes.Contains(s.shown.Bytes(), []byte(text))
		s.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Errorf("%q is not shown, but %q", text, s.text())
}

func (s *screen) typeIn(text string) {
	s.t.Helper()
	_, err := s.ptmx.WriteString(text)
	check(s.t, err)
}

// settings are those that raw mode changes.
func (s *screen) settings() unix.Termios {
	s.t.Helper()
	t, err := unix.IoctlGetTermios(int(s.pts.Fd()), unix.TCGETS)
	check(s.t, err)
	return *t
}

// sit gives sp a terminal, and the caller's for its streams.
func (s *screen) sit(sp Spec) Spec {
	sp.Terminal, sp.Stdin, sp.Stdout = true, s.pts, s.pts
	return sp
}

// start runs sp and sends how it ended.
func (s *screen) start(ctx context.Context, sp Spec) <-chan result {
	out := make(chan result, 1)
	go func() {
		var r result
		r.st, r.err = Run(ctx, sp)
		out <- r
	}()
	return out
}

// end is how a run ended, which must not take long.
func (s *screen) end(from <-chan result) result {
	s.t.Helper()
	select {
	case r := <-from:
		if _, err := s.pts.WriteString(screenEnd); err == nil { // it may have hung up
			s.await(screenEnd)
		}
		r.out = s.text()
		return r
	case <-time.After(patience):
		s.t.Fatalf("does not end; shown: %q", s.text())
		return result{}
	}
}

// whole runs sp to its end and demands exit 0.
func (s *screen) whole(sp Spec) string {
	s.t.Helper()
	r := s.end(s.start(context.Background(), sp))
	if r.err != nil || r.st.Code != 0 {
		s.t.Fatalf("run %q: %+v, %v\n%s", sp.Args, r.st, r.err, s.text())
	}
	return s.text()
}

// programs copies programs of this machine into the image, with the libraries
// they take.
func (im image) programs(names ...string) {
	im.t.Helper()
	for _, name := range names {
		p, err := exec.LookPath(name)
		if err != nil {
			skip(im.t, err.Error())
		}
		im.copy(p, "bin/"+name)
		out, err := exec.Command("ldd", p).Output()
		if err != nil {
			skip(im.t, "ldd "+p+": "+err.Error())
		}
		for _, f := range strings.Fields(string(out)) {
			if strings.HasPrefix(f, "/") {
				im.copy(f, f)
			}
		}
	}
}

func (im image) copy(from, to string) {
	im.t.Helper()
	b, err := os.ReadFile(from)
	check(im.t, err)
	im.write(to, string(b), 0o755)
}
