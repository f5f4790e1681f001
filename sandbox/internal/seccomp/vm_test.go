//go:build linux

package seccomp

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// event is struct seccomp_data.
type event struct {
	number, audit uint32
	args          [6]uint64
}

// bytes is the event for a machine that loads words most significant byte
// first, as bpf's does; the filter has the offsets of the kernel's order.
func (e event) bytes() []byte {
	b := binary.BigEndian.AppendUint32(nil, e.number)
	b = binary.BigEndian.AppendUint32(b, e.audit)
	b = binary.BigEndian.AppendUint64(b, 0) // instruction pointer
	for _, a := range e.args {
		b = binary.BigEndian.AppendUint32(b, uint32(a))
		b = binary.BigEndian.AppendUint32(b, uint32(a>>32))
	}
	return b
}

// instructions decodes the program.
func instructions(t testing.TB, f *Filter) []bpf.Instruction {
	t.Helper()
	if len(f.Program)%instructionSize != 0 {
		t.Fatalf("%d bytes", len(f.Program))
	}
	raw := unsafe.Slice((*unix.SockFilter)(unsafe.Pointer(&f.Program[0])), len(f.Program)/instructionSize)
	var out []bpf.Instruction
	for _, r := range raw {
		out = append(out, bpf.RawInstruction{Op: r.Code, Jt: r.Jt, Jf: r.Jf, K: r.K}.Disassemble())
	}
	return out
}

// decide runs a filter.
func decide(t testing.TB, vm *bpf.VM, e event) verdict {
	t.Helper()
	got, err := vm.Run(e.bytes())
	if err != nil {
		t.Fatal(err)
	}
	return verdict(uint32(got))
}

func newVM(t testing.TB, f *Filter) *bpf.VM {
	t.Helper()
	vm, err := bpf.NewVM(instructions(t, f))
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// judge says what the profile means, in the plainest way.
func judge(p *Profile, tg Target, e event) verdict {
	m, err := machineOf(tg.Arch)
	if err != nil {
		panic(err)
	}
	if e.audit != m.audit {
		return killProcess
	}
	if e.number >= x32Bit {
		return failWith(unix.ENOSYS)
	}
	at := slices.IndexFunc(m.calls, func(c call) bool { return uint32(c.number) == e.number })
	if at < 0 {
		if p.standard.lenient() {
			return p.standard
		}
		return failWith(unix.ENOSYS)
	}
	var mine []rule
	for _, r := range p.rules {
		if slices.Contains(r.names, m.calls[at].name) && r.counts(tg) && r.do != p.standard {
			mine = append(mine, r)
		}
	}
	result := func() verdict {
		for _, r := range mine {
			if len(r.args) == 0 {
				return r.do
			}
		}
		for _, r := range mine {
			if !slices.ContainsFunc(r.args, func(c condition) bool { return !c.holds(e.args[c.index]) }) {
				return r.do
			}
		}
		return p.standard
	}()
	for _, r := range p.first {
		if slices.Contains(r.names, m.calls[at].name) && (result.lenient() || len(mine) > 0) && r.args[0].holds(e.args[r.args[0].index]) {
			return r.do
		}
	}
	return result
}

func (c condition) holds(v uint64) bool {
	switch c.op {
	case opEqual:
		return v == c.value
	case opNotEqual:
		return v != c.value
	case opLess:
		return v < c.value
	case opLessEqual:
		return v <= c.value
	case opGreater:
		return v > c.value
	case opGreaterEqual:
		return v >= c.value
	}
	return v&c.value == c.masked
}

// interesting are values at which comparisons turn, of all rules.
func (p *Profile) interesting() []uint64 {
	out := []uint64{0, 1, 1 << 31, 1 << 32, 1<<63 - 1, 1<<64 - 1}
	for _, r := range append(slices.Clone(p.first), p.rules...) {
		for _, c := range r.args {
			out = append(out, c.value-1, c.value, c.value+1, c.value|1<<32, c.value^1<<40, c.masked, c.masked|1<<33, ^c.value, c.masked|^c.value)
		}
	}
	return out
}

// compare holds a filter to its profile: every number, then random events.
func compare(t testing.TB, p *Profile, tg Target, n int) {
	t.Helper()
	f, err := p.Compile(tg)
	if err != nil {
		t.Fatal(err)
	}
	m, err := machineOf(tg.Arch)
	if err != nil {
		t.Fatal(err)
	}
	vm := newVM(t, f)
	check := func(e event) {
		t.Helper()
		if got, want := decide(t, vm, e), judge(p, tg, e); got != want {
			t.Fatalf("%s: %+v: %#x, want %#x", tg.Arch, e, got, want)
		}
	}
	values := p.interesting()
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	value := func() uint64 {
		if rnd.IntN(4) == 0 {
			return rnd.Uint64() >> rnd.UintN(64)
		}
		return values[rnd.IntN(len(values))]
	}
	for number := range uint32(600) {
		check(event{number: number, audit: m.audit})
	}
	for _, number := range []uint32{1 << 16, x32Bit - 1, x32Bit, x32Bit + 39, 1 << 31, 1<<32 - 1} {
		check(event{number: number, audit: m.audit})
	}
	var busy []uint32 // calls that have conditions
	for _, r := range append(slices.Clone(p.first), p.rules...) {
		for _, name := range r.names {
			if nr, ok := m.number(name); ok && len(r.args) > 0 {
				busy = append(busy, nr)
			}
		}
	}
	for range n {
		e := event{number: uint32(rnd.UintN(512)), audit: m.audit}
		if len(busy) > 0 && rnd.IntN(2) == 0 {
			e.number = busy[rnd.IntN(len(busy))]
		}
		if rnd.IntN(50) == 0 {
			e.audit = unix.AUDIT_ARCH_I386
		}
		for i := range e.args {
			e.args[i] = value()
		}
		check(e)
	}
}
