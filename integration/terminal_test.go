//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// seat is a terminal and the program that runs in it.
type seat struct {
	t         *testing.T
	ptmx, pts *os.File
	cmd       *exec.Cmd
	mu        sync.Mutex
	shown     bytes.Buffer
	before    unix.Termios
}

// takeSeat starts imgpack in a terminal of the test's.
func takeSeat(t *testing.T, h *host, args ...string) *seat {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	unfailing(t, err)
	t.Cleanup(func() { ptmx.Close() })
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	unfailing(t, err)
	unfailing(t, unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0))
	pts, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	unfailing(t, err)
	t.Cleanup(func() { pts.Close() })
	s := &seat{t: t, ptmx: ptmx, pts: pts, cmd: h.command(args...)}
	s.resize(30, 100)
	s.before = s.settings()
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = pts, pts, pts
	if s.cmd.SysProcAttr == nil {
		s.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	s.cmd.SysProcAttr.Setsid, s.cmd.SysProcAttr.Setctty = true, true
	unfailing(t, s.cmd.Start())
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := ptmx.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.shown.Write(buf[:n])
			s.mu.Unlock()
		}
	}()
	return s
}

func (s *seat) resize(rows, cols uint16) {
	s.t.Helper()
	unfailing(s.t, unix.IoctlSetWinsize(int(s.pts.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}))
}

func (s *seat) settings() unix.Termios {
	s.t.Helper()
	v, err := unix.IoctlGetTermios(int(s.pts.Fd()), unix.TCGETS)
	unfailing(s.t, err)
	return *v
}

func (s *seat) await(text string) {
	s.t.Helper()
	for range 6000 {
		s.mu.Lock()
		ok := strings.Contains(s.shown.String(), text)
		s.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.t.Fatalf("%q is not shown, but %q", text, s.shown.String())
}

func (s *seat) typeIn(text string) {
	s.t.Helper()
	_, err := s.ptmx.WriteString(text)
	unfailing(s.t, err)
}

// end wants an exit code, and the terminal as it was.
func (s *seat) end(code int) {
	s.t.Helper()
	hangs := time.AfterFunc(time.Minute, func() { _ = s.cmd.Process.Kill() })
	_ = s.cmd.Wait()
	hangs.Stop()
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit code %d, want %d\n%s", got, code, s.shown.String())
	}
	if s.settings() != s.before {
		s.t.Error("the terminal is not as it was")
	}
}

// TestTerminal: a shell of a real image in a terminal, as root, as an ordinary
// user with one id and with ranges.
func TestTerminal(t *testing.T) {
	for _, who := range []string{"root", "one", "ranges"} {
		t.Run(who, func(t *testing.T) {
			h := newHost(t)
			run := []string{"run", "-it", "-e", "PS1=ready> ", "--entrypoint", ""}
			if who != "root" {
				h.asRanger(rangerUIDs, rangerGIDs)
				run = append(run, "--ids", who)
			}
			ref := pick(t, "base:v1")
			h.ok("pull", ref)
			h.ok(append(append([]string{}, run[0], "--rm"), ref, "true")...) // unpacks
			run = append(run, ref, "sh")

			s := takeSeat(t, h, run...)
			s.await("ready> ")
			if s.settings() == s.before {
				t.Error("the terminal is not raw")
			}
			s.typeIn("tty; stty size\r")
			s.await("/dev/pts/0\r\n30 100\r\n")
			s.resize(50, 120)
			s.typeIn("until [ \"$(stty size)\" = '50 120' ]; do sleep 1; done; stty size; tty < /dev/console\r")
			s.await("50 120\r\n/dev/console\r\n")
			s.typeIn("sh -c 'echo be''gun; exec sleep 1000'\r")
			s.await("begun\r\n")
			s.typeIn("\x03")
			time.Sleep(300 * time.Millisecond)
			s.typeIn("echo status $?; exit 7\r")
			s.await("status 130")
			s.end(7)

			// An interactive shell does not heed SIGTERM; whoever insists is heard.
			s = takeSeat(t, h, run...)
			s.await("ready> ")
			insist := time.NewTicker(100 * time.Millisecond)
			go func() {
				for range insist.C { // what comes before the last was heeded is lost
					if s.cmd.Process.Signal(syscall.SIGTERM) != nil {
						return
					}
				}
			}()
			s.end(143)
			insist.Stop()

			s = takeSeat(t, h, run...)
			s.await("ready> ")
			unfailing(t, s.cmd.Process.Signal(syscall.SIGHUP))
			s.end(129)
		})
	}
}

func unfailing(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
