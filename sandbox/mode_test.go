//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// forbidden is a caller in a user namespace of its own, with uid inside, in
// which no further ones can be made.
func forbidden(t *testing.T, im image, uid int) (string, error) {
	t.Helper()
	cmd := call{Lower: []string{im.dir}, Args: []string{"/bin/probe", "hello"}, Forbid: true}.command(t)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getegid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_RESOURCE},
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestForbiddenUserNamespaces: the setting at fault is named.
func TestForbiddenUserNamespaces(t *testing.T) {
	im := newImage(t)
	out, err := forbidden(t, im, 1000)
	if want := "unsupported \"user namespaces\" \"user.max_user_namespaces=0\"\n"; !strings.HasPrefix(out, want) {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}

// TestRootWithoutUserNamespace: root does without where they are forbidden, and
// what needs no user namespace holds all the same.
func TestRootWithoutUserNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	im := newImage(t)
	p, err := newPlan(&Spec{Lower: []string{im.dir}, Args: isolateArgs(newHostSide(t))})
	check(t, err)
	if p.Single {
		t.Skip("needs a root with every capability")
	}
	p.UserNS = false
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	streams, err := openStdio(&Spec{Stdout: w, Stderr: os.Stderr}, p)
	check(t, err)
	defer streams.close()
	var lines []string
	b := &box{plan: p, explain: func(l string) { lines = append(lines, l) }, io: streams}
	done := make(chan string)
	go func() { done <- readAll(r) }()
	st, err := b.run(context.Background(), nil)
	w.Close()
	out := <-done
	if err != nil || st.Code != 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	got := decode[map[string]string](t, out)
	for name, want := range map[string]string{
		"mount": "EPERM", "setns mnt": "EPERM EACCES", "ptrace 1": "EPERM", "open 1 exe": "EPERM EACCES", "mknod c": "EPERM",
		"write /proc/sys/kernel/core_pattern": "EROFS", "chmod null": "EROFS", "packet": "EPERM", "interfaces": "lo",
		"kallsyms": "0", "swapon": "EPERM", "reboot": "EPERM", "module": "EPERM ENOSYS", "oom": "EACCES EPERM",
		"user namespace": "EPERM", // by the filter alone
	} {
		if !anyOf(want, got[name]) {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	checkFDs(t, got["fds"])
	checkMounts(t, got["mountinfo"], im.dir)
	if all := strings.Join(lines, "\n"); !strings.Contains(all, "system calls: ") || strings.Contains(all, "degraded: the command may make user namespaces") {
		t.Errorf("not explained: %q", lines)
	}
}
