package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/sandbox/internal/cgroup"
)

// record is state.json.
type record struct {
	State
	Starting bool   // on the way to running: Status is that before
	Boot     string // the kernel's boot id when it was started
}

// live says that a monitor should be there.
func (r record) live() bool { return r.Starting || r.State.Live() }

// codeLost is docker's exit code of a container that nobody saw end.
const codeLost = 255

// load reads the state. The error of one that is none is a *damagedError, and so
// is that of one which is missing in a container that is not being removed.
func (c *Container) load() (r record, err error) {
	raw, err := readFile(c.file(stateFile), maxState)
	if errors.Is(err, fs.ErrNotExist) && c.whole() {
		return r, &damagedError{c.file(stateFile), errMissing}
	}
	if err != nil {
		return r, err
	}
	if err = json.Unmarshal(raw, &r); err == nil && !slices.Contains(Statuses(), r.Status) {
		err = fmt.Errorf("no status %q", r.Status)
	}
	if err != nil {
		return record{}, &damagedError{c.file(stateFile), err}
	}
	return r, nil
}

func (c *Container) save(r record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(c.file(stateFile), raw)
}

// gone makes an error of a missing file one of a missing container.
func (c *Container) gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &NotFoundError{c.config.Name}
	}
	return err
}

// State returns the state, as it is at this instant. One that was left by a
// monitor that was killed is put right on disk, where that can be written.
func (c *Container) State() (State, error) {
	r, err := c.current()
	return r.State, err
}

func (c *Container) current() (record, error) {
	for {
		if c.isDead() {
			return record{State: c.deadState()}, nil
		}
		r, err := c.load()
		if isDamaged(err) {
			return record{State: State{Status: Dead, Error: err.Error()}}, nil
		}
		if err != nil {
			return r, c.gone(err)
		}
		if !r.live() {
			return r, nil
		}
		there, err := c.monitored()
		if isDamaged(err) {
			return record{State: State{Status: Dead, Error: err.Error()}}, nil
		}
		if err != nil || there {
			return r, err
		}
		if r, done, err := c.putRight(); done || err != nil {
			return r, err
		}
	}
}

// whole says that a container is there, and not being removed: then the mark
// comes first, and goes after the config.
func (c *Container) whole() bool {
	_, merr := os.Lstat(c.file(removingFile))
	_, err := os.Lstat(c.file(configFile))
	return errors.Is(merr, fs.ErrNotExist) && err == nil
}

func (c *Container) isDead() bool {
	if c.fault != "" {
		return true
	}
	_, err := os.Lstat(c.file(removingFile))
	return err == nil
}

func (c *Container) deadState() State {
	s := State{Status: Dead, Error: c.fault}
	if r, err := c.load(); err == nil {
		s.Started, s.Finished, s.ExitCode, s.OOMKilled = r.Started, r.Finished, r.ExitCode, r.OOMKilled
	}
	return s
}

// monitored reports whether the monitor lives.
func (c *Container) monitored() (bool, error) {
	f, err := c.openLock()
	if err != nil {
		return false, c.gone(err)
	}
	defer f.Close()
	return alive(f)
}

// putRight writes down the end of a container whose monitor is gone. It is not
// done when that has changed meanwhile.
func (c *Container) putRight() (r record, done bool, err error) {
	f, err := c.change()
	if err != nil {
		return r, false, err
	}
	defer f.Close()
	if there, err := alive(f); err != nil || there {
		return r, false, err
	}
	if r, err = c.load(); err != nil {
		return r, false, c.gone(err)
	}
	if !r.live() {
		return r, true, nil
	}
	r = lost(r, c.dir.bootID(), time.Now())
	_ = c.save(r)      // a full disk does not make it untrue
	_ = cgroup.Sweep() // what was paused by version 1 ends only when it goes on
	return r, true, nil
}

// lost is the state of a container whose monitor did not write down its end.
func lost(r record, boot string, now time.Time) record {
	why := "the monitor was killed"
	switch {
	case r.Boot != boot:
		why = "the machine was restarted"
	case r.Starting:
		why += " while it started"
	}
	r.Starting, r.Status, r.ExitCode, r.Error = false, Exited, codeLost, why
	r.Monitor, r.Pid, r.Finished = 0, 0, now.UTC()
	return r
}

// bootID is the kernel's, which is another after each boot; "" where it is not
// told.
func (d *Dir) bootID() string {
	if d.boot != "" {
		return d.boot
	}
	raw, err := readFile("/proc/sys/kernel/random/boot_id", maxState)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}
