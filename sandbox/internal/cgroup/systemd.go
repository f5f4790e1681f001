//go:build linux

package cgroup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// divided guards what enters a cgroup of its own, which is once in a process, and
// what is known of a manager that does not answer.
var divided sync.Mutex

// unanswered is of a manager that was asked and did not answer. For a while
// nobody waits for one again: a run asks up to three times.
var unanswered struct {
	err   error
	until time.Time
}

// patience is how long systemd has to answer, which takes it some milliseconds;
// a little longer while it loads its units anew.
var patience = 5 * time.Second

// grudge is how long one that did not is not asked again.
const grudge = time.Minute

// callerName is the group of a scope in which the caller is, beside those that
// it makes.
const callerName = "caller"

// Settle puts this process where New can make groups, if systemd must be asked
// for that: in a scope of its own, for good. New does it, too; but a process that
// an ordinary user started before cannot join a group there. That it cannot be
// is New's to tell.
func Settle() {
	divided.Lock()
	defer divided.Unlock()
	if h, err := readHost(); err == nil {
		_ = h.divide()
	}
}

// divide settles, where the host is systemd's and has version 2 alone: elsewhere
// than in units that are delegated, systemd takes from groups the controllers
// that none of its own units needs, and with them the limits.
//
// A unit that was delegated is divided; otherwise systemd makes a scope, as it
// does for runc and podman. Unlike theirs it holds this process too: so it is
// there until what was counted in it is read, and goes when this is killed.
func (h *host) divide() error {
	if !h.managed() {
		return nil
	}
	unit := unitOf(h.v2.own)
	if delegated(unit) {
		if unit != h.v2.own {
			h.v2.top = unit // what is above is systemd's
			return nil
		}
		if pids, ok := waiting(unit); ok && h.enter(unit, pids) == nil {
			return nil
		}
	}
	s, whose, err := callersManager()
	if err == nil {
		err = h.enterScope(s)
	}
	if err != nil {
		return &scopeError{whose, err}
	}
	return nil
}

// whence says in which unit of systemd's groups are made; "" where in none.
func (h *host) whence() string {
	if !h.managed() {
		return ""
	}
	unit := unitOf(h.v2.own)
	switch {
	case !delegated(unit) || unit == h.v2.own:
		return ""
	case !isScope(unit):
		return "cgroup: in a unit that systemd has delegated"
	case strings.Contains(unit, "/user@"):
		return "cgroup: in a scope of systemd's, of the user's manager"
	}
	return "cgroup: in a scope of systemd's"
}

// managed says whether groups should be made in units of systemd.
func (h *host) managed() bool {
	const booted = "/run/systemd/system" // sd_booted(3)
	st, err := os.Lstat(booted)
	return err == nil && st.IsDir() && h.v2 != nil && len(h.v1) == 0
}

// unitOf is the nearest directory above that is a unit of systemd, or own.
func unitOf(own string) string {
	for dir := own; dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		switch filepath.Ext(dir) {
		case ".scope", ".service", ".slice", ".socket", ".mount", ".swap":
			return dir
		}
	}
	return own
}

// isScope says whether a unit is one that was made here.
func isScope(unit string) bool {
	return strings.HasPrefix(filepath.Base(unit), prefix) && filepath.Ext(unit) == ".scope"
}

// delegated says whether a unit is one that others may divide. Systemd marks
// those since version 251.
func delegated(unit string) bool {
	if isScope(unit) {
		return true
	}
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		value := make([]byte, 8)
		if n, err := unix.Getxattr(unit, name, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// waiting lists what is directly in a cgroup, where that is this process and
// those that have started it and wait for it: nobody minds when they move
// within their unit.
func waiting(dir string) (pids []string, ok bool) {
	pids, err := words(dir, "cgroup.procs")
	if err != nil {
		return nil, false
	}
	left := len(pids)
	for pid := os.Getpid(); left > 0 && slices.Contains(pids, strconv.Itoa(pid)); left-- {
		pid = parentOf(pid)
	}
	return pids, left == 0
}

// parentOf is 0 where there is none to be seen.
func parentOf(pid int) int {
	stat, err := read("/proc/"+strconv.Itoa(pid), "stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]) // the name may hold anything
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// enter moves processes, this one among them, out of the way, into a group below
// dir.
func (h *host) enter(dir string, pids []string) error {
	own := filepath.Join(dir, callerName)
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, pid := range pids {
		if err := write(own, "cgroup.procs", pid); err != nil {
			return errors.Join(err, os.Remove(own)) // unless some are there
		}
	}
	h.v2 = &v2Place{top: dir, own: own}
	return nil
}

// scopeError reports that systemd has made no scope.
type scopeError struct {
	whose string
	err   error
}

func (e *scopeError) Error() string {
	return "systemd" + e.whose + " makes no scope: " + e.err.Error()
}

func (e *scopeError) Unwrap() error { return e.err }

// explain adds to why no group was made that systemd did not help.
func (e *scopeError) explain(err error) error {
	un, ok := errors.AsType[*UnenforceableError](err)
	if !ok || !isDenied(err) {
		return err
	}
	return &UnenforceableError{Limit: un.Limit, Reason: fmt.Sprintf("%s: %v; and %v", un.Reason, un.Err, e), Remedy: e.remedy()}
}

// remedy is what helps an ordinary user to a manager of his own.
func (e *scopeError) remedy() string {
	switch {
	case errors.Is(e.err, errNotAsked):
		return "the program must import package sandbox/systemd"
	case errors.Is(e.err, errNoAnswer):
		return "it, or its message bus, hangs: systemctl status tells which"
	case e.whose == "":
		return "as root, with dbus running"
	}
	return "an administrator can start that manager for good: loginctl enable-linger USER (package dbus-user-session must be there); in a service: User= with Delegate=yes"
}

// Scope is a unit of systemd's that is to be made of the calling process.
type Scope struct {
	Bus   string // the socket where the manager of units is
	UID   int    // what the caller is there, outside of his user namespace
	Name  string // of the unit
	Slice string // in which it is; "": where the manager puts programs
}

var startScope func(context.Context, Scope) error

// errNotAsked says that the program has no means to ask systemd.
var errNotAsked = errors.New("this program does not ask it")

var errNoAnswer = errors.New("no answer")

// Register gives the function that has systemd make a scope, and returns when it
// is there, or ctx has ended. It is called while packages are initialised:
// package sandbox/systemd does, which takes more than there is when process 1
// is started.
func Register(start func(context.Context, Scope) error) { startScope = start }

const systemBus = "/run/dbus/system_bus_socket"

// callersManager is a scope of the manager of the caller's units: root's, or the
// user's own. In a user namespace it is that of the user outside.
func callersManager() (s Scope, whose string, err error) {
	table, err := readProc("/proc/self/uid_map")
	if err != nil {
		return Scope{}, "", err
	}
	uid, ok := outside(string(table), os.Geteuid())
	switch {
	case !ok:
		return Scope{}, "", fmt.Errorf("user %d is nobody outside of this user namespace", os.Geteuid())
	case uid == 0:
		return Scope{Bus: systemBus}, "", nil
	}
	return Scope{Bus: fmt.Sprintf("/run/user/%d/bus", uid), UID: uid}, fmt.Sprintf("'s manager of user %d", uid), nil
}

// outside is what a user is in the parent namespace, by uid_map.
func outside(table string, uid int) (int, bool) {
	for line := range strings.Lines(table) {
		var in, out, n int
		if _, err := fmt.Sscan(line, &in, &out, &n); err == nil && uid >= in && uid-in < n {
			return out + uid - in, true
		}
	}
	return 0, false
}

// enterScope has systemd make a scope of this process, and divides it.
func (h *host) enterScope(s Scope) error {
	if startScope == nil {
		return errNotAsked
	}
	if time.Now().Before(unanswered.until) {
		return unanswered.err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, fmt.Errorf("%w in %v", errNoAnswer, patience))
	defer cancel()
	s.Name = prefix + strings.ToLower(rand.Text()) + ".scope"
	if s.Bus == systemBus { // a user's manager has a slice for programs
		s.Slice = sliceOf(h.v2)
	}
	if err := startScope(ctx, s); err != nil {
		if ctx.Err() != nil {
			unanswered.err, unanswered.until = err, time.Now().Add(grudge)
		}
		return err
	}
	now, err := readHost()
	if err != nil {
		return err
	}
	if now.v2 == nil || filepath.Base(now.v2.own) != s.Name {
		return errors.New("this process is not in the scope that was made")
	}
	return h.enter(now.v2.own, []string{strconv.Itoa(os.Getpid())})
}

// sliceOf is the slice of root's manager that the caller is in, whose limits
// hold for the scope, too.
func sliceOf(p *v2Place) string {
	slice := ""
	rel := strings.TrimPrefix(p.own, p.top)
	for part := range strings.SplitSeq(rel, "/") {
		switch {
		case strings.HasSuffix(part, ".slice"):
			slice = part
		case part != "":
			return slice // what is below is another manager's
		}
	}
	return slice
}
