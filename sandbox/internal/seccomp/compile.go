//go:build linux

package seccomp

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Target is what a filter is made for.
type Target struct {
	Arch         string   // GOARCH
	Capabilities []string // that may be kept: "CAP_CHOWN"
	Kernel       [2]int   // 6.18
}

// ErrArch says that there is no table of the architecture's calls.
var ErrArch = errors.New("the system calls of this architecture are not known")

// call is a system call of an architecture.
type call struct {
	name   string
	number uint16
}

// machine is an architecture as filters see it.
type machine struct {
	audit uint32
	calls []call // by name
}

func machineOf(arch string) (machine, error) {
	switch arch {
	case "amd64":
		return machine{unix.AUDIT_ARCH_X86_64, amd64Calls[:]}, nil
	case "arm64":
		return machine{unix.AUDIT_ARCH_AARCH64, arm64Calls[:]}, nil
	}
	return machine{}, ErrArch
}

// number looks a call up.
func (m machine) number(name string) (uint32, bool) {
	i, ok := slices.BinarySearchFunc(m.calls, name, func(c call, name string) int { return cmp.Compare(c.name, name) })
	if !ok {
		return 0, false
	}
	return uint32(m.calls[i].number), true
}

// policy is what happens to one call.
type policy struct {
	rules []*rule // in turn, each with conditions
	final verdict
	fixed bool // final is of a rule, not the default
	known bool // the table has the call
}

// same says whether two calls need no telling apart.
func (p *policy) same(q *policy) bool { return p.final == q.final && slices.Equal(p.rules, q.rules) }

// segment is a range of numbers with one policy, up to the next one's start.
type segment struct {
	start uint32
	*policy
}

// x32Bit begins the numbers of the x32 table. The highest real one is far below.
const x32Bit = 0x40000000

// Compile makes the filter for t. The error is ErrArch where t.Arch has no
// table, or says that the profile is more than a filter can hold.
func (p *Profile) Compile(t Target) (*Filter, error) {
	m, err := machineOf(t.Arch)
	if err != nil {
		return nil, err
	}
	calls := p.resolve(m, t)
	f := &Filter{Flags: p.flags}
	for i := range calls {
		switch c := &calls[i]; {
		case !c.known:
		case len(c.rules) > 0:
			f.Conditional++
		case c.final.lenient():
			f.Allowed++
		}
	}
	program, err := assemble(m.audit, segments(calls, p.unknown()))
	if err != nil {
		return nil, err
	}
	f.Program = encode(program)
	return f, nil
}

// unknown is what happens to calls that the table does not have.
func (p *Profile) unknown() verdict {
	if p.standard.lenient() {
		return p.standard
	}
	return failWith(unix.ENOSYS)
}

// resolve applies the rules to each number up to the highest of the table.
func (p *Profile) resolve(m machine, t Target) []policy {
	last := slices.MaxFunc(m.calls, func(a, b call) int { return cmp.Compare(a.number, b.number) })
	calls := make([]policy, int(last.number)+1)
	for i := range calls {
		calls[i].final = p.unknown()
	}
	for _, c := range m.calls {
		calls[c.number] = policy{final: p.standard, known: true}
	}
	for i := range p.rules {
		r := &p.rules[i]
		if r.do == p.standard || !r.counts(t) {
			continue
		}
		for _, name := range r.names {
			if n, ok := m.number(name); ok {
				calls[n].apply(r)
			}
		}
	}
	for i := range slices.Backward(p.first) {
		r := &p.first[i]
		for _, name := range r.names {
			// What is refused anyway needs no second reason.
			if n, ok := m.number(name); ok && (calls[n].final.lenient() || len(calls[n].rules) > 0) {
				calls[n].rules = append([]*rule{r}, calls[n].rules...)
			}
		}
	}
	return calls
}

func (c *policy) apply(r *rule) {
	switch {
	case c.fixed:
	case len(r.args) == 0:
		*c = policy{final: r.do, fixed: true, known: true}
	default:
		c.rules = append(c.rules, r)
	}
}

// counts says whether the rule is for t.
func (r *rule) counts(t Target) bool {
	if e := r.excludes; e != nil {
		hasOne := slices.ContainsFunc(e.caps, func(c string) bool { return slices.Contains(t.Capabilities, c) })
		if hasOne || slices.Contains(e.arches, t.Arch) || e.minKernel != [2]int{} && t.atLeast(e.minKernel) {
			return false
		}
	}
	if in := r.includes; in != nil {
		lacksOne := slices.ContainsFunc(in.caps, func(c string) bool { return !slices.Contains(t.Capabilities, c) })
		if lacksOne || len(in.arches) > 0 && !slices.Contains(in.arches, t.Arch) || !t.atLeast(in.minKernel) {
			return false
		}
	}
	return true
}

func (t Target) atLeast(v [2]int) bool { return slices.Compare(t.Kernel[:], v[:]) >= 0 }

// segments joins neighbours that are alike.
func segments(calls []policy, unknown verdict) []segment {
	var out []segment
	add := func(start uint32, c *policy) {
		if len(out) == 0 || !out[len(out)-1].same(c) {
			out = append(out, segment{start, c})
		}
	}
	for i := range calls {
		add(uint32(i), &calls[i])
	}
	add(uint32(len(calls)), &policy{final: unknown})
	add(x32Bit, &policy{final: failWith(unix.ENOSYS)})
	return out
}

// tooLong says that a profile does not fit.
func tooLong() error { return fmt.Errorf("more than the kernel's %d instructions", maxProgram) }
