//go:build linux && (amd64 || arm64)

// Package startlimit knows the limit of open files that the process was started
// with. Package syscall raises it when it is initialized, and gives the old one
// to programs that it starts itself, but tells it nobody.
//
// It comes before syscall because it imports nothing: of the packages that can
// be initialized next, Go takes the one whose path sorts first.
package startlimit

import "unsafe"

// Nofile is RLIMIT_NOFILE at the start, soft and hard; zeros if unknown.
var Nofile [2]uint64

// rawSyscall6 is syscall's, which needs no initialization.
//
//go:linkname rawSyscall6 syscall.RawSyscall6
func rawSyscall6(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2, errno uintptr)

func init() {
	const rlimitNofile = 7
	rawSyscall6(sysPrlimit, 0, rlimitNofile, 0, uintptr(unsafe.Pointer(&Nofile)), 0, 0)
}
