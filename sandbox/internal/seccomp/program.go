//go:build linux

package seccomp

import (
	"slices"

	"golang.org/x/sys/unix"
)

// maxProgram is the kernel's BPF_MAXINSNS.
const maxProgram = 4096

const (
	loadWord    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	andConst    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	jumpAlways  = unix.BPF_JMP | unix.BPF_JA
	jumpEqual   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jumpGreater = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	jumpAtLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	returnConst = unix.BPF_RET | unix.BPF_K
)

// Offsets in struct seccomp_data.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// maxJump is how far a conditional jump goes; one less leaves room for a jump
// that is put in between.
const maxJump = 254

// label is an instruction, counted from the program's end.
type label int

// assembler writes a program from its end to its beginning: the kernel knows
// jumps forward only, so that what is jumped to is there already.
type assembler struct {
	rev     []unix.SockFilter
	returns map[verdict]label // the last one written of each
}

// assemble makes the program: architecture, then a balanced tree over ranges of
// numbers, then conditions on arguments. Short ways count twice: the kernel
// runs the program for every number when it is attached.
func assemble(audit uint32, segs []segment) ([]unix.SockFilter, error) {
	a := &assembler{returns: map[verdict]label{}}
	tree := a.tree(segs)
	if tree != a.last() {
		a.jump(tree)
	}
	a.load(offsetNumber)
	known := a.last()
	a.push(unix.SockFilter{Code: returnConst, K: uint32(killProcess)})
	a.branch(jumpEqual, audit, known, a.last())
	a.load(offsetArch)
	if len(a.rev) > maxProgram {
		return nil, tooLong()
	}
	slices.Reverse(a.rev)
	return a.rev, nil
}

// tree decides between segs by the number, which has been loaded.
func (a *assembler) tree(segs []segment) label {
	if len(segs) == 1 {
		return a.leaf(segs[0].policy)
	}
	mid := len(segs) / 2
	upper := a.tree(segs[mid:])
	lower := a.tree(segs[:mid])
	return a.branch(jumpAtLeast, segs[mid].start, upper, lower)
}

func (a *assembler) leaf(p *policy) label {
	next := a.ret(p.final)
	for _, r := range slices.Backward(p.rules) {
		if len(a.rev) > maxProgram { // enough to know; a profile may hold far more
			return next
		}
		holds := a.ret(r.do)
		for _, c := range slices.Backward(r.args) {
			holds = a.condition(c, holds, next)
		}
		next = holds
	}
	return next
}

// condition goes on at yes or no. The kernel has 32 bits at a time.
func (a *assembler) condition(c condition, yes, no label) label {
	low := offsetArgs + 8*uint32(c.index)
	high := low + 4 // both architectures are little-endian
	value := halves(c.value)
	switch c.op {
	case opNotEqual:
		yes, no = no, yes
		fallthrough
	case opEqual:
		l := a.equal(low, allBits, value[0], yes, no)
		return a.equal(high, allBits, value[1], l, no)
	case opMasked:
		want := halves(c.masked)
		l := a.equal(low, value[0], want[0], yes, no)
		if value[1] == 0 {
			return l
		}
		return a.equal(high, value[1], want[1], l, no)
	case opLess:
		return a.greater(jumpAtLeast, low, value, no, yes)
	case opLessEqual:
		return a.greater(jumpGreater, low, value, no, yes)
	case opGreaterEqual:
		return a.greater(jumpAtLeast, low, value, yes, no)
	default: // opGreater
		return a.greater(jumpGreater, low, value, yes, no)
	}
}

const allBits = 0xffffffff

func halves(v uint64) [2]uint32 { return [2]uint32{uint32(v), uint32(v >> 32)} }

// equal compares the word at offset, below mask.
func (a *assembler) equal(offset, mask, value uint32, yes, no label) label {
	a.branch(jumpEqual, value, yes, no)
	if mask != allBits {
		a.push(unix.SockFilter{Code: andConst, K: mask})
	}
	return a.load(offset)
}

// greater compares both halves of the argument at low; the lower ones, by code,
// where the upper are alike.
func (a *assembler) greater(code uint16, low uint32, value [2]uint32, yes, no label) label {
	a.branch(code, value[0], yes, no)
	same := a.branch(jumpEqual, value[1], a.load(low), no)
	a.branch(jumpGreater, value[1], yes, same)
	return a.load(low + 4)
}

func (a *assembler) last() label { return label(len(a.rev) - 1) }

func (a *assembler) push(i unix.SockFilter) label {
	a.rev = append(a.rev, i)
	return a.last()
}

// load goes on with what has been written last.
func (a *assembler) load(offset uint32) label {
	return a.push(unix.SockFilter{Code: loadWord, K: offset})
}

func (a *assembler) jump(to label) label {
	return a.push(unix.SockFilter{Code: jumpAlways, K: uint32(a.last() - to)})
}

// ret is a return of v not far away.
func (a *assembler) ret(v verdict) label {
	if l, ok := a.returns[v]; ok && a.last()-l < maxJump/2 {
		return l
	}
	a.returns[v] = a.push(unix.SockFilter{Code: returnConst, K: uint32(v)})
	return a.last()
}

// branch goes on at yes or no.
func (a *assembler) branch(code uint16, k uint32, yes, no label) label {
	if a.last()-no > maxJump {
		no = a.jump(no)
	}
	if a.last()-yes > maxJump {
		yes = a.jump(yes)
	}
	at := a.last()
	return a.push(unix.SockFilter{Code: code, Jt: uint8(at - yes), Jf: uint8(at - no), K: k})
}
