//go:build linux && !386 && !arm && !mips && !mipsle && !amd64 && !arm64

package sandbox

import (
	"syscall"

	"github.com/imgpack/imgpack/sandbox/internal/seccomp"
)

// forkFiltered is not to be had: there are no filters for this architecture, and
// nothing that sets limits of the command alone.
func forkFiltered(string, []string, *syscall.ProcAttr, []Rlimit, *seccomp.Filter) (int, error) {
	return 0, inStep("set limits of processes", syscall.ENOSYS)
}
