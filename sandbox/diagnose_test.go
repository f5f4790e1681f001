package sandbox

import (
	"debug/elf"
	"encoding/binary"
	"strings"
	"testing"
)

// tinyELF is a 64-bit ELF program for machine with one loaded segment, and an
// interpreter when interp is not empty.
func tinyELF(machine elf.Machine, code, interp string) string {
	const base, headers = 0x400000, 64 + 2*56
	b := make([]byte, headers)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], uint16(elf.ET_EXEC))
	le.PutUint16(b[18:], uint16(machine))
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], base+headers) // entry
	le.PutUint64(b[32:], 64)           // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	body := code
	size := uint64(headers + len(code))
	load := b[64:]
	if interp != "" {
		le.PutUint16(b[56:], 2)
		p := b[64:]
		le.PutUint32(p, uint32(elf.PT_INTERP))
		le.PutUint32(p[4:], 4)
		le.PutUint64(p[8:], size)
		le.PutUint64(p[32:], uint64(len(interp)+1))
		le.PutUint64(p[40:], uint64(len(interp)+1))
		le.PutUint64(p[48:], 1)
		body += interp + "\x00"
		load = b[64+56:]
	}
	le.PutUint32(load, uint32(elf.PT_LOAD))
	le.PutUint32(load[4:], 5)
	le.PutUint64(load[16:], base)
	le.PutUint64(load[24:], base)
	le.PutUint64(load[32:], uint64(headers+len(body)))
	le.PutUint64(load[40:], uint64(headers+len(body)))
	le.PutUint64(load[48:], 0x1000)
	return string(b) + body
}

func TestInspect(t *testing.T) {
	for _, c := range []struct {
		name, head string
		want       program
	}{
		{"empty", "", program{}},
		{"text", "echo hello\n", program{}},
		{"script", "#!/bin/sh -e\necho\n", program{script: true, interpreter: "/bin/sh"}},
		{"script, spaces", "#! \t/bin/sh\r\n", program{script: true, interpreter: "/bin/sh"}},
		{"script, nothing", "#!\n", program{script: true}},
		{"static", tinyELF(elf.EM_X86_64, "\x90", ""), program{arch: "amd64"}},
		{"dynamic", tinyELF(elf.EM_AARCH64, "\x90", "/lib/ld-linux-aarch64.so.1"), program{arch: "arm64", interpreter: "/lib/ld-linux-aarch64.so.1"}},
		{"cut", tinyELF(elf.EM_RISCV, "", "/lib/ld.so")[:64], program{arch: "riscv64"}},
		{"unknown", tinyELF(elf.EM_SPARCV9, "", ""), program{arch: "ELF machine 43"}},
		{"32 bits", tinyELF32(binary.BigEndian, elf.EM_MIPS, "/lib/ld.so.1"), program{arch: "mips", interpreter: "/lib/ld.so.1"}},
		{"headers far away", tinyELF(elf.EM_X86_64, "", "")[:32] + strings.Repeat("\xff", 64), program{arch: "amd64"}},
		{"sections beyond", withSections(tinyELF(elf.EM_X86_64, "\x90", "/lib/ld.so")), program{arch: "amd64", interpreter: "/lib/ld.so"}},
	} {
		if got := inspect([]byte(c.head)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// tinyELF32 is the head of a 32-bit program with an interpreter.
func tinyELF32(order binary.ByteOrder, machine elf.Machine, interp string) string {
	b := make([]byte, 52+32)
	copy(b, "\x7fELF\x01\x02\x01")
	order.PutUint16(b[18:], uint16(machine))
	order.PutUint32(b[28:], 52) // program headers
	order.PutUint16(b[42:], 32)
	order.PutUint16(b[44:], 1)
	order.PutUint32(b[52:], uint32(elf.PT_INTERP))
	order.PutUint32(b[56:], uint32(len(b)))
	order.PutUint32(b[68:], uint32(len(interp)+1))
	return string(b) + interp + "\x00"
}

// withSections claims section headers far behind the head, as real programs do.
func withSections(s string) string {
	b := []byte(s)
	binary.LittleEndian.PutUint64(b[40:], 1<<30)
	binary.LittleEndian.PutUint16(b[58:], 64)
	binary.LittleEndian.PutUint16(b[60:], 30)
	binary.LittleEndian.PutUint16(b[62:], 29)
	return string(b)
}

func FuzzInspect(f *testing.F) {
	f.Add([]byte("#!/bin/sh\n"))
	f.Add([]byte(tinyELF(elf.EM_X86_64, "\x90", "/lib/ld.so")))
	f.Add([]byte(withSections(tinyELF(elf.EM_AARCH64, "", "/lib/ld.so"))))
	f.Fuzz(func(t *testing.T, head []byte) {
		p := inspect(head)
		if len(p.interpreter) > len(head) || len(p.interpreter) > maxHead {
			t.Errorf("interpreter of %d bytes from %d", len(p.interpreter), len(head))
		}
		if strings.ContainsAny(p.arch, "\n\x1b") {
			t.Errorf("arch %q", p.arch)
		}
	})
}
