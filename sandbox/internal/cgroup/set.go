//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// minMemory is docker's least limit: less has no room for a process.
const minMemory = 6 << 20

// check refuses limits that make no sense, whatever the host.
func (l Limits) check() error {
	switch {
	case l.MemorySwap != 0 && l.Memory == 0:
		return &UnenforceableError{Limit: "swap", Reason: "memory must be limited too"}
	case l.Memory != 0 && (l.Memory < minMemory || l.Memory > math.MaxInt64/2):
		return &UnenforceableError{Limit: "memory", Reason: fmt.Sprintf("%d bytes are less than 6 MiB, or more than there can be", l.Memory)}
	case l.MemorySwap < -1 || l.MemorySwap > 0 && l.MemorySwap < l.Memory:
		return &UnenforceableError{Limit: "swap", Reason: "the limit counts memory and swap together, and must be no less than that of memory"}
	case l.Pids < 0:
		return &UnenforceableError{Limit: "the number of processes", Reason: fmt.Sprintf("%d are too few", l.Pids)}
	case l.CPUs != 0 && !(l.CPUs >= 0.01 && l.CPUs <= float64(runtime.NumCPU())):
		return &UnenforceableError{Limit: "processor time", Reason: fmt.Sprintf("%v processors are not between 0.01 and %d, which is what there is", l.CPUs, runtime.NumCPU())}
	}
	return nil
}

// set writes one limit, and proves that the kernel has taken it where it may
// quietly take less.
func (g *Group) set(l Limits, n need) error {
	d := g.of[n.controller]
	var err error
	switch n.controller {
	case "memory":
		err = g.setMemory(d, l)
	case "cpu":
		err = g.setCPUs(d, l.CPUs)
	case "cpuset":
		err = g.setCPUSet(d, l.CPUSet)
	case "pids":
		g.note("limit: %d processes and threads", l.Pids)
		err = write(d.path, "pids.max", strconv.FormatInt(l.Pids, 10))
	}
	var un *UnenforceableError
	if err == nil || errors.As(err, &un) {
		return err
	}
	return &UnenforceableError{Limit: n.limit, Reason: "the kernel does not take the value", Err: bare(err),
		Remedy: "the cgroup that the caller is in may have less itself"}
}

func (g *Group) note(format string, args ...any) {
	g.notes = append(g.notes, fmt.Sprintf(format, args...))
}

func (g *Group) setMemory(d *dir, l Limits) error {
	both := l.MemorySwap
	asked := both != 0
	if !asked {
		both = 2 * l.Memory
	}
	var err error
	if d.v2 {
		err = writeMemoryV2(d.path, l.Memory, both)
	} else {
		err = writeMemoryV1(d.path, l.Memory, both)
	}
	var un *UnenforceableError
	switch {
	case err == nil && both == -1:
		g.note("limit: %d bytes of memory, and any of swap", l.Memory)
	case err == nil:
		g.note("limit: %d bytes of memory, %d of swap", l.Memory, both-l.Memory)
	case errors.As(err, &un) && !asked:
		g.note("limit: %d bytes of memory", l.Memory)
		g.note("degraded: swap is not limited: the kernel does not account for it")
		return nil
	}
	return err
}

func writeMemoryV1(dir string, memory, both int64) error {
	if err := write(dir, "memory.limit_in_bytes", strconv.FormatInt(memory, 10)); err != nil {
		return err
	}
	return noSwapFile(write(dir, "memory.memsw.limit_in_bytes", strconv.FormatInt(both, 10)), both)
}

func writeMemoryV2(dir string, memory, both int64) error {
	if err := write(dir, "memory.max", strconv.FormatInt(memory, 10)); err != nil {
		return err
	}
	swap := "max"
	if both != -1 {
		swap = strconv.FormatInt(both-memory, 10)
	}
	return noSwapFile(write(dir, "memory.swap.max", swap), both)
}

// noSwapFile explains a kernel without the file that limits swap.
func noSwapFile(err error, both int64) error {
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case both == -1:
		return nil
	}
	return &UnenforceableError{Limit: "swap", Reason: "the kernel does not account for it", Remedy: "an administrator can start the kernel with swapaccount=1"}
}

// period is in which time a quota of processor time is given out, in
// microseconds: the kernel's and docker's own choice.
const period = 100_000

func (g *Group) setCPUs(d *dir, cpus float64) error {
	quota := strconv.FormatInt(int64(math.Round(cpus*period)), 10)
	g.note("limit: %v processors' time", cpus)
	if d.v2 {
		return write(d.path, "cpu.max", quota+" "+strconv.Itoa(period))
	}
	if err := write(d.path, "cpu.cfs_period_us", strconv.Itoa(period)); err != nil {
		return noQuota(err)
	}
	return noQuota(write(d.path, "cpu.cfs_quota_us", quota))
}

func noQuota(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &UnenforceableError{Limit: "processor time", Reason: "the kernel has no quotas of it", Remedy: "a kernel with CONFIG_CFS_BANDWIDTH"}
	}
	return err
}

func (g *Group) setCPUSet(d *dir, list string) error {
	want, err := parseSet(list)
	if err != nil {
		return &UnenforceableError{Limit: "the set of processors", Reason: err.Error()}
	}
	if !d.v2 {
		// A new group has no memory nodes, and could have no process.
		if err := inherit(d.path, "cpuset.mems"); err != nil {
			return err
		}
	}
	werr := write(d.path, "cpuset.cpus", list)
	if werr != nil && !isErrno(werr, unix.EINVAL, unix.ERANGE, unix.EACCES) {
		return werr
	}
	// Version 2 takes what it cannot give, and then gives something else.
	effective := "cpuset.cpus"
	if d.v2 {
		effective = "cpuset.cpus.effective"
	}
	got := ""
	if werr == nil {
		if got, err = read(d.path, effective); err != nil {
			return err
		}
	}
	if set, err := parseSet(strings.TrimSpace(got)); err != nil || !slices.Equal(set, want) {
		return &UnenforceableError{Limit: "the set of processors", Reason: "not all of " + list + " are there for the caller", Err: bare(werr)}
	}
	g.note("limit: processors %s", list)
	return nil
}

// inherit copies a value of the directory above.
func inherit(dir, file string) error {
	value, err := read(dir+"/..", file)
	if err != nil {
		return err
	}
	return write(dir, file, strings.TrimSpace(value))
}

// maxProcessor is more than any kernel has.
const maxProcessor = 1 << 16

// parseSet reads the kernel's lists: "0-2,5".
func parseSet(list string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%q is no list of processors such as 0-2,5", list)
		}
		b, err := strconv.ParseUint(last, 10, 16)
		if err != nil || b < a {
			return nil, fmt.Errorf("%q is no list of processors such as 0-2,5", list)
		}
		for i := a; i <= b; i++ {
			out = append(out, int(i))
			if len(out) > maxProcessor {
				return nil, fmt.Errorf("%q names processors more than once", list)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
