//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
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
	if p.OwnFilter = s.Seccomp != nil; !p.OwnFilter && s.Capabilities == nil {
		p.Filter, err = usualFilter()
		return err
	}
	profile := seccomp.Default()
	if p.OwnFilter {
		if profile, err = seccomp.Parse(s.Seccomp); err != nil {
			return fmt.Errorf("read profile: %w", err)
		}
	}
	if p.Filter, err = compile(profile, p.Caps); errors.Is(err, seccomp.ErrArch) && !p.OwnFilter {
		return nil
	}
	return err
}

// usualFilter is the default one with the default capabilities; nil: there is
// none for this processor. Nobody changes it.
var usualFilter = sync.OnceValues(func() (*seccomp.Filter, error) {
	caps, err := capabilityNumbers(nil)
	if err != nil {
		return nil, err
	}
	f, err := compile(seccomp.Default(), caps)
	if errors.Is(err, seccomp.ErrArch) {
		return nil, nil
	}
	return f, err
})

// compile makes the filter for this kernel and the capabilities kept.
func compile(profile *seccomp.Profile, caps []int) (_ *seccomp.Filter, err error) {
	t := seccomp.Target{Arch: runtime.GOARCH}
	for _, c := range caps {
		t.Capabilities = append(t.Capabilities, "CAP_"+strings.ToUpper(capability.Cap(c).String()))
	}
	if t.Kernel, err = kernelVersion(); err != nil {
		return nil, err
	}
	return profile.Compile(t)
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
