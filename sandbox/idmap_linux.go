//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// mapIDs says which ids the user namespace has: the caller's own, as 0, or
// every id the caller has, as itself. In the second case files keep their
// owners, and capabilities still reach no further than the sandbox.
func mapIDs(sys *syscall.SysProcAttr, single bool) (err error) {
	if single {
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		return nil
	}
	sys.GidMappingsEnableSetgroups = true
	if sys.UidMappings, err = ownIDs("/proc/self/uid_map"); err != nil {
		return err
	}
	sys.GidMappings, err = ownIDs("/proc/self/gid_map")
	return err
}

// ownIDs reads the ids of the caller's user namespace and maps each to itself.
func ownIDs(file string) ([]syscall.SysProcIDMap, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []syscall.SysProcIDMap
	for line := range strings.Lines(string(b)) {
		var first, outside, size int
		if _, err := fmt.Sscan(line, &first, &outside, &size); err != nil {
			return nil, fmt.Errorf("parse %s: %w", file, err)
		}
		out = append(out, syscall.SysProcIDMap{ContainerID: first, HostID: first, Size: size})
	}
	return out, nil
}
