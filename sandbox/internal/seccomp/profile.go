//go:build linux

package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// MaxProfile is how long a profile may be. Docker's has 15 kB.
const MaxProfile = 1 << 20

// Profile is a policy: which system calls are let through, on what conditions.
// It does not change and may be used by several goroutines.
type Profile struct {
	standard verdict
	first    []rule // decide before all others
	rules    []rule
	flags    uint32
}

// rule is about the calls of names.
type rule struct {
	names              []string
	do                 verdict
	args               []condition // all must hold
	includes, excludes *scope
}

// condition is one on an argument.
type condition struct {
	index  uint // 0 to 5
	op     op
	value  uint64
	masked uint64 // opMasked: what is left of the argument below the mask value
}

// op compares an argument with a value, both unsigned.
type op int

const (
	opEqual op = iota
	opNotEqual
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
	opMasked
)

// scope is where a rule counts, or does not.
type scope struct {
	caps, arches []string
	minKernel    [2]int // 0.0: any
}

// document is the JSON form. Errno and DefaultErrno are podman's; comments and
// the two names of a listener are read and dropped.
type document struct {
	DefaultAction    string   `json:"defaultAction"`
	DefaultErrnoRet  *uint    `json:"defaultErrnoRet"`
	DefaultErrno     string   `json:"defaultErrno"`
	Architectures    []string `json:"architectures"`
	ArchMap          []arch   `json:"archMap"`
	Flags            []string `json:"flags"`
	ListenerPath     string   `json:"listenerPath"`
	ListenerMetadata string   `json:"listenerMetadata"`
	Syscalls         []entry  `json:"syscalls"`
}

type arch struct {
	Architecture     string   `json:"architecture"`
	SubArchitectures []string `json:"subArchitectures"`
}

type entry struct {
	Name     string   `json:"name"`
	Names    []string `json:"names"`
	Action   string   `json:"action"`
	ErrnoRet *uint    `json:"errnoRet"`
	Errno    string   `json:"errno"`
	Args     []arg    `json:"args"`
	Comment  string   `json:"comment"`
	Includes *where   `json:"includes"`
	Excludes *where   `json:"excludes"`
}

type arg struct {
	Index    uint   `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo"`
	Op       string `json:"op"`
}

type where struct {
	Caps      []string `json:"caps"`
	Arches    []string `json:"arches"`
	MinKernel string   `json:"minKernel"`
}

// Parse reads a profile in docker's JSON form, or podman's. Fields, actions,
// operators, architectures and flags that it does not know are errors: a
// condition that is passed over would let through what it was to stop. Names of
// calls are not checked, since each architecture and kernel has its own.
func Parse(raw []byte) (*Profile, error) {
	if len(raw) > MaxProfile {
		return nil, fmt.Errorf("%d bytes, more than %d", len(raw), MaxProfile)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var d *document
	if err := dec.Decode(&d); errors.Is(err, io.EOF) {
		return nil, errors.New("empty")
	} else if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the profile")
	}
	if d == nil {
		return nil, errors.New("empty")
	}
	return d.profile()
}

func (d *document) profile() (*Profile, error) {
	if d.DefaultAction == "" {
		return nil, errors.New("no defaultAction")
	}
	if len(d.Architectures) > 0 && len(d.ArchMap) > 0 {
		return nil, errors.New("both architectures and archMap")
	}
	if err := d.checkArchitectures(); err != nil {
		return nil, err
	}
	p := &Profile{rules: make([]rule, 0, len(d.Syscalls))}
	var err error
	if p.standard, err = newVerdict(d.DefaultAction, d.DefaultErrno, d.DefaultErrnoRet); err != nil {
		return nil, fmt.Errorf("default: %w", err)
	}
	for _, name := range d.Flags {
		bit, ok := flagBits[name]
		if !ok {
			return nil, fmt.Errorf("unknown flag %s", clip(name))
		}
		p.flags |= bit
	}
	for i := range d.Syscalls {
		if err := p.add(&d.Syscalls[i]); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return p, nil
}

// checkArchitectures knows the names only: a filter is for one architecture.
func (d *document) checkArchitectures() error {
	names := slices.Clone(d.Architectures)
	for _, a := range d.ArchMap {
		names = append(append(names, a.Architecture), a.SubArchitectures...)
	}
	for _, name := range names {
		if !slices.Contains(architectures, name) {
			return fmt.Errorf("unknown architecture %s", clip(name))
		}
	}
	return nil
}

var architectures = []string{
	"SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64",
	"SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32",
	"SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390", "SCMP_ARCH_S390X",
	"SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_RISCV64", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB",
}

// add appends the rules that e means.
func (p *Profile) add(e *entry) error {
	r := rule{names: e.Names}
	if e.Name != "" {
		if len(e.Names) > 0 {
			return errors.New("both name and names")
		}
		r.names = []string{e.Name}
	}
	if len(r.names) == 0 {
		return errors.New("no names")
	}
	var err error
	if r.do, err = newVerdict(e.Action, e.Errno, e.ErrnoRet); err != nil {
		return err
	}
	if r.includes, err = newScope(e.Includes); err != nil {
		return err
	}
	if r.excludes, err = newScope(e.Excludes); err != nil {
		return err
	}
	var seen [6]bool
	twice := false
	for _, a := range e.Args {
		c, err := newCondition(a)
		if err != nil {
			return err
		}
		twice = twice || seen[c.index]
		seen[c.index] = true
		r.args = append(r.args, c)
	}
	if !twice {
		p.rules = append(p.rules, r)
		return nil
	}
	for _, c := range r.args { // libseccomp takes one condition on each argument
		one := r
		one.args = []condition{c}
		p.rules = append(p.rules, one)
	}
	return nil
}

func newCondition(a arg) (condition, error) {
	if a.Index > 5 {
		return condition{}, fmt.Errorf("argument %d; they are 0 to 5", a.Index)
	}
	i := slices.Index(ops, a.Op)
	if i < 0 {
		return condition{}, fmt.Errorf("unknown operator %s", clip(a.Op))
	}
	c := condition{index: a.Index, op: op(i), value: a.Value}
	if c.op == opMasked {
		c.masked = a.ValueTwo & a.Value
	}
	return c, nil
}

// ops are the names of the operators, in their order.
var ops = []string{"SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_GT", "SCMP_CMP_GE", "SCMP_CMP_MASKED_EQ"}

func newScope(w *where) (*scope, error) {
	if w == nil {
		return nil, nil
	}
	s := &scope{caps: w.Caps, arches: w.Arches}
	if w.MinKernel == "" {
		return s, nil
	}
	major, minor, ok := strings.Cut(w.MinKernel, ".")
	for i, part := range []string{major, minor} {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil || !ok {
			return nil, fmt.Errorf("minKernel %s is not a version such as 5.10", clip(w.MinKernel))
		}
		s.minKernel[i] = int(n)
	}
	if s.minKernel == [2]int{} {
		return nil, errors.New("minKernel 0.0")
	}
	return s, nil
}

// clip quotes foreign text for a message.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
