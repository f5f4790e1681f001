package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// strange puts something into the place of a file.
var strange = map[string]func(path string) error{
	"missing":   func(string) error { return nil },
	"fifo":      func(p string) error { return unix.Mkfifo(p, 0o600) },
	"directory": func(p string) error { return os.MkdirAll(filepath.Join(p, "in it"), 0o700) },
	"link":      func(p string) error { return os.Symlink("/dev/zero", p) },
	"huge": func(p string) error {
		return errors.Join(os.WriteFile(p, nil, 0o600), os.Truncate(p, 1<<40))
	},
	"socket": func(p string) error {
		return unix.Mknod(p, unix.S_IFSOCK|0o600, 0)
	},
}

// TestStrangeFiles: whatever has become of a container's files, nobody waits for
// them, the others are seen, and it can be removed.
func TestStrangeFiles(t *testing.T) {
	b := newBox(t)
	whole := b.create(Config{Name: "whole"}, "hello")
	for _, name := range []string{configFile, stateFile, lockFile, logFile, oldLog, removingFile, "state.next", socketFile} {
		for what, put := range strange {
			c := b.create(Config{}, "hello")
			if err := errors.Join(os.RemoveAll(c.file(name)), put(c.file(name))); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.useStrange(name, what, c)
			}()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatalf("%s, %s: somebody waits", name, what)
			}
		}
	}
	if st := state(t, whole); st.Status != Created {
		t.Errorf("%+v", st)
	}
}

func (b box) useStrange(name, what string, c *Container) {
	fail := func(err any) { b.t.Errorf("%s, %s: %v", name, what, err) }
	if name == configFile && what == "missing" {
		if n, err := b.dir.Sweep(func(Config) bool { return true }); n != 1 || err != nil {
			fail(fmt.Sprint("swept ", n, ", ", err))
		}
		return
	}
	found, err := b.dir.Find(c.config.ID)
	if err != nil {
		fail(err)
		return
	}
	st, err := found.State()
	if err != nil {
		fail(err)
	}
	dead := name == configFile || name == stateFile || name == removingFile && what != "missing"
	if (st.Status == Dead) != dead || dead && name != removingFile && !strings.Contains(st.Error, name) {
		fail(st)
	}
	err = found.Logs(b.t.Context(), io.Discard, io.Discard, LogOptions{Follow: true, Tail: 1})
	if odd := (name == logFile || name == oldLog) && what != "missing"; odd != isDamaged(err) {
		fail(err)
	}
	unlocked := name == lockFile && what != "huge"
	if dead || unlocked || what == "fifo" || what == "directory" { // it takes its time
		if err := found.Start(b.t.Context(), nil); (dead || unlocked) == (err == nil) {
			fail(fmt.Sprint("start: ", err))
		}
	}
	_, err = found.Wait(b.t.Context())
	if err != nil {
		fail(err)
	}
	_ = found.Stop(b.t.Context(), StopOptions{})
	if err := found.Remove(b.t.Context(), true); err != nil {
		fail(err)
	}
}

// TestMuteMonitor: a monitor that lives and cannot be asked is not waited for, and
// is named, so that it can be ended.
func TestMuteMonitor(t *testing.T) {
	b := newBox(t)
	c := b.create(Config{Name: "mute"}, "sleep", "600000")
	start(t, c)
	usual := dialPatience
	defer func() { dialPatience = usual }()
	dialPatience = 100 * time.Millisecond
	pid := state(t, c).Monitor
	if err := os.Remove(c.file(socketFile)); err != nil {
		t.Fatal(err)
	}
	err := c.Stop(t.Context(), StopOptions{})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("container mute, process %d: ctl: ", pid)) {
		t.Errorf("stop: %v", err)
	}
	kill9(t, pid)
	until(t, "the lock to be free", func() bool { return state(t, c).Status == Exited })
}
