//go:build linux

package seccomp

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Filter is a compiled profile. It is plain data, which another process may
// install.
type Filter struct {
	Program     []byte // of struct sock_filter, in the machine's byte order
	Flags       uint32 // of seccomp(2)
	Allowed     int    // calls of the architecture that are let through
	Conditional int    // calls of which arguments decide
}

// instructionSize is struct sock_filter's.
const instructionSize = int(unsafe.Sizeof(unix.SockFilter{}))

func encode(program []unix.SockFilter) []byte {
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(program))), len(program)*instructionSize)
	return append([]byte(nil), b...)
}

// Prog is the filter as seccomp(2) and prctl(2) take it. It points into Program,
// which must stay reachable.
func (f *Filter) Prog() unix.SockFprog {
	return unix.SockFprog{
		Len:    uint16(len(f.Program) / instructionSize),
		Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.SliceData(f.Program))),
	}
}

// Install puts the filter on the calling thread, for good, and on what that
// thread starts. The caller has locked the thread and set no_new_privs on it.
func (f *Filter) Install() error {
	prog := f.Prog()
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(f)
	if e != 0 {
		return e
	}
	return nil
}
