//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// number is that of setrlimit(2).
func (l *Rlimit) number() (n int, ok bool) {
	numbers := [...]int{ // of RlimitNames
		unix.RLIMIT_CORE, unix.RLIMIT_CPU, unix.RLIMIT_DATA, unix.RLIMIT_FSIZE, unix.RLIMIT_LOCKS,
		unix.RLIMIT_MEMLOCK, unix.RLIMIT_MSGQUEUE, unix.RLIMIT_NICE, unix.RLIMIT_NOFILE, unix.RLIMIT_NPROC,
		unix.RLIMIT_RSS, unix.RLIMIT_RTPRIO, unix.RLIMIT_RTTIME, unix.RLIMIT_SIGPENDING, unix.RLIMIT_STACK,
	}
	i := slices.Index(RlimitNames(), l.Name)
	if i < 0 {
		return 0, false
	}
	return numbers[i], true
}

// setRlimits checks limits of processes.
func (p *plan) setRlimits(limits []Rlimit) error {
	seen := map[string]bool{}
	for _, l := range limits {
		_, known := l.number()
		switch {
		case !known:
			return fmt.Errorf("no limit %s", clip(l.Name))
		case seen[l.Name]:
			return fmt.Errorf("%s is given twice", l.Name)
		case l.Soft > l.Hard:
			return fmt.Errorf("%s: the soft limit is above the hard one", l.Name)
		}
		seen[l.Name] = true
	}
	p.Rlimits = limits
	return nil
}

func (p *plan) limits(name string) bool {
	return slices.ContainsFunc(p.Rlimits, func(l Rlimit) bool { return l.Name == name })
}

// raiseRlimits gives process 1 the hard limits that the command is to have:
// outside of the user namespace some callers may raise them, inside of it
// nobody. It is not known yet who may, so the kernel is asked.
func (b *box) raiseRlimits() error {
	for _, l := range b.plan.Rlimits {
		var is unix.Rlimit
		resource, _ := l.number()
		err := unix.Prlimit(b.proc.Pid, resource, nil, &is)
		if err == nil && l.Hard <= is.Max {
			continue
		}
		if err == nil {
			err = unix.Prlimit(b.proc.Pid, resource, &unix.Rlimit{Cur: is.Cur, Max: l.Hard}, nil)
		}
		if err == nil {
			continue
		}
		e := &StartError{Step: "set limit " + l.Name, Code: CodeStart, Err: err}
		if errors.Is(err, unix.EPERM) {
			e.Err = fmt.Errorf("%s is above the caller's own %s: %w", limitText(l.Hard), limitText(is.Max), err)
			e.Hint = "it takes CAP_SYS_RESOURCE to raise a hard limit, and nofile stays below fs.nr_open"
		}
		return e
	}
	return nil
}

func limitText(n uint64) string {
	if n == Unlimited {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

// forbidCore lets nothing write core files, unless that is asked for. Process 1
// itself writes none in any case, being undumpable.
func (s *setup) forbidCore() error {
	if s.plan.limits("core") {
		return nil
	}
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}
