package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/imgpack/imgpack/sandbox/internal/cgroup"
)

// busEnv is set in processes that tests start in other namespaces: they ask for
// a scope on this bus, and write how that went.
const busEnv = "IMGPACK_TEST_BUS"

func TestMain(m *testing.M) {
	if bus := os.Getenv(busEnv); bus != "" {
		fmt.Println(start(cgroup.Scope{Bus: bus, UID: os.Getuid()}))
		return
	}
	os.Exit(m.Run())
}

const scopeName = "imgpack-x.scope"

// start asks for a scope.
func start(s cgroup.Scope) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.Name = scopeName
	return startScope(ctx, s)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const busConfig = `<busconfig>
<type>session</type>
<listen>unix:path=%s</listen>
<auth>%s</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow eavesdrop="true"/></policy>
</busconfig>`

// startBus starts a message bus, and returns where it listens.
func startBus(t *testing.T, auth string) (path string, daemon *exec.Cmd) {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	check(t, os.Chmod(filepath.Dir(dir), 0o755)) // for other users
	path = filepath.Join(dir, "a bus,100%;")     // in no address of D-Bus as it is
	config := filepath.Join(dir, "config")
	check(t, os.WriteFile(config, fmt.Appendf(nil, busConfig, dbus.EscapeBusAddressValue(path), auth), 0o644))
	daemon = exec.Command(program, "--config-file="+config, "--nofork", "--nopidfile", "--print-address=1")
	var said strings.Builder // as root, that it may not open more files
	daemon.Stderr = &said
	out, err := daemon.StdoutPipe()
	check(t, err)
	check(t, daemon.Start())
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	_, err = bufio.NewReader(out).ReadString('\n') // it listens
	check(t, err)
	return path, daemon
}

// systemd answers StartTransientUnit on a bus. TestGuestLimits, in a virtual
// machine, has the real one.
type systemd struct {
	conn    *dbus.Conn
	fault   *dbus.Error // of the call, or nil
	results []string    // of jobs, "UNIT RESULT"
	late    bool        // they end after the answer
	stop    func()      // is called when asked, or nil

	mu    sync.Mutex
	asked string
}

func (s *systemd) StartTransientUnit(name, mode string, all []property, others []unit) (dbus.ObjectPath, *dbus.Error) {
	s.mu.Lock()
	s.asked = fmt.Sprint(name, " ", mode, " ", all, " ", others)
	s.mu.Unlock()
	if s.stop != nil {
		s.stop()
	}
	emit := func() {
		for i, r := range s.results {
			unit, result, _ := strings.Cut(r, " ")
			_ = s.conn.Emit(object, manager+"."+jobDone, uint32(i), dbus.ObjectPath("/org/freedesktop/systemd1/job/7"), unit, result)
		}
	}
	if s.late {
		time.AfterFunc(100*time.Millisecond, emit)
	} else {
		emit()
	}
	return "/org/freedesktop/systemd1/job/7", s.fault
}

// wasAsked is what was asked since it was called last.
func (s *systemd) wasAsked() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = ""
	return asked
}

// serve puts systemd on a bus.
func (s *systemd) serve(t *testing.T, path string) {
	t.Helper()
	conn, err := dbus.Connect("unix:path=" + dbus.EscapeBusAddressValue(path))
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	s.conn = conn
	check(t, conn.Export(s, object, manager))
	reply, err := conn.RequestName(service, dbus.NameFlagDoNotQueue)
	check(t, err)
	if reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply)
	}
}

func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
		t.Errorf("%v, want %q", err, text)
	}
}

// TestScope: systemd understands what it is asked for, and its end is waited for.
func TestScope(t *testing.T) {
	done := []string{"other.scope canceled", scopeName + " done"}
	for name, c := range map[string]struct {
		systemd *systemd
		slice   string
		want    string
	}{
		"done":     {&systemd{results: done}, "user-0.slice", ""},
		"late":     {&systemd{results: done, late: true}, "", ""},
		"many":     {&systemd{results: append(strings.Split(strings.Repeat("other.scope done,", 100), ","), done...)}, "", ""},
		"failed":   {&systemd{results: []string{scopeName + " failed"}}, "", `ended with "failed"`},
		"refused":  {&systemd{fault: dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"Access denied"})}, "", "Access denied"},
		"no words": {&systemd{fault: dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", nil)}, "", "Error.AccessDenied"},
	} {
		t.Run(name, func(t *testing.T) {
			bus, _ := startBus(t, "EXTERNAL")
			c.systemd.serve(t, bus)
			wantError(t, start(cgroup.Scope{Bus: bus, UID: os.Getuid(), Slice: c.slice}), c.want)
			want := fmt.Sprintf(`%s fail [{Description "imgpack and what it runs"} {Delegate true} {CollectMode "inactive-or-failed"} {PIDs @au [%d]}`, scopeName, os.Getpid())
			if c.slice != "" {
				want += fmt.Sprintf(" {Slice %q}", c.slice)
			}
			if got := c.systemd.wasAsked(); got != want+"] []" {
				t.Errorf("systemd was asked %s\nnot %s] []", got, want)
			}
		})
	}
}

// TestNamespaces: the bus knows who calls in a user namespace, where he has
// another number; of another pid namespace nothing is asked.
func TestNamespaces(t *testing.T) {
	bus, _ := startBus(t, "EXTERNAL")
	s := &systemd{results: []string{scopeName + " done"}}
	s.serve(t, bus)
	ids := func(id int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
	}
	for name, c := range map[string]struct {
		sys  syscall.SysProcAttr
		want string
	}{
		"user":        {syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids(os.Getuid()), GidMappings: ids(os.Getgid())}, "<nil>"},
		"mapped user": {syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids(65534), GidMappings: ids(65534)}, "<nil>"},
		"pid": {syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID, UidMappings: ids(os.Getuid()), GidMappings: ids(os.Getgid())},
			bus + ": it is outside of this pid namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "mapped user" && os.Getuid() != 0 {
				t.Skip("takes root")
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), busEnv+"="+bus)
			cmd.SysProcAttr = &c.sys
			out, err := cmd.CombinedOutput()
			if errors.Is(err, syscall.EPERM) {
				t.Skip("this host forbids user namespaces")
			}
			check(t, err)
			if got := strings.TrimSpace(string(out)); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if asked := s.wasAsked(); (asked != "") != (c.want == "<nil>") {
				t.Errorf("systemd was asked %q", asked)
			}
		})
	}
}

// TestNoAnswer: what is no bus, or ends or stops being one, is an error that
// names it, in time.
func TestNoAnswer(t *testing.T) {
	t.Run("nobody", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "none")
		err := start(cgroup.Scope{Bus: path})
		wantError(t, err, path+": ")
		if !errors.Is(err, os.ErrNotExist) || strings.Count(err.Error(), path) != 1 {
			t.Error(err)
		}
	})
	t.Run("no systemd", func(t *testing.T) {
		bus, _ := startBus(t, "EXTERNAL")
		wantError(t, start(cgroup.Scope{Bus: bus, UID: os.Getuid()}), service)
	})
	t.Run("no entry", func(t *testing.T) {
		bus, _ := startBus(t, "ANONYMOUS")
		wantError(t, start(cgroup.Scope{Bus: bus, UID: os.Getuid()}), bus+": dbus: authentication failed")
	})
	t.Run("killed", func(t *testing.T) {
		bus, daemon := startBus(t, "EXTERNAL")
		(&systemd{stop: func() { _ = daemon.Process.Kill() }}).serve(t, bus)
		wantError(t, start(cgroup.Scope{Bus: bus, UID: os.Getuid()}), bus+": EOF")
	})
	quickly := func(t *testing.T, bus string) {
		t.Helper()
		why := errors.New("no answer in 0.3s")
		ctx, cancel := context.WithTimeoutCause(context.Background(), 300*time.Millisecond, why)
		defer cancel()
		from := time.Now()
		err := startScope(ctx, cgroup.Scope{Bus: bus, UID: os.Getuid(), Name: scopeName})
		if !errors.Is(err, why) || !strings.Contains(err.Error(), bus) || time.Since(from) > 30*time.Second {
			t.Errorf("%v, after %v", err, time.Since(from))
		}
	}
	t.Run("no end", func(t *testing.T) {
		bus, _ := startBus(t, "EXTERNAL")
		(&systemd{}).serve(t, bus)
		quickly(t, bus)
	})
	t.Run("stopped", func(t *testing.T) {
		bus, daemon := startBus(t, "EXTERNAL")
		check(t, daemon.Process.Signal(syscall.SIGSTOP))
		quickly(t, bus)
	})
	t.Run("other", func(t *testing.T) { // as no daemon does
		for _, words := range []string{"", "REJECTED EXTERNAL\r\n", "REJECTED EXTERNAL\r\nOK 0123\r\nno message at all, of no order"} {
			quickly(t, talker(t, words))
		}
	})
}

// talker is something that says words to who connects, and no more.
func talker(t *testing.T, words string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	check(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			_, _ = c.Write([]byte(words))
		}
	}()
	return path
}
