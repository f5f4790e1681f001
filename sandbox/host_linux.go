//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/early"
)

const usernsHint = "an administrator can allow user namespaces with sysctl, or give this program an AppArmor profile with userns; root needs none"

// usernsSettings are the switches by which distributions forbid user
// namespaces to ordinary users, and the value that does so.
var usernsSettings = []struct{ file, name, value string }{
	{"/proc/sys/user/max_user_namespaces", "user.max_user_namespaces", "0"},
	{"/proc/sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone", "0"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "kernel.apparmor_restrict_unprivileged_userns", "1"},
}

// usernsSetting names the setting at fault, or "".
func usernsSetting() string {
	for _, s := range usernsSettings {
		b, err := os.ReadFile(s.file)
		if err == nil && strings.TrimSpace(string(b)) == s.value {
			return s.name + "=" + s.value
		}
	}
	return ""
}

// startFault turns the error of making the namespaces into one that says what
// is forbidden.
func startFault(p *plan, err error) error {
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL, unix.ENOSYS} {
		if !errors.Is(err, e) {
			continue
		}
		if p.UserNS {
			return &UnsupportedError{Feature: "user namespaces", Setting: usernsSetting(), Err: e, Hint: usernsHint}
		}
		return &UnsupportedError{Feature: "namespaces", Err: e, Hint: "the kernel must allow pid, mount, network, ipc, uts and cgroup namespaces"}
	}
	return &StartError{Step: "start process 1", Code: CodeStart, Err: err}
}

// protectedExe returns this program in a form that the sandbox cannot write,
// chmod or chown, should an image get hold of it (CVE-2019-5736), and a line
// that says how.
// With remap, process 1 is somebody else already when it is executed.
func protectedExe(single, remap bool) (fd int, how string, err error) {
	const self = "/proc/self/exe"
	if remap && !forAll(self) {
		fd, err = sealedCopy(self)
		return fd, "program: sealed copy in memory", err
	}
	if !single {
		fd, err := early.ReadOnlyProgram()
		if err == nil {
			return fd, early.ReadOnlyMount, nil
		}
	}
	if !ownsFile(self) {
		fd, err := unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return fd, "program: not writable by the caller", err
	}
	fd, err = sealedCopy(self)
	return fd, "program: sealed copy in memory", err
}

// forAll says whether everybody may execute file.
func forAll(file string) bool {
	var st unix.Stat_t
	return unix.Stat(file, &st) == nil && st.Mode&0o001 != 0
}

// ownsFile says whether the caller could change file.
func ownsFile(file string) bool {
	var st unix.Stat_t
	err := unix.Stat(file, &st)
	return err != nil || int(st.Uid) == os.Geteuid() || unix.Faccessat(unix.AT_FDCWD, file, unix.W_OK, unix.AT_EACCESS) == nil
}

// sealedCopy copies file into memory that nobody can change any more.
func sealedCopy(file string) (int, error) {
	src, err := os.Open(file)
	if err != nil {
		return -1, err
	}
	defer src.Close()
	fd, err := unix.MemfdCreate(early.Name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 all are executable
		fd, err = unix.MemfdCreate(early.Name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("make memory file: %w", err)
	}
	mem := os.NewFile(uintptr(fd), early.Name)
	defer mem.Close()
	if _, err := io.Copy(mem, src); err != nil {
		return -1, fmt.Errorf("copy program: %w", err)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return -1, fmt.Errorf("seal program: %w", err)
	}
	// A file open for writing cannot be executed, so this second, read-only
	// descriptor outlives the first.
	return unix.Open(fdPath(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}
