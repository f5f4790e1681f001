//go:build linux

package seccomp

import (
	"github.com/moby/profiles/seccomp"
	"golang.org/x/sys/unix"
)

// Default returns docker's policy, and on top of it no pushing of input into
// terminals: TIOCSTI and TIOCLINUX are refused whatever stands in the upper
// half of the ioctl's number, which the kernel drops (CVE-2019-10063).
func Default() *Profile {
	p, err := fromDocker(seccomp.DefaultProfile()).profile()
	if err != nil {
		panic("seccomp: docker's profile: " + err.Error()) // a test compiles it
	}
	const tioclinux = 0x541c
	for _, cmd := range []uint64{unix.TIOCSTI, tioclinux} {
		p.first = append(p.first, rule{
			names: []string{"ioctl"},
			do:    failWith(unix.EPERM),
			args:  []condition{{index: 1, op: opMasked, value: 0xffffffff, masked: cmd}},
		})
	}
	return p
}

func fromDocker(s *seccomp.Seccomp) *document {
	d := &document{
		DefaultAction: string(s.DefaultAction), DefaultErrnoRet: s.DefaultErrnoRet,
		Syscalls: make([]entry, 0, len(s.Syscalls)),
	}
	for _, c := range s.Syscalls {
		e := entry{
			Names: c.Names, Action: string(c.Action), ErrnoRet: c.ErrnoRet,
			Includes: fromFilter(c.Includes), Excludes: fromFilter(c.Excludes),
		}
		for _, a := range c.Args {
			e.Args = append(e.Args, arg{Index: a.Index, Value: a.Value, ValueTwo: a.ValueTwo, Op: string(a.Op)})
		}
		d.Syscalls = append(d.Syscalls, e)
	}
	return d
}

func fromFilter(f *seccomp.Filter) *where {
	if f == nil {
		return nil
	}
	w := &where{Caps: f.Caps, Arches: f.Arches}
	if f.MinKernel != nil {
		w.MinKernel = f.MinKernel.String()
	}
	return w
}
