//go:build linux && !386 && !arm && !mips && !mipsle && !amd64 && !arm64

package sandbox

import (
	"syscall"

	"github.com/imgpack/imgpack/sandbox/internal/seccomp"
)

// forkFiltered is never called: there are no filters for this architecture.
func forkFiltered(string, []string, *syscall.ProcAttr, *seccomp.Filter) (int, error) {
	return 0, syscall.ENOSYS
}
