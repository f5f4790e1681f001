package sandbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
)

// maxHead is how much of a command is read to explain why it cannot be
// executed. The kernel looks at 256 bytes; the name of an ELF interpreter
// stands soon after the program headers.
const maxHead = 8 << 10

// What is needed of the ELF format. Package debug/elf would be initialised, with
// all that it imports, at each start of a program.
const (
	elfMagic      = "\x7fELF"
	elfWide       = 2 // head[4] of 64-bit programs
	elfBig        = 2 // head[5] where the most significant byte is first
	elfExecutable = 2 // a program that is loaded where it says
	elfLoad       = 1 // a program header's kind
	elfInterp     = 3
	elfAMD64      = 62
	elfARM64      = 183
)

// machineName names an ELF machine as image platforms do.
func machineName(machine uint16) string {
	switch machine {
	case elfAMD64:
		return "amd64"
	case elfARM64:
		return "arm64"
	case 3:
		return "386"
	case 40:
		return "arm"
	case 243:
		return "riscv64"
	case 21:
		return "ppc64le"
	case 22:
		return "s390x"
	case 8:
		return "mips"
	case 258:
		return "loong64"
	}
	return fmt.Sprintf("ELF machine %d", machine)
}

// program is what the head of an executable file tells.
type program struct {
	interpreter string // of a script or a dynamic program
	script      bool
	arch        string // of an ELF program, "" for others
}

// inspect reads the head of an executable file. Nothing in it is trusted;
// what makes no sense is left out.
func inspect(head []byte) program {
	if rest, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		fields := bytes.Fields(line)
		if len(fields) == 0 {
			return program{script: true}
		}
		return program{script: true, interpreter: string(fields[0])}
	}
	return inspectELF(head)
}

func inspectELF(head []byte) program {
	if part(head, 0, 52) == nil || !bytes.HasPrefix(head, []byte(elfMagic)) {
		return program{}
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == elfBig {
		order = binary.BigEndian
	}
	p := program{arch: machineName(order.Uint16(head[18:]))}
	wide := head[4] == elfWide
	at, each, n, size := uint64(order.Uint32(head[28:])), order.Uint16(head[42:]), order.Uint16(head[44:]), uint64(32)
	if wide && part(head, 0, 64) == nil {
		return p
	} else if wide {
		at, each, n, size = order.Uint64(head[32:]), order.Uint16(head[54:]), order.Uint16(head[56:]), 56
	}
	for i := range uint64(n) {
		h := part(head, at+i*uint64(each), size)
		if h == nil || order.Uint32(h) != elfInterp {
			continue
		}
		from, length := uint64(order.Uint32(h[4:])), uint64(order.Uint32(h[16:]))
		if wide {
			from, length = order.Uint64(h[8:]), order.Uint64(h[32:])
		}
		p.interpreter = string(bytes.TrimRight(part(head, from, min(length, maxHead)), "\x00"))
	}
	return p
}

// part is n bytes of head, or nil if it has not so many there.
func part(head []byte, from, n uint64) []byte {
	if from > uint64(len(head)) || n > uint64(len(head))-from {
		return nil
	}
	return head[from : from+n]
}

// wrongArch says that a program is for another machine, or "".
func (p program) wrongArch() string {
	if p.arch == "" || p.arch == runtime.GOARCH {
		return ""
	}
	return fmt.Sprintf("the program is for %s, this machine is %s", p.arch, runtime.GOARCH)
}
