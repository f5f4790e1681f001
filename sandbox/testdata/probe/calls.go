//go:build linux

package main

import (
	"fmt"
	"os"
	"os/signal"
	"unsafe"

	"golang.org/x/sys/unix"
)

// calls makes system calls that a filter is to refuse, and some that it is not.
func calls() map[string]string {
	m := status("NoNewPrivs", "Seccomp", "Seccomp_filters")
	zero := make([]byte, 4096)
	p := uintptr(unsafe.Pointer(&zero[0]))
	for name, c := range map[string][4]uintptr{
		"add_key": {unix.SYS_ADD_KEY, p, p, p}, "keyctl": {unix.SYS_KEYCTL, 0, ^uintptr(2), 0}, "request_key": {unix.SYS_REQUEST_KEY, p, p, 0},
		"bpf": {unix.SYS_BPF, 5, p, 48}, "perf_event_open": {unix.SYS_PERF_EVENT_OPEN, p, 0, ^uintptr(0)},
		"userfaultfd": {unix.SYS_USERFAULTFD, 1, 0, 0}, "io_uring_setup": {unix.SYS_IO_URING_SETUP, 1, p, 0},
		"kexec_load": {unix.SYS_KEXEC_LOAD, 0, 0, p}, "init_module": {unix.SYS_INIT_MODULE, p, 0, p},
		"open_by_handle_at": {unix.SYS_OPEN_BY_HANDLE_AT, 0, p, 0}, "quotactl": {unix.SYS_QUOTACTL, 0, p, 0},
		"acct": {unix.SYS_ACCT, 0, 0, 0}, "swapon": {unix.SYS_SWAPON, p, 0, 0}, "reboot": {unix.SYS_REBOOT, 0, 0, 0},
		"settimeofday": {unix.SYS_SETTIMEOFDAY, p, 0, 0}, "syslog": {unix.SYS_SYSLOG, 3, p, 16}, "unshare": {unix.SYS_UNSHARE, unix.CLONE_NEWUSER, 0, 0},
		"setns": {unix.SYS_SETNS, 0, 0, 0}, "clone user": {unix.SYS_CLONE, unix.CLONE_NEWUSER | uintptr(unix.SIGCHLD), 0, 0},
		"clone3": {unix.SYS_CLONE3, p, 8, 0}, "personality": {unix.SYS_PERSONALITY, 0x40000, 0, 0}, "personality 0": {unix.SYS_PERSONALITY, 0, 0, 0},
		"x32": {unix.SYS_GETPID | 0x40000000, 0, 0, 0}, "new call": {2000, 0, 0, 0}, "getpid": {unix.SYS_GETPID, 0, 0, 0},
	} {
		r, _, e := unix.RawSyscall(c[0], c[1], c[2], c[3])
		if e == 0 && name == "clone user" && r == 0 {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		m[name] = name2(e)
	}
	m["alg"] = socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
	m["vsock"] = socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	m["packet"] = socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	m["unix"] = socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	m["mkdir"] = name(os.Mkdir("/tmp/made", 0o700))
	terminal(m)
	return m
}

func name2(e unix.Errno) string {
	if e == 0 {
		return "ok"
	}
	return name(e)
}

// terminal pushes input into a terminal of its own, which the kernel alone
// would allow it to.
func terminal(m map[string]string) {
	signal.Ignore(unix.SIGHUP) // comes when the terminal is closed
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		m["terminal"] = name(err)
		return
	}
	defer unix.Close(master)
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	}
	var tty int
	if err == nil {
		tty, err = unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR, 0) // a session leader's: it becomes the controlling one
	}
	m["terminal"] = name(err)
	if err != nil {
		return
	}
	defer unix.Close(tty)
	c := byte('x')
	for op, nr := range map[string]uintptr{"sti": unix.TIOCSTI, "sti high": 1<<32 | unix.TIOCSTI, "linux": 0x541c, "linux high": 1<<63 | 0x541c} {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(tty), nr, uintptr(unsafe.Pointer(&c)))
		m[op] = name2(e)
	}
}
