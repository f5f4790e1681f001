//go:build integration

package integration

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// vmVar asks for virtual machines, which take minutes. Its value is the directory
// in which what they are made of is built, and kept.
const vmVar = "IMGPACK_VM"

// TestVM runs tests on kernels of Debian that systemd has booted: user mode
// Linux, and in virtual machines: TestGuest… of this package, its checks of
// isolation, and the sandbox's own tests.
func TestVM(t *testing.T) {
	dir := os.Getenv(vmVar)
	if dir == "" {
		t.Skip(vmVar + " names no directory for virtual machines")
	}
	if os.Getuid() != 0 {
		t.Fatal("needs root")
	}
	for _, p := range []string{"linux.uml", "qemu-system-x86_64", "mmdebstrap", "mke2fs"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatal(err)
		}
	}
	sh(t, "sh", "vm.sh", dir)
	data := guestData(t)
	bookworm, trixie := dir+"/bookworm.img", dir+"/trixie.img"
	machines := map[string]machine{
		"user mode":             userMode("linux.uml", bookworm, data, ""),
		"user mode version 1":   userMode("linux.uml", bookworm, data, "systemd.unified_cgroup_hierarchy=0"),
		"user mode systemd 257": userMode("linux.uml", trixie, data, ""),
	}
	old, err := filepath.Glob(filepath.Join(dir, "linux-*"))
	if err != nil || len(old) == 0 {
		t.Fatalf("no kernels: %v", err)
	}
	for _, kernel := range old {
		machines["user mode "+filepath.Base(kernel)] = userMode(kernel, bookworm, data, "")
	}
	kernels, err := filepath.Glob(filepath.Join(dir, "vmlinuz-*"))
	if err != nil || len(kernels) == 0 {
		t.Fatalf("no kernels: %v", err)
	}
	for _, kernel := range kernels {
		version, root := strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-"), bookworm
		if strings.HasPrefix(version, "6.8.") { // Ubuntu's; it has the later AppArmor
			root = trixie
		}
		machines[version] = emulated(dir, root, data, version)
	}
	for _, name := range slices.Sorted(maps.Keys(machines)) {
		t.Run(name, func(t *testing.T) { machines[name].boot(t) })
	}
}

// guestData makes the disk of what runs in the machines.
func guestData(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	for out, how := range map[string][]string{
		"probe":            {"build", "-o", "", "../sandbox/testdata/probe"},
		"integration.test": {"test", "-o", "", "-c", "-tags", "integration", "."},
		"sandbox.test":     {"test", "-o", "", "-c", "../sandbox"},
		"cgroup.test":      {"test", "-o", "", "-c", "../sandbox/internal/cgroup"},
		"unpack.test":      {"test", "-o", "", "-c", "../unpack"},
	} {
		how[2] = filepath.Join(dir, out)
		cmd := exec.Command("go", how...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if r := finish(t, cmd); r.code != 0 {
			t.Fatal(r.stderr)
		}
	}
	sh(t, "cp", bin, filepath.Join(dir, "imgpack"))
	if err := os.WriteFile(dir+"/run", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	sh(t, "mke2fs", "-q", "-t", "ext4", "-L", "data", "-d", dir, dir+".img", "256M")
	return dir + ".img"
}

// script is what runs in a machine. Each program's end is a line. Where openat2
// is lacking nothing is sandboxed, and unpacking has a way of its own; where
// overlays cannot be mounted in user namespaces root alone has sandboxes.
const script = `#!/bin/sh
export IMGPACK_GUEST=1 IMGPACK_TEST_BIN=/data/imgpack IMGPACK_TEST_PROBE=/data/probe IMGPACK_TEST_DIR=/var/tmp HOME=/root TMPDIR=/var/tmp
cd /var/tmp
try() {
	name=$1
	shift
	"/data/$name" -test.v "$@" 2>&1
	echo "=== END $name $?"
}
uname -rm
[ ! -e /proc/sys/kernel/apparmor_restrict_unprivileged_userns ] || sysctl -qw kernel.apparmor_restrict_unprivileged_userns=0
case $(uname -r) in
5.4.*)
	try integration.test -test.run '^TestGuest(Old|Filesystems)$'
	try unpack.test -test.run '^Test(WithoutOpenat2|StoreSharesLayers|TreeIsWhatIsUnpacked)$'
	;;
5.10.*)
	try integration.test -test.run '^Test(GuestOld|GuestFilesystems|Checks|CheckWays)$'
	try integration.test -test.run '^TestGuestLimits$/^root$'
	try cgroup.test
	try sandbox.test -test.run '^TestLimit|KilledCaller$'
	;;
*)
	try integration.test -test.run '^Test(Guest|Checks$|CheckWays$)'
	try cgroup.test
	try sandbox.test -test.run '^TestLimit|Pause|Killed'
	;;
esac
echo "=== END all 0"
`

// machine is the command of a machine, with a directory of its own. Its output
// is what the programs write; the console is standard error, or a file.
type machine func(work string) []string

// userMode is Linux as a process: slower at system calls, and as fast as this
// machine at all else.
func userMode(program, root, data, options string) machine {
	return func(work string) []string {
		return append([]string{program, "mem=1500M", "ubd0=" + work + "/changes," + root, "ubd1r=" + data,
			"root=/dev/ubda", "rw", "quiet", "con=null", "con0=null,fd:2", "ssl=null", "ssl1=null,fd:1"}, strings.Fields(options)...)
	}
}

// emulated is a machine of its own, on this processor where that can be.
func emulated(dir, root, data, kernel string) machine {
	accel := []string{"-accel", "tcg,thread=multi", "-cpu", "max"}
	if hasKVM() {
		accel = []string{"-accel", "kvm", "-cpu", "host"}
	}
	return func(work string) []string {
		return slices.Concat([]string{"qemu-system-x86_64"}, accel, []string{
			"-M", "q35", "-smp", "2", "-m", "2048", "-nodefaults", "-no-reboot", "-display", "none",
			"-kernel", filepath.Join(dir, "vmlinuz-"+kernel), "-initrd", filepath.Join(dir, "initrd.img-"+kernel),
			"-append", "root=LABEL=root rw console=ttyS0 quiet panic=-1 no_timer_check",
			"-drive", "if=virtio,format=raw,snapshot=on,file=" + root,
			"-drive", "if=virtio,format=raw,snapshot=on,file=" + data,
			"-serial", "file:" + work + "/console", "-serial", "stdio",
		})
	}
}

func (m machine) boot(t *testing.T) {
	work, err := os.MkdirTemp(workDir, "vm-") // a name without commas, which user mode takes apart
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Minute) // some ten of processor time, emulated
	defer cancel()
	cmd := exec.CommandContext(ctx, "nice", append([]string{"-n", "15"}, m(work)...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+work)
	r := finish(t, cmd)
	if console, err := os.ReadFile(work + "/console"); err == nil {
		r.stderr += string(console)
	}
	if keep := os.Getenv("IMGPACK_VM_LOGS"); keep != "" {
		name := strings.NewReplacer(" ", "-", ",", "", "/", "-").Replace(t.Name())
		if err := os.WriteFile(filepath.Join(keep, name), []byte(r.stdout), 0o644); err != nil {
			t.Error(err)
		}
	}
	if r.code != 0 {
		t.Errorf("it ended with %d", r.code)
	}
	judge(t, strings.ReplaceAll(r.stdout, "\r", ""))
	if t.Failed() {
		t.Log(tail(r.stderr))
	}
}

// hasKVM says whether guests run as fast as the host: there are hosts with
// /dev/kvm and no such processor, on which Debian's kernels do not start.
func hasKVM() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !regexp.MustCompile(`(?m)^flags.*\b(svm|vmx)\b`).Match(info) {
		return false
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// judge fails for every program that did not end well, and says what was
// skipped.
func judge(t *testing.T, out string) {
	t.Helper()
	ends := regexp.MustCompile(`(?m)^=== END (\S+) (\d+)`).FindAllStringSubmatch(out, -1)
	if len(ends) == 0 || ends[len(ends)-1][1] != "all" {
		t.Errorf("after %d programs: %s", len(ends), tail(out))
	}
	for _, e := range ends {
		if e[2] != "0" {
			t.Errorf("%s ended with %s", e[1], e[2])
		}
	}
	passed := strings.Count(out, "--- PASS: ")
	t.Logf("%d passed, %d skipped, %d failed", passed, strings.Count(out, "--- SKIP: "), strings.Count(out, "--- FAIL: "))
	if t.Failed() || passed == 0 {
		t.Error(out)
	}
}

func tail(s string) string { return s[max(0, len(s)-4000):] }
