//go:build linux

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FreezeError reports that the processes of a group cannot be frozen.
type FreezeError struct {
	Reason string // what is in the way
	Remedy string // what would help, or ""
	Err    error  // what the kernel said, or nil
}

func (e *FreezeError) Error() string {
	if e.Err != nil {
		return e.Reason + ": " + e.Err.Error()
	}
	return e.Reason
}

func (e *FreezeError) Unwrap() error { return e.Err }

// MakeFreezable makes the group one that can be frozen, and kills what it
// freezes: it must be asked for before processes join. The error is a
// *FreezeError where that cannot be had; the group is as good as before.
//
// Version 2 is preferred, wherever it is mounted: there, frozen processes can
// be killed.
func (g *Group) MakeFreezable() error {
	divided.Lock()
	defer divided.Unlock()
	h, err := readHost()
	if err != nil {
		return err
	}
	err = g.makeFreezable(h)
	if fault := new(FreezeError); errors.As(err, &fault) && isDenied(err) {
		derr := h.divide()
		if s := new(scopeError); errors.As(derr, &s) {
			return &FreezeError{Reason: fault.Error() + "; and " + s.Error(), Remedy: s.remedy()}
		}
		if err = g.makeFreezable(h); err == nil && h.whence() != "" {
			g.note("%s", h.whence())
		}
	}
	return err
}

func (g *Group) makeFreezable(h *host) error {
	for _, d := range g.dirs {
		if d.v2 && writable(d.path, freezeFile(d)) == nil {
			g.freezer = d
			return nil
		}
	}
	places := make([]place, 0, 2)
	if h.v2 != nil {
		places = append(places, place{h.v2.own, true})
	}
	if own, ok := h.v1["freezer"]; ok {
		places = append(places, place{path: own})
	}
	var first error
	for _, p := range places {
		d, err := freezable(p)
		if err == nil {
			g.dirs, g.freezer = append(g.dirs, d), d
			return nil
		}
		if first == nil {
			first = &FreezeError{Reason: "no cgroup that can be frozen can be made in " + p.path, Err: bare(err), Remedy: remedy(p.v2)}
		}
	}
	if first == nil {
		first = &FreezeError{Reason: "no cgroup file system is mounted here that can freeze processes",
			Remedy: "an administrator can mount one: mount -t cgroup2 none /sys/fs/cgroup"}
	}
	return first
}

func freezable(p place) (*dir, error) {
	if err := writable(p.path, "cgroup.procs"); err != nil {
		return nil, err // processes move only between groups that one may both change
	}
	sweep(p.path)
	d, err := makeDir(p)
	if err != nil {
		return nil, err
	}
	if err := writable(d.path, freezeFile(d)); err != nil { // before Linux 5.2, version 2 had none
		return nil, errors.Join(err, removeDir(d.path, 0), d.lock.Close())
	}
	return d, nil
}

func writable(dir, file string) error {
	return unix.Faccessat(unix.AT_FDCWD, filepath.Join(dir, file), unix.W_OK, unix.AT_EACCESS)
}

func freezeFile(d *dir) string {
	if d.v2 {
		return "cgroup.freeze"
	}
	return "freezer.state"
}

// Freezable says whether Freeze can work.
func (g *Group) Freezable() bool { return g.freezer != nil }

// Freeze stops all processes of the group, and returns when they stand still.
// When it fails, or ctx is cancelled, they go on.
func (g *Group) Freeze(ctx context.Context) error {
	pause := 100 * time.Microsecond
	for {
		// Version 1 may give up for want of a process that does not stop, and
		// wants to be told again.
		if err := g.setFrozen(true); err != nil {
			return fmt.Errorf("freeze processes: %w", bare(err))
		}
		frozen, err := g.frozen()
		if err == nil && frozen {
			return nil
		}
		if err == nil {
			select {
			case <-ctx.Done():
				err = context.Cause(ctx)
			case <-time.After(pause):
				pause = min(2*pause, 10*time.Millisecond)
				continue
			}
		}
		return errors.Join(fmt.Errorf("freeze processes: %w", bare(err)), g.Thaw())
	}
}

// Thaw lets the processes of the group go on.
func (g *Group) Thaw() error {
	if err := g.setFrozen(false); err != nil {
		return fmt.Errorf("thaw processes: %w", bare(err))
	}
	return nil
}

// Kill kills all processes of a group that can be frozen, whether it is or not.
// Those that were frozen by version 1 end only when they are thawed, which is
// what Kill does then.
func (g *Group) Kill() error {
	d := g.freezer
	if d.v2 && write(d.path, "cgroup.kill", "1") == nil { // since Linux 5.14
		return nil
	}
	list, err := words(d.path, "cgroup.procs")
	if err != nil {
		return fmt.Errorf("kill processes: %w", bare(err))
	}
	for _, s := range list {
		if pid, err := strconv.Atoi(s); err == nil && pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have just ended
		}
	}
	if d.v2 {
		return nil
	}
	return g.Thaw()
}

func (g *Group) setFrozen(on bool) error {
	values := map[bool]string{true: "FROZEN", false: "THAWED"}
	if g.freezer.v2 {
		values = map[bool]string{true: "1", false: "0"}
	}
	return write(g.freezer.path, freezeFile(g.freezer), values[on])
}

func (g *Group) frozen() (bool, error) {
	d := g.freezer
	if d.v2 {
		n, err := counter(d.path, "cgroup.events", "frozen")
		return n == 1, err
	}
	state, err := read(d.path, "freezer.state")
	return strings.TrimSpace(state) == "FROZEN", err
}

// thawDead lets processes end that were killed while they were frozen by
// version 1, and whose maker then was killed himself.
func thawDead(path string) { _ = write(path, "freezer.state", "THAWED") }
