package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/early"
)

const (
	// monitorName is argv[0] of a detached monitor; its one argument is the
	// container's directory.
	monitorName = "imgpack-monitor"
	// reportFD is where it finds the pipe to who started it.
	reportFD = 3
)

// Init turns the process into a container's monitor when Start started it as
// such, and then does not return. In every other process it returns at once. It
// must be the first thing main does.
func Init() {
	if len(os.Args) == 2 && os.Args[0] == monitorName {
		os.Exit(monitor(os.Args[1]))
	}
}

// Start starts the container, and returns when its command runs. The monitor
// is detached: it has a session of its own, and holds nothing of the caller's.
// The error is that of sandbox.Run when the command could not be started, and a
// *StateError when it runs already. explain may be nil.
func (c *Container) Start(ctx context.Context, explain func(step string)) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, w.Close())
	}
	proc, err := os.StartProcess("/proc/self/exe", []string{monitorName, c.path}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"GODEBUG=containermaxprocs=0"}, // or the runtime holds files of the caller's cgroup
		Files: []*os.File{null, null, null, w},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	null.Close()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the monitor: %w", err)
	}
	go proc.Wait() // it is nobody's child when the caller ends first
	stop := context.AfterFunc(ctx, func() { _ = proc.Kill() })
	defer stop()
	for dec := json.NewDecoder(r); ; {
		var m reply
		err := dec.Decode(&m)
		switch {
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("start the monitor: %w", errNoAnswer)
		case m.Error != nil:
			return m.Error.err()
		case m.Started:
			return nil
		case explain != nil && m.Explain != "":
			explain(m.Explain)
		}
	}
}

// monitor is the life of a detached monitor.
func monitor(path string) int {
	unix.CloseOnExec(reportFD)
	pipe := os.NewFile(reportFD, "report")
	report := json.NewEncoder(pipe)
	unix.Umask(0o077)
	signal.Ignore(unix.SIGHUP) // the terminal it may have been started from is not its own
	err := early.CloseInherited(reportFD)
	if err == nil {
		err = attendDetached(path, report, func() { pipe.Close() })
	}
	if err != nil {
		_ = report.Encode(reply{Error: toWire(err)}) // who started it may be gone
		return 1
	}
	return 0
}

// attendDetached runs the container at path; it lets go of who started it when
// the command runs.
func attendDetached(path string, report *json.Encoder, letGo func()) error {
	c, err := (&Dir{path: filepath.Dir(path)}).open(filepath.Base(path))
	if errors.Is(err, fs.ErrNotExist) {
		return &NotFoundError{filepath.Base(path)}
	}
	if err != nil {
		return err
	}
	told := false
	io := IO{Explain: func(step string) { _ = report.Encode(reply{Explain: step}) }}
	// A machine that is shut down asks everybody to end.
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM, unix.SIGINT)
	go func() {
		for range asked {
			_ = c.Stop(context.Background(), StopOptions{})
		}
	}()
	_, err = c.attend(context.Background(), io, func() {
		_ = report.Encode(reply{Started: true})
		told = true
		letGo()
	})
	if told {
		return nil // it is in the container's state
	}
	return err
}
