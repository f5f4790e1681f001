//go:build linux

package seccomp

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// verdict is what the kernel does with a call, as a filter returns it.
type verdict uint32

const (
	allow       verdict = 0x7fff0000
	killProcess verdict = 0x80000000
	killThread  verdict = 0
	trap        verdict = 0x00030000
	fail        verdict = 0x00050000 // and the error number
	trace       verdict = 0x7ff00000 // and a message to the tracer
	logged      verdict = 0x7ffc0000

	verdictMask verdict = 0xffff0000
)

// lenient says whether the call is made, as far as the filter is concerned.
func (v verdict) lenient() bool {
	k := v & verdictMask
	return k == allow || k == logged || k == trace
}

func failWith(e unix.Errno) verdict { return fail | verdict(e) }

// flagBits are the flags of seccomp(2) that a profile may name.
var flagBits = map[string]uint32{
	"SECCOMP_FILTER_FLAG_TSYNC":      0, // the command is one thread when it starts
	"SECCOMP_FILTER_FLAG_LOG":        unix.SECCOMP_FILTER_FLAG_LOG,
	"SECCOMP_FILTER_FLAG_SPEC_ALLOW": unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
}

// newVerdict reads an action. The number counts for errors and tracers alone;
// it is EPERM unless said otherwise, by number or (podman's way) by name.
func newVerdict(action, name string, number *uint) (verdict, error) {
	data := uint(unix.EPERM)
	if number != nil {
		data = *number
	}
	if name != "" {
		e, ok := errnoByName(name)
		if !ok {
			return 0, fmt.Errorf("unknown error %s", clip(name))
		}
		data = uint(e)
	}
	switch action {
	case "SCMP_ACT_ALLOW":
		return allow, nil
	case "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD":
		return killThread, nil
	case "SCMP_ACT_KILL_PROCESS":
		return killProcess, nil
	case "SCMP_ACT_TRAP":
		return trap, nil
	case "SCMP_ACT_LOG":
		return logged, nil
	case "SCMP_ACT_ERRNO":
		const most = 4095 // the kernel's; 0 would feign success, which some want
		if data > most {
			return 0, fmt.Errorf("error number %d, more than %d", data, most)
		}
		return fail | verdict(data), nil
	case "SCMP_ACT_TRACE":
		if data > 0xffff {
			return 0, fmt.Errorf("message to the tracer %d, more than %d", data, 0xffff)
		}
		return trace | verdict(data), nil
	case "SCMP_ACT_NOTIFY":
		return 0, fmt.Errorf("action %s takes a listener, which is not provided for", action)
	}
	return 0, fmt.Errorf("unknown action %s", clip(action))
}

func errnoByName(name string) (unix.Errno, bool) {
	const last = 133 // EHWPOISON
	for e := unix.Errno(1); e <= last; e++ {
		if unix.ErrnoName(e) == name {
			return e, true
		}
	}
	return 0, false
}
