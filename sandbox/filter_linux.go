//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/internal/seccomp"
)

// forkExec is syscall.ForkExec, or does the same.
type forkExec func(path string, args []string, attr *syscall.ProcAttr) (int, error)

// setFilter compiles the filter that s asks for, when p.Caps is known.
func (p *plan) setFilter(s *Spec) (err error) {
	if p.Unconfined = s.Unconfined; p.Unconfined {
		return nil
	}
	var profile *seccomp.Profile
	if p.OwnFilter = s.Seccomp != nil; p.OwnFilter {
		if profile, err = seccomp.Parse(s.Seccomp); err != nil {
			return fmt.Errorf("read profile: %w", err)
		}
	} else {
		profile = seccomp.Default()
	}
	t := seccomp.Target{Arch: runtime.GOARCH}
	for _, c := range p.Caps {
		t.Capabilities = append(t.Capabilities, "CAP_"+strings.ToUpper(capability.Cap(c).String()))
	}
	if t.Kernel, err = kernelVersion(); err != nil {
		return err
	}
	p.Filter, err = profile.Compile(t)
	if errors.Is(err, seccomp.ErrArch) && !p.OwnFilter {
		return nil
	}
	return err
}

func kernelVersion() (v [2]int, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return v, err
	}
	release := unix.ByteSliceToString(u.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &v[0], &v[1]); err != nil {
		return v, fmt.Errorf("kernel version %s: %w", clip(release), err)
	}
	return v, nil
}

// filterText is what there is to explain.
func (p *plan) filterText() string {
	switch {
	case p.Unconfined:
		return "system calls: not filtered, as asked for"
	case p.Filter == nil:
		return "degraded: system calls are not filtered: " + seccomp.ErrArch.Error()
	}
	policy := "docker's policy"
	if p.OwnFilter {
		policy = "the given profile"
	}
	return fmt.Sprintf("system calls: %d allowed by %s, %d more by their arguments; 32-bit ones none", p.Filter.Allowed, policy, p.Filter.Conditional)
}

func filterFault(step string, err error) error {
	return &StartError{
		Step: step, Code: CodeStart, Err: err,
		Hint: "it takes a kernel with CONFIG_SECCOMP_FILTER; without a filter the command can be run where it is trusted",
	}
}
