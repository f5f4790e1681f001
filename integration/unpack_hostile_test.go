//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// What a hostile layer may cost.
const (
	hostileTime   = 10 * time.Second // of the processor
	hostileMemory = 256 << 20
)

// watched lists all there is below a directory, and of the directory: type,
// mode, owner, links, times of content and of anything, content.
func watched(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		text := fmt.Sprintf("%o %d:%d links %d mtime %v ctime %v%s", st.Mode, st.Uid, st.Gid, st.Nlink, st.Mtim, st.Ctim, xattrs(t, path))
		if d.Type().IsRegular() {
			text += " " + sum(t, path)
		}
		all[path] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// content leaves out of watched what a store that was only locked may change
// in: the times of its own directories.
func content(all map[string]string, store string) map[string]string {
	out := maps.Clone(all)
	for _, dir := range []string{"", "/lock", "/tmp", "/unpacked", "/unpacked/lock", "/unpacked/tmp", "/unpacked/layers", "/unpacked/images", "/run"} {
		delete(out, store+dir)
	}
	return out
}

func sameWatched(t testing.TB, what string, want, got map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s: %s was touched\nbefore %s\nafter  %s", what, name, want[name], got[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] == "" {
			t.Errorf("%s: %s is new", what, name)
		}
	}
}

// memoryHost is a host on a file system in memory, where there can be one: a
// thousand processes would wait for the disk.
func memoryHost(t testing.TB) *host {
	t.Helper()
	h := newHost(t)
	if err := unix.Mount("tmpfs", h.dir, "tmpfs", 0, "size=2g,mode=755"); err == nil {
		t.Cleanup(func() { unix.Unmount(h.dir, unix.MNT_DETACH) })
	}
	return h
}

// sentinelDir makes what nothing may touch, outside of h's directory.
func sentinelDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(newHost(t).dir, "outside")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "victim"), []byte("mine"), 0o640); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHostileLayers unpacks every hostile layer in each way there is, with a
// process for each, in the usual way and without openat2.
func TestHostileLayers(t *testing.T) {
	for _, mode := range []string{"", "ENOSYS", "EPERM"} {
		t.Run("openat2"+mode, func(t *testing.T) {
			h, outside, ways := memoryHost(t), sentinelDir(t), unpackWays
			if mode != "" {
				ways = ways[:1]
			}
			fixture := fixtures.NewBlobs()
			sample := fixtures.Sample(fixture)[0]
			if err := fixture.SaveLayout(h.path("sample"), sample); err != nil {
				t.Fatal(err)
			}
			h.ok("load", "oci:sample")
			h.run("run", sample.Display(), "/none") // has its layers unpacked
			guard := watched(t, filepath.Dir(outside))
			for _, l := range fixtures.HostileLayersAt(outside) {
				if mode == "" || l.Class > 1 && l.Class <= 6 {
					checkHostile(t, h, l, mode, ways)
					sameWatched(t, l.Name, guard, watched(t, filepath.Dir(outside)))
				}
			}
			if mode != "" {
				return
			}
			for l := range fixtures.HeavyLayers() {
				checkHostile(t, h, l, "", ways[:1])
			}
		})
	}
}

// checkHostile unpacks one layer in some ways.
func checkHostile(t *testing.T, h *host, l fixtures.HostileLayer, openat2 string, ways []unpackWay) {
	t.Helper()
	b := fixtures.NewBlobs()
	if err := b.SaveLayout(h.path("img"), fixtures.Root("hostile:1", l.Image(b))); err != nil {
		t.Fatal(err)
	}
	defer removeAll(h.path("img"))
	before, beside := watched(t, h.store()), files(t, h.dir)
	for _, way := range ways {
		what := fmt.Sprintf("%s (class %d) to %s", l.Name, l.Class, way.name)
		cmd := h.command(append(way.args("oci:img"), "--json")...)
		if way.name == "run" {
			if l.Want == "" || l.Want == fixtures.Any {
				continue
			}
			cmd = h.command("run", "--json", "oci:img", "/none")
		}
		r, took := measured(t, cmd, openat2)
		if took.time > hostileTime || took.memory > hostileMemory {
			t.Errorf("%s: took %v and %d MiB of memory", what, took.time, took.memory>>20)
		} else if took.time > hostileTime/5 || took.memory > hostileMemory/2 {
			t.Logf("%s: took %v and %d MiB of memory", what, took.time, took.memory>>20)
		}
		if r.code == 0 && l.Want == "" || l.Want == fixtures.Any && (r.code == 0 || r.code == 1) {
			removeAll(h.path("out"))
			sameWatched(t, what, content(before, h.store()), content(watched(t, h.store()), h.store()))
			continue
		}
		code := 1
		if way.name == "run" {
			code = 125
		}
		lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
		var doc struct{ Fault, Reason string }
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &doc); err != nil {
			t.Errorf("%s: %v: %s", what, err, r.stderr)
		}
		if l.Want == "" || r.code != code && !(l.Want == fixtures.Refused && r.code == 9) {
			t.Errorf("%s: exit %d: %s", what, r.code, r.stderr)
		}
		if l.Want != fixtures.Refused && l.Want != fixtures.Any && manifests.Kind(doc.Fault) != l.Want {
			t.Errorf("%s: fault %q, want %q: %s", what, doc.Fault, l.Want, r.stderr)
		}
		if after := files(t, h.dir); !slices.Equal(withoutStore(beside), withoutStore(after)) {
			t.Errorf("%s: left %v", what, after)
		}
		sameWatched(t, what, content(before, h.store()), content(watched(t, h.store()), h.store()))
	}
}

func withoutStore(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.HasPrefix(n, "/store") })
}

// unpackWay is one way of unpacking an image to "out", or into the store. More
// shapes are one line each.
type unpackWay struct {
	name string
	args func(image string) []string
}

var unpackWays = []unpackWay{
	{"rootfs", func(image string) []string { return []string{"unpack", "--as", "rootfs", image, "out"} }},
	{"layers", func(image string) []string { return []string{"unpack", "--as", "layers", image, "out"} }},
	{"runtime", func(image string) []string { return []string{"unpack", "--as", "runtime", image, "out"} }},
	{"run", func(image string) []string { return []string{"run", image, "/none"} }},
}

// shimVar is the variable with which the test binary starts a program, which
// lacks a system call if one of lackings is named, and tells what it took: this
// process's own memory would count as the program's, as it does with fork.
const shimVar = "IMGPACK_TEST_SHIM"

// lackings are calls that fail, and how.
var lackings = map[string]struct {
	call  uint32
	errno unix.Errno
}{
	"ENOSYS":        {unix.SYS_OPENAT2, unix.ENOSYS},
	"EPERM":         {unix.SYS_OPENAT2, unix.EPERM},
	"mount_setattr": {unix.SYS_MOUNT_SETATTR, unix.ENOSYS},
}

// shim runs the program in os.Args. What it took goes to file 3.
func shim(lacking string) int {
	if l, ok := lackings[lacking]; ok {
		if err := forbid(l.call, l.errno); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 99
		}
	}
	os.Unsetenv(shimVar)
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	p := cmd.ProcessState
	fmt.Fprintln(os.NewFile(3, "cost"), p.SysUsage().(*syscall.Rusage).Maxrss, int64(p.UserTime()+p.SystemTime()))
	return p.ExitCode()
}

func forbid(call uint32, errno unix.Errno) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno2 := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno2 != 0 {
		return errno2
	}
	return nil
}

// cost is what a program took.
type cost struct {
	memory int64
	time   time.Duration
}

func behindShim(cmd *exec.Cmd, lacking string) {
	self := must(os.Executable())
	cmd.Path, cmd.Args = self, append([]string{self, cmd.Path}, cmd.Args[1:]...)
	cmd.Env = append(cmd.Env, shimVar+"=shim"+lacking)
}

// measured runs a command by the shim.
func measured(t testing.TB, cmd *exec.Cmd, lacking string) (result, cost) {
	t.Helper()
	behindShim(cmd, lacking)
	out := must(os.CreateTemp(workDir, "cost-"))
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.ExtraFiles = []*os.File{out}
	r := finish(t, cmd)
	var c cost
	text := must(os.ReadFile(out.Name()))
	if _, err := fmt.Sscan(string(text), &c.memory, (*int64)(&c.time)); err != nil {
		t.Errorf("what it took: %v in %q: %s", err, text, r.stderr)
	}
	c.memory <<= 10
	return r, c
}
