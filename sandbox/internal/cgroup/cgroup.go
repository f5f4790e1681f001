//go:build linux

// Package cgroup limits what a group of processes may use, and freezes them, by
// control groups of version 1, version 2 or both, as the host has them.
//
// A [Group] is a directory below the caller's own cgroup (version 1), or below
// the nearest one above it that may have groups with limits (version 2, where
// a cgroup has either processes or such groups). So limits that the caller is
// under hold for the group too. Where systemd has all cgroups, and version 2,
// that is a scope which systemd makes of the caller, in his slice.
//
// Whoever makes a group holds a lock on its directories. New removes those of
// callers that were killed: the unlocked.
//
// # Out of scope
//
// Devices, block I/O, huge pages; making threads into groups.
package cgroup

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits says how much a group may use. The zero value limits nothing.
type Limits struct {
	Memory     int64   // bytes
	MemorySwap int64   // bytes of memory and swap together; -1: no limit of swap; 0: twice Memory, where swap can be limited
	CPUs       float64 // processors' worth of time: 1.5
	CPUSet     string  // processors to run on: "0-2,5"
	Pids       int64   // processes and threads
}

// UnenforceableError reports a limit that was asked for and cannot be had.
type UnenforceableError struct {
	Limit  string // "memory"
	Reason string // what is in the way
	Remedy string // what would help, or ""
	Err    error  // what the kernel said, or nil
}

func (e *UnenforceableError) Error() string {
	s := fmt.Sprintf("%s cannot be limited: %s", e.Limit, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *UnenforceableError) Unwrap() error { return e.Err }

// prefix begins the names of groups' directories.
const prefix = "imgpack-"

// Group is a cgroup, or several in the hierarchies of version 1. It is used by one goroutine at a time.
type Group struct {
	dirs  []*dir
	of    map[string]*dir // by controller
	notes []string

	freezer *dir // of dirs, or nil
}

// dir is one directory of a group.
type dir struct {
	path string
	v2   bool
	lock *os.File
}

// New makes a group with the limits of l. The caller must Remove it. The error
// is an *UnenforceableError when a limit cannot be had; then there is no group.
// Groups that killed callers left in the same places are removed. Where systemd
// must be asked for a place, the calling process is in a scope of its own
// afterwards, for good.
func New(l Limits) (*Group, error) {
	divided.Lock()
	defer divided.Unlock()
	h, err := readHost()
	if err != nil {
		return nil, err
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	if l == (Limits{}) {
		return h.newGroup(l)
	}
	how := ""
	derr := h.divide()
	g, err := h.newGroup(l)
	if s := new(scopeError); errors.As(derr, &s) {
		if err != nil {
			return nil, s.explain(err)
		}
		how = "degraded: " + s.Error() + "; it may take limits away"
	} else {
		how = h.whence()
	}
	if err == nil && how != "" {
		g.notes = append([]string{how}, g.notes...)
	}
	return g, err
}

func (h *host) newGroup(l Limits) (_ *Group, err error) {
	needs := l.needs()
	places, err := h.places(needs)
	if err != nil {
		return nil, err
	}
	g := &Group{of: map[string]*dir{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Remove())
		}
	}()
	at := map[string]*dir{}
	for i, n := range needs {
		p := places[i]
		d := at[p.path]
		if d == nil {
			sweep(p.path)
			if d, err = makeDir(p); err != nil {
				return nil, denied(n, p, err)
			}
			at[p.path] = d
			g.dirs = append(g.dirs, d)
		}
		g.of[n.controller] = d
		if err := g.set(l, n); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// makeDir makes a directory that only its owner may look into, and locks it.
func makeDir(p place) (*dir, error) {
	const tries = 1000 // each is lost only to a sweep of another that came in that moment
	var err error
	for range tries {
		d := &dir{path: filepath.Join(p.path, prefix+strings.ToLower(rand.Text())), v2: p.v2}
		if err := os.Mkdir(d.path, 0o700); err != nil {
			return nil, err
		}
		if d.lock, err = lockDir(d.path); err == nil {
			if _, err = os.Lstat(d.path); err == nil {
				return d, nil
			}
			d.lock.Close()
		}
		if rerr := ignoreGone(os.Remove(d.path)); rerr != nil || !isErrno(err, unix.EWOULDBLOCK, unix.ENOENT) {
			return nil, errors.Join(err, rerr)
		}
	}
	return nil, err
}

func lockDir(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// Join puts a process, with all of its threads, into the group. What it holds
// of memory stays on the account of the group it comes from. Where it may not be
// put into what is only there to freeze it, the group cannot be frozen.
func (g *Group) Join(pid int) error {
	for _, d := range g.dirs {
		if err := write(d.path, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			if d == g.freezer && !g.limits(d) {
				g.freezer = nil
				continue // it was for nothing else
			}
			return &UnenforceableError{
				Limit: "the process", Reason: "it may not be moved into its cgroup", Err: bare(err),
				Remedy: remedy(d.v2),
			}
		}
	}
	return nil
}

// limits says whether a limit is set in d.
func (g *Group) limits(d *dir) bool {
	for _, of := range g.of {
		if of == d {
			return true
		}
	}
	return false
}

// SetPids changes the limit of processes and threads that New has set.
func (g *Group) SetPids(n int64) error {
	return write(g.of["pids"].path, "pids.max", strconv.FormatInt(n, 10))
}

// FreePids is how many more processes and threads there may be, in a group where
// they are limited.
func (g *Group) FreePids() (int64, error) {
	var n [2]int64
	for i, file := range []string{"pids.max", "pids.current"} {
		s, err := read(g.of["pids"].path, file)
		if err != nil {
			return 0, bare(err)
		}
		if n[i], err = strconv.ParseInt(strings.TrimSpace(s), 10, 64); err != nil {
			return 0, fmt.Errorf("parse %s: %w", file, err)
		}
	}
	return n[0] - n[1], nil
}

// OOMKills is how many processes of the group were killed because the limit of
// memory was reached; 0 where memory is not limited.
func (g *Group) OOMKills() (int64, error) {
	d := g.of["memory"]
	if d == nil {
		return 0, nil
	}
	if d.v2 {
		return counter(d.path, "memory.events", "oom_kill")
	}
	return counter(d.path, "memory.oom_control", "oom_kill")
}

// Notes says what was limited, and what could not be that nobody asked for, one
// line each.
func (g *Group) Notes() []string { return g.notes }

// Remove removes the group, whose processes must have ended; the kernel may
// take a moment to notice.
func (g *Group) Remove() error {
	var errs []error
	for _, d := range g.dirs {
		errs = append(errs, removeDir(d.path, 2*time.Second), d.lock.Close())
	}
	g.dirs, g.freezer = nil, nil
	return errors.Join(errs...)
}

// removeDir removes a cgroup, and tries for as long as patience lasts while it
// is busy.
func removeDir(path string, patience time.Duration) error {
	pause := 200 * time.Microsecond
	for {
		err := ignoreGone(os.Remove(path))
		if !errors.Is(err, unix.EBUSY) || patience <= 0 {
			return err
		}
		time.Sleep(pause)
		patience -= pause
		pause = min(2*pause, 50*time.Millisecond)
	}
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// sweep removes groups of the caller's user whose makers are gone. Processes
// that have not quite ended keep theirs, for a later sweep.
func sweep(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return // making the new group fails in the same way
	}
	for _, e := range entries {
		path := filepath.Join(parent, e.Name())
		if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) || !ownedByUs(path) {
			continue
		}
		if f, err := lockDir(path); err == nil {
			thawDead(path)
			_ = removeDir(path, 100*time.Millisecond)
			f.Close()
		}
	}
}

// Sweep ends what killed callers left paused and removes their groups, as far as
// New would look for them: where this process is.
func Sweep() error {
	h, err := readHost()
	if err != nil {
		return err
	}
	h.sweep()
	return nil
}

func (h *host) sweep() {
	for _, own := range h.v1 {
		sweep(own)
	}
	if h.v2 == nil {
		return
	}
	for dir := h.v2.own; ; dir = filepath.Dir(dir) {
		sweep(dir)
		if dir == h.v2.top || dir == "/" {
			return
		}
	}
}

func ownedByUs(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && int(st.Uid) == os.Geteuid() && st.Mode&0o777 == 0o700
}
