package sandbox

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"strings"
)

// maxHead is how much of a command is read to explain why it cannot be
// executed. The kernel looks at 256 bytes; the name of an ELF interpreter
// stands soon after the program headers.
const maxHead = 8 << 10

// machines names ELF machines as image platforms do.
var machines = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_386: "386", elf.EM_AARCH64: "arm64", elf.EM_ARM: "arm",
	elf.EM_RISCV: "riscv64", elf.EM_PPC64: "ppc64le", elf.EM_S390: "s390x",
	elf.EM_MIPS: "mips", elf.EM_LOONGARCH: "loong64",
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
	const minHeader = 52 // of 32-bit ELF
	if len(head) < minHeader || !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return program{}
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	machine := elf.Machine(order.Uint16(head[18:]))
	p := program{arch: machines[machine]}
	if p.arch == "" {
		p.arch = strings.ToLower(strings.TrimPrefix(machine.String(), "EM_"))
	}
	f, err := elf.NewFile(onlyHead{bytes.NewReader(head)})
	if err != nil {
		return p
	}
	for _, ph := range f.Progs {
		if ph.Type != elf.PT_INTERP || ph.Filesz > maxHead {
			continue
		}
		name, err := io.ReadAll(io.LimitReader(ph.Open(), maxHead))
		if err == nil {
			p.interpreter = string(bytes.TrimRight(name, "\x00"))
		}
	}
	return p
}

// onlyHead hides the section headers of an ELF file, which lie at its end:
// without them debug/elf is content with the head.
type onlyHead struct{ r *bytes.Reader }

func (h onlyHead) ReadAt(p []byte, off int64) (int, error) {
	n, err := h.r.ReadAt(p, off)
	hide := func(at, size int64) {
		for i := max(at, off); i < min(at+size, off+int64(n)); i++ {
			p[i-off] = 0
		}
	}
	if ident := make([]byte, 5); off < 64 {
		if _, err := h.r.ReadAt(ident, 0); err == nil && elf.Class(ident[elf.EI_CLASS]) == elf.ELFCLASS64 {
			hide(0x28, 8) // e_shoff
			hide(0x3c, 4) // e_shnum, e_shstrndx
		} else {
			hide(0x20, 4)
			hide(0x30, 4)
		}
	}
	return n, err
}

// wrongArch says that a program is for another machine, or "".
func (p program) wrongArch() string {
	if p.arch == "" || p.arch == runtime.GOARCH {
		return ""
	}
	return fmt.Sprintf("the program is for %s, this machine is %s", p.arch, runtime.GOARCH)
}
