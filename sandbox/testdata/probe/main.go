//go:build linux

// Probe runs inside a sandbox and tells what it can do there. It is built
// static and put into test images.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"hello"}
	}
	cmd, ok := commands[args[0]]
	if !ok {
		fmt.Fprintln(os.Stderr, "probe: no command", args[0])
		os.Exit(99)
	}
	cmd(args[1:])
}

var commands = map[string]func([]string){
	"hello": func(a []string) { fmt.Println(strings.Join(append([]string{"hello"}, a...), " ")) },
	"args":  func([]string) { emit(os.Args) },
	"env":   func([]string) { emit(os.Environ()) },
	"exit":  func(a []string) { os.Exit(number(a[0])) },
	"die":   func(a []string) { die(unix.Signal(number(a[0]))) },
	"cat":   func([]string) { io.Copy(os.Stdout, os.Stdin) },
	"read":  func(a []string) { b, err := os.ReadFile(a[0]); fmt.Print(string(b)); fatal(err) },
	"write": func(a []string) { fatal(os.WriteFile(a[0], []byte(a[1]), 0o644)) },
	"writable": func(a []string) {
		for _, p := range a {
			fmt.Println(p, name(os.WriteFile(p, []byte("x"), 0o644)))
		}
	},
	"await":     func(a []string) { await(a[0], a[1]) },
	"sleep":     func(a []string) { fmt.Println("ready"); time.Sleep(time.Duration(number(a[0])) * time.Millisecond) },
	"signals":   func([]string) { waitSignal() },
	"stubborn":  func(a []string) { stubborn(a) },
	"orphan":    func([]string) { orphan() },
	"abandon":   func([]string) { abandon() },
	"oneiskill": func([]string) { oneIsKill() },
	"killone": func(a []string) {
		for _, n := range a {
			fatal(unix.Kill(1, unix.Signal(number(n))))
		}
	},
	"identity": func([]string) { emit(identity()) },
	"isolate":  func(a []string) { emit(isolate(a)) },
	"ruin":     func([]string) { emit(ruin()) },
	"streams":  func([]string) { emit(streams()) },
	"exe":      func([]string) { emit(stealExe()) },
	"calls":    func([]string) { emit(calls()) },
	"where": func([]string) {
		wd, err := os.Getwd()
		l, _ := os.Readlink("/proc/self/cwd")
		emit([]any{wd, l, fmt.Sprint(err)})
	},
	"eat":     func(a []string) { eat(number(a[0])) },
	"feed":    func(a []string) { feed(a[0]) },
	"fork":    func(a []string) { emit(forkAll(number(a[0]))) },
	"spin":    func(a []string) { emit(spin(time.Duration(number(a[0])) * time.Millisecond)) },
	"ls":      func(a []string) { emit(names(a[0])) },
	"statdir": func(a []string) { statDir(a[0]) },
	"chown":   func(a []string) { fatal(os.Chown(a[0], number(a[1]), -1)) },
}

// await makes a file, waits until somebody removes it, and looks at another.
func await(signal, then string) {
	fatal(os.WriteFile(signal, nil, 0o666))
	for range 1000 {
		if _, err := os.Stat(signal); err != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	_, err := os.Stat(then)
	fmt.Println(name(err))
}

func emit(v any) {
	b, err := json.Marshal(v)
	fatal(err)
	fmt.Println(string(b))
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(98)
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	fatal(err)
	return n
}

// name is "ok" or the name of the errno.
func name(err error) string {
	var e syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func pids() []string {
	var out []string
	for _, n := range names("/proc") {
		if _, err := strconv.Atoi(n); err == nil {
			out = append(out, n)
		}
	}
	return out
}

func names(dir string) []string {
	es, _ := os.ReadDir(dir)
	out := []string{}
	for _, e := range es {
		out = append(out, e.Name())
	}
	sort.Strings(out)
	return out
}

func statDir(p string) {
	var st unix.Stat_t
	fatal(unix.Stat(p, &st))
	fmt.Printf("%d:%d %o\n", st.Uid, st.Gid, st.Mode&0o7777)
}

func status(keys ...string) map[string]string {
	b, _ := os.ReadFile("/proc/self/status")
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		for _, want := range keys {
			if k == want {
				out[k] = strings.Join(strings.Fields(v), " ")
			}
		}
	}
	return out
}

// oneIsKill waits until process 1 has no capability but CAP_KILL: it drops the
// others when this program has been started.
func oneIsKill() {
	var last string
	for range 100 {
		b, _ := os.ReadFile("/proc/1/status")
		last = string(b)
		if strings.Contains(last, "CapPrm:\t0000000000000020\nCapEff:\t0000000000000020\n") && strings.Contains(last, "NoNewPrivs:\t1\n") {
			fmt.Println("ok")
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println(last)
}

func identity() map[string]string {
	out := status("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
		"SigBlk", "SigIgn", "Umask")
	var l unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_CORE, &l)
	out["core"] = fmt.Sprint(l.Cur, " ", l.Max)
	b, _ := os.ReadFile("/proc/self/limits")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max open files") {
			out["procnofile"] = f[3] + " " + f[4]
		}
	}
	out["euid"] = fmt.Sprint(os.Geteuid())
	out["host"], _ = os.Hostname()
	sid, _ := unix.Getsid(0)
	out["leader"] = fmt.Sprint(sid == os.Getpid())
	return out
}

func try(path string, flags int) string {
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == nil {
		unix.Close(fd)
	}
	return name(err)
}

func size(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return name(err)
	}
	return fmt.Sprint(len(b))
}

// isolate makes most of the checks: arguments are a host pid, an abstract
// socket, a TCP port and a socket path of the host, and a System V key.
func isolate(a []string) map[string]string {
	m := map[string]string{}
	m["pids"] = fmt.Sprint(len(pids()))
	m["kill"] = name(unix.Kill(number(a[0]), 0))
	mounts(m)
	for _, p := range []string{
		"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/panic_on_oom", "/proc/sys/kernel/hotplug",
		"/proc/sysrq-trigger", "/sys/power/state", "/sys/kernel/uevent_helper", "/proc/irq/default_smp_affinity",
	} {
		m["write "+p] = try(p, unix.O_WRONLY)
	}
	for _, p := range []string{"kcore", "keys", "timer_list", "sched_debug", "interrupts", "latency_stats"} {
		m["size "+p] = size("/proc/" + p)
	}
	m["kallsyms"] = kallsyms()
	m["mknod b"] = name(unix.Mknod("/b", unix.S_IFBLK|0o600, int(unix.Mkdev(8, 0))))
	m["mknod c"] = name(unix.Mknod("/c", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1))))
	m["open image device"] = try("/mem", unix.O_RDONLY)
	m["dev"] = strings.Join(names("/dev"), " ")
	for _, d := range []string{"null", "zero", "full", "random", "urandom"} {
		m["dev "+d] = try("/dev/"+d, unix.O_RDWR)
	}
	m["chmod null"] = name(unix.Chmod("/dev/null", 0o600))
	m["pty"] = try("/dev/ptmx", unix.O_RDWR)
	m["user namespace"] = name(namespace(unix.CLONE_NEWUSER))
	m["mount namespace"] = name(namespace(unix.CLONE_NEWNS))
	processOne(m)
	m["sethostname"] = name(unix.Sethostname([]byte("x")))
	m["oom"] = name(os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0))
	m["swapon"] = name(errnoOf(unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(&[]byte("/x\x00")[0])), 0, 0)))
	m["reboot"] = name(unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF))
	m["module"] = name(unix.InitModule([]byte("x"), ""))
	m["packet"] = socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	m["raw"] = socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	network(m, a[1], a[2], a[3])
	_, err := unix.SysvShmGet(number(a[4]), 1, 0)
	m["shm"] = name(err)
	m["fds"] = strings.Join(fds(), " ")
	b, _ := os.ReadFile("/proc/self/mountinfo")
	m["mountinfo"] = string(b)
	m["root"] = strings.Join(names("/"), " ")
	m["release_agent"] = strings.Join(names("/sys/fs/cgroup"), " ")
	return m
}

func errnoOf(_, _ uintptr, e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func namespace(flags uintptr) error {
	c := exec.Command("/proc/self/exe", "hello")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	return c.Run()
}

func mounts(m map[string]string) {
	m["mount"] = name(unix.Mount("t", "/tmp", "tmpfs", 0, ""))
	_, err := unix.Fsopen("tmpfs", 0)
	m["fsopen"] = name(err)
	_, err = unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE)
	m["open_tree"] = name(err)
	m["move_mount"] = name(unix.MoveMount(unix.AT_FDCWD, "/proc/sys", unix.AT_FDCWD, "/tmp", 0))
	m["remount"] = name(unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	m["setattr"] = name(unix.MountSetattr(unix.AT_FDCWD, "/proc/sys", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}))
	m["umount kcore"] = name(unix.Unmount("/proc/kcore", 0))
	m["umount keys"] = name(unix.Unmount("/proc/keys", unix.MNT_DETACH))
	m["pivot"] = name(unix.PivotRoot("/", "/"))
	m["cgroup mount"] = name(unix.Mount("c", "/tmp", "cgroup", 0, "memory"))
}

func kallsyms() string {
	b, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return "0"
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if strings.Trim(strings.Fields(line)[0], "0") != "" {
			n++
		}
	}
	return fmt.Sprint(n)
}

func processOne(m map[string]string) {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1, 0, 0, 0, 0)
	m["ptrace 1"] = name(errnoOf(0, 0, e))
	for _, f := range []string{"environ", "mem", "maps", "fd/0", "fd/3", "root", "exe", "cwd"} {
		m["open 1 "+f] = try("/proc/1/"+f, unix.O_RDONLY)
	}
	for _, ns := range []string{"mnt", "pid", "net", "user", "ipc"} {
		fd, err := unix.Open("/proc/1/ns/"+ns, unix.O_RDONLY, 0)
		if err == nil {
			err = unix.Setns(fd, 0)
		}
		if fd >= 0 {
			unix.Close(fd)
		}
		m["setns "+ns] = name(err)
	}
	fd, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY, 0)
	if err == nil {
		err = unix.Setns(fd, 0)
		unix.Close(fd)
	}
	m["setns self"] = name(err)
	b, _ := os.ReadFile("/proc/1/cmdline")
	m["cmdline 1"] = strings.TrimRight(string(b), "\x00")
}

func socket(family, typ, proto int) string {
	fd, err := unix.Socket(family, typ, proto)
	if err == nil {
		unix.Close(fd)
	}
	return name(err)
}

func network(m map[string]string, abstract, port, path string) {
	b, _ := os.ReadFile("/proc/net/dev")
	var ifs []string
	for line := range strings.Lines(string(b)) {
		if n, _, ok := strings.Cut(line, ":"); ok {
			ifs = append(ifs, strings.TrimSpace(n))
		}
	}
	m["interfaces"] = strings.Join(ifs, " ")
	_, err := net.Dial("unix", "@"+abstract)
	m["abstract"] = name(err)
	_, err = net.Dial("tcp", "127.0.0.1:"+port)
	m["host port"] = name(err)
	_, err = net.Dial("unix", path)
	m["host socket"] = name(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		_, err = net.Dial("tcp", l.Addr().String())
	}
	m["loopback"] = name(err)
}

// fds lists open descriptors that this program did not open.
func fds() []string {
	var out []string
	for _, n := range names("/proc/self/fd") {
		to, _ := os.Readlink("/proc/self/fd/" + n)
		if strings.HasPrefix(to, "anon_inode:") || strings.HasPrefix(to, "socket:") || strings.HasSuffix(to, "/fd") || to == "" {
			continue // the runtime's poller, sockets of network(), this listing
		}
		if i, _ := strconv.Atoi(n); i > 2 {
			to = n + "=" + to
		} else {
			to = n
		}
		out = append(out, to)
	}
	return out
}

// streams looks at what 0, 1 and 2 are and tries to abuse them.
func streams() map[string]string {
	m := map[string]string{}
	for fd := range 3 {
		p := "/proc/self/fd/" + strconv.Itoa(fd)
		to, _ := os.Readlink(p)
		m[fmt.Sprint(fd)] = to
		c := byte('x')
		for op, nr := range map[string]uintptr{"sti": unix.TIOCSTI, "sti high": 1<<32 | unix.TIOCSTI, "linux": 0x541c} {
			_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nr, uintptr(unsafe.Pointer(&c)))
			m[fmt.Sprint(op, " ", fd)] = name(errnoOf(0, 0, e))
		}
		if strings.HasPrefix(to, "/") {
			m[fmt.Sprint("chmod ", fd)] = name(unix.Fchmod(fd, 0o4777))
		}
	}
	return m
}

// ruin does all it can to the image's files.
func ruin() map[string]int {
	n := map[string]int{}
	filepath.WalkDir("/", func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if p == "/bin/probe" {
			return nil
		}
		for _, skip := range []string{"/proc", "/sys", "/dev"} {
			if p == skip && d.IsDir() {
				return filepath.SkipDir
			}
		}
		if unix.Lsetxattr(p, "user.overlay.opaque", []byte("y"), 0) == nil {
			n["xattr"]++
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			fmt.Fprint(f, "ruined")
			f.Close()
			n["written"]++
		}
		if os.Chmod(p, 0o4777) == nil {
			n["chmod"]++
		}
		if os.Rename(p, p+".gone") == nil {
			n["renamed"]++
		}
		if os.Link(p+".gone", p+".link") == nil {
			n["linked"]++
		}
		if os.Remove(p+".gone") == nil {
			n["removed"]++
		}
		return nil
	})
	os.RemoveAll("/etc")
	os.Mkdir("/etc", 0o700)
	return n
}

// stealExe tries to change the program behind /proc/1/exe and /proc/self/exe.
func stealExe() map[string]string {
	m := map[string]string{}
	for _, p := range []string{"/proc/1/exe", "/proc/self/exe"} {
		m["write "+p] = try(p, unix.O_WRONLY)
	}
	for _, pid := range pids() {
		p := "/proc/" + pid + "/exe"
		to, err := os.Readlink(p)
		m["link "+pid] = to + " " + name(err)
	}
	return m
}
