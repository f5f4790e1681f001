//go:build linux

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestUnits(t *testing.T) {
	for own, want := range map[string]string{
		"/user.slice/user-0.slice/session-1.scope":                    "user-0.slice",
		"/system.slice/a.service":                                     "system.slice",
		"/user.slice/user-0.slice/user@0.service/app.slice/run.scope": "user-0.slice",
		"/init.scope": "", "/": "", "": "",
	} {
		if got := sliceOf(&v2Place{"/sys/fs/cgroup", "/sys/fs/cgroup" + own}); got != want {
			t.Errorf("slice of %q: %q, want %q", own, got, want)
		}
	}
	for own, want := range map[string]string{"/c/a.slice/b.service/sub/more": "/c/a.slice/b.service", "/c/a.scope": "/c/a.scope", "/c/none": "/c/none", "/": "/"} {
		if got := unitOf(own); got != want {
			t.Errorf("unit of %q: %q, want %q", own, got, want)
		}
	}
	for _, c := range []struct {
		table     string
		uid, want int
		ok        bool
	}{
		{"         0          0 4294967295\n", 0, 0, true},
		{"         0       1000          1\n         1     100000      65536\n", 0, 1000, true},
		{"0 1000 1\n1 100000 65536\n", 7, 100006, true},
		{"0 1000 1\n", 65534, 0, false},
		{"", 0, 0, false},
	} {
		if got, ok := outside(c.table, c.uid); got != c.want || ok != c.ok {
			t.Errorf("%d of %q: %d, %v", c.uid, c.table, got, ok)
		}
	}
}

// TestNotAsked: a program that has no means to ask systemd says so, and what
// would help.
func TestNotAsked(t *testing.T) {
	start := startScope
	defer func() { startScope = start }()
	startScope = nil
	err := (&host{}).enterScope(Scope{Bus: systemBus})
	for _, whose := range []string{"", "'s manager of user 7"} {
		s := &scopeError{whose, err}
		if !errors.Is(s, errNotAsked) || !strings.Contains(s.remedy(), "sandbox/systemd") {
			t.Errorf("%v; %s", s, s.remedy())
		}
	}
	if s := (&scopeError{"", errors.New("other")}); !strings.Contains(s.remedy(), "dbus") {
		t.Error(s.remedy())
	}
}

// TestNoAnswer: a manager that hangs is waited for once, by whatever part of a
// run asks first, and what is said names it and a remedy.
func TestNoAnswer(t *testing.T) {
	start, usual := startScope, patience
	defer func() { startScope, patience, unanswered.until = start, usual, time.Time{} }()
	asked := 0
	startScope = func(ctx context.Context, s Scope) error {
		asked++
		<-ctx.Done()
		return fmt.Errorf("%s: %w", s.Bus, context.Cause(ctx))
	}
	patience = 10 * time.Millisecond
	for range 3 {
		err := (&host{v2: &v2Place{}}).enterScope(Scope{Bus: systemBus})
		if s := (&scopeError{"", err}); !errors.Is(err, errNoAnswer) || s.Error() != "systemd makes no scope: "+systemBus+": no answer in 10ms" || !strings.Contains(s.remedy(), "hangs") {
			t.Errorf("%v; %s", s, s.remedy())
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	unanswered.until = time.Now()
	_ = (&host{v2: &v2Place{}}).enterScope(Scope{Bus: systemBus})
	if asked != 2 {
		t.Errorf("asked %d times, a while later", asked)
	}
	if usual > 5*time.Second {
		t.Errorf("it is waited for %v", usual)
	}
}
