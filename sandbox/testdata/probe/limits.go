//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// eat uses so many MiB of memory.
func eat(mib int) {
	b, err := unix.Mmap(-1, 0, mib<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	fatal(err)
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	fmt.Println("ate")
}

// feed lets a child eat, and tells how that ended.
func feed(mib string) {
	err := exec.Command("/bin/probe", "eat", mib).Run()
	fmt.Println("child:", err)
}

// forkAll makes processes until it is refused, at most so many, and ends them
// again.
func forkAll(most int) map[string]any {
	var pids []int
	err := "none"
	for len(pids) < most {
		pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if e != 0 {
			err = unix.ErrnoName(e)
			break
		}
		for pid == 0 { // the child
			unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
		pids = append(pids, int(pid))
	}
	tasks, terr := os.ReadDir("/proc/self/task")
	fatal(terr)
	for _, pid := range pids {
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
	}
	return map[string]any{"Forked": len(pids), "Threads": len(tasks), "Err": err}
}

// spin computes for a while, and tells how much of it, in milliseconds, it got,
// and what it sees of its place.
func spin(d time.Duration) map[string]any {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
	var use unix.Rusage
	fatal(unix.Getrusage(unix.RUSAGE_SELF, &use))
	used := time.Duration(use.Utime.Nano() + use.Stime.Nano())
	var set unix.CPUSet
	fatal(unix.SchedGetaffinity(0, &set))
	group, err := os.ReadFile("/proc/self/cgroup")
	fatal(err)
	return map[string]any{"Used": used.Milliseconds(), "CPUs": set.Count(), "Cgroup": strings.Fields(string(group))}
}
