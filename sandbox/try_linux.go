//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// Try runs the smallest program there is as Run would run Spec's, over a layer
// that it makes in a directory like State, and removes again. It returns what
// Run explained. Lower, Args and User of s are not looked at.
func Try(ctx context.Context, dir string, s Spec) (steps []string, err error) {
	own, err := newRunDir(dir) // swept if this is killed
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, own.remove()) }()
	layer := filepath.Join(own.path, "upper")
	program := filepath.Join(layer, "true")
	if err := os.WriteFile(program, nothing(), 0o600); err != nil {
		return nil, err
	}
	if err := os.Chmod(program, 0o755); err != nil {
		return nil, err
	}
	s.Lower, s.Args, s.User = []string{layer}, []string{"/true"}, ""
	s.Explain = func(step string) { steps = append(steps, step) }
	st, err := Run(ctx, s)
	if err == nil && st.Code != 0 {
		err = fmt.Errorf("a program that does nothing ended with %d", st.Code)
	}
	return steps, err
}

// nothing is a program for this machine that ends at once, with 0.
func nothing() []byte {
	machine, code := uint16(elfAMD64), "\xb8\xe7\x00\x00\x00\x31\xff\x0f\x05" // mov eax, 231; xor edi, edi; syscall
	if runtime.GOARCH == "arm64" {
		machine, code = elfARM64, "\xc8\x0b\x80\xd2\x00\x00\x80\xd2\x01\x00\x00\xd4" // mov x8, 94; mov x0, 0; svc 0
	}
	const base, headers = 0x400000, 64 + 56
	b := make([]byte, headers, headers+len(code))
	copy(b, elfMagic+"\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], elfExecutable)
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)            // version
	le.PutUint64(b[24:], base+headers) // entry
	le.PutUint64(b[32:], 64)           // program headers
	le.PutUint16(b[52:], 64)           // size of this header
	le.PutUint16(b[54:], 56)           // of a program header
	le.PutUint16(b[56:], 1)            // their number
	p := b[64:]
	le.PutUint32(p, elfLoad)
	le.PutUint32(p[4:], 4|1) // to be read and executed
	le.PutUint64(p[16:], base)
	le.PutUint64(p[24:], base)
	le.PutUint64(p[32:], uint64(headers+len(code)))
	le.PutUint64(p[40:], uint64(headers+len(code)))
	le.PutUint64(p[48:], 0x1000)
	return append(b, code...)
}
