//go:build linux

package cgroup

import (
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newGroup makes a group on this host, or skips where that cannot be.
func newGroup(t *testing.T, l Limits) *Group {
	t.Helper()
	g, err := New(l)
	if un := new(UnenforceableError); errors.As(err, &un) {
		if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" && os.Getuid() == 0 {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	check(t, err)
	t.Cleanup(func() {
		check(t, g.Remove())
		for _, d := range g.dirs {
			if _, err := os.Lstat(d.path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", d.path, err)
			}
		}
	})
	return g
}

// start runs a shell that waits until it has joined.
func start(t *testing.T, g *Group, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read x; "+script)
	in, err := cmd.StdinPipe()
	check(t, err)
	check(t, cmd.Start())
	check(t, g.Join(cmd.Process.Pid))
	_, err = in.Write([]byte("go\n"))
	check(t, err)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// TestThrottled: the kernel says that it held processes back.
func TestThrottled(t *testing.T) {
	g := newGroup(t, Limits{CPUs: 0.1, Pids: 20})
	start(t, g, "while :; do :; done")
	var n int64
	for range 1000 {
		time.Sleep(50 * time.Millisecond)
		var err error
		n, err = counter(g.of["cpu"].path, "cpu.stat", "nr_throttled")
		check(t, err)
		if n > 0 {
			return
		}
	}
	t.Errorf("nr_throttled is %d", n)
}

func TestOOMKills(t *testing.T) {
	g := newGroup(t, Limits{Memory: 16 << 20})
	cmd := start(t, g, `exec tail /dev/zero`) // a line without an end
	_ = cmd.Wait()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v", cmd.ProcessState)
	}
	if n, err := g.OOMKills(); n < 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// TestSweep: only what nobody holds is removed, and only groups.
func TestSweep(t *testing.T) {
	held := newGroup(t, Limits{Pids: 5})
	parent := filepath.Dir(held.dirs[0].path)
	dead, other := filepath.Join(parent, prefix+rand.Text()), filepath.Join(parent, "imgpack"+rand.Text())
	check(t, os.Mkdir(dead, 0o700))
	check(t, os.Mkdir(other, 0o700))
	defer func() { check(t, os.Remove(other)) }()
	next := newGroup(t, Limits{Pids: 5})
	swept(t, dead)
	for path, want := range map[string]bool{other: true, held.dirs[0].path: true, next.dirs[0].path: true} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// swept waits until a group is gone: whoever else sweeps here may be at it.
func swept(t *testing.T, path string) {
	t.Helper()
	for range 3000 {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%s is left", path)
}

// TestManyAtOnce: what one sweeps away of another, which has just made it, is
// made again.
func TestManyAtOnce(t *testing.T) {
	check(t, newGroup(t, Limits{Pids: 5}).Remove())
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 30 {
				g, err := New(Limits{Pids: 5})
				if err == nil {
					err = g.Remove()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// TestVersion2 makes a group in the kernel's real hierarchy of version 2, as far
// as that goes without controllers of it.
func TestVersion2(t *testing.T) {
	h, err := readHost()
	check(t, err)
	if h.v2 == nil || os.Getuid() != 0 {
		t.Skip("no hierarchy of version 2 that may be written to")
	}
	d, err := makeDir(place{h.v2.top, true})
	check(t, err)
	g := &Group{dirs: []*dir{d}, of: map[string]*dir{"memory": d}}
	cmd := start(t, g, "sleep 100")
	pids, err := words(d.path, "cgroup.procs")
	check(t, err)
	if len(pids) == 0 {
		t.Error("no process in the group")
	}
	if err := removeDir(d.path, 0); !errors.Is(err, unix.EBUSY) {
		t.Errorf("removed a group with processes: %v", err)
	}
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	left, err := words(d.path, "cgroup.procs") // the shell's child
	check(t, err)
	for _, s := range left {
		pid, err := strconv.Atoi(s)
		check(t, err)
		check(t, unix.Kill(pid, unix.SIGKILL))
	}
	check(t, g.Remove())
	if _, err := os.Lstat(d.path); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// fake makes files of a hierarchy in a directory.
func fake(t *testing.T, files map[string]string) string {
	t.Helper()
	top := t.TempDir()
	for name, content := range files {
		path := filepath.Join(top, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return top
}

// TestWriteV2 holds what is written into files of version 2; the kernel here
// has no controllers of it, so they are of a directory.
func TestWriteV2(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		want   map[string]string
	}{
		{Limits{Memory: 64 << 20, Pids: 7}, map[string]string{"memory.max": "67108864", "memory.swap.max": "67108864", "pids.max": "7"}},
		{Limits{Memory: 64 << 20, MemorySwap: 64 << 20}, map[string]string{"memory.max": "67108864", "memory.swap.max": "0"}},
		{Limits{Memory: 64 << 20, MemorySwap: -1}, map[string]string{"memory.swap.max": "max"}},
		{Limits{CPUs: 0.25}, map[string]string{"cpu.max": "25000 100000"}},
		{Limits{CPUSet: "0-1,3"}, map[string]string{"cpuset.cpus": "0-1,3"}},
	} {
		top := fake(t, map[string]string{"memory.max": "", "memory.swap.max": "", "pids.max": "", "cpu.max": "", "cpuset.cpus": "", "cpuset.cpus.effective": "0-1,3\n"})
		d := &dir{path: top, v2: true}
		g := &Group{of: map[string]*dir{"memory": d, "cpu": d, "cpuset": d, "pids": d}}
		for _, n := range c.limits.needs() {
			check(t, g.set(c.limits, n))
		}
		for file, want := range c.want {
			if got, err := read(top, file); got != want || err != nil {
				t.Errorf("%+v: %s is %q, %v; want %q", c.limits, file, got, err, want)
			}
		}
	}
	// A kernel without an account of swap, and a set that is cut down.
	top := fake(t, map[string]string{"memory.max": "", "cpuset.cpus": "", "cpuset.cpus.effective": "0\n", "memory.events": "low 0\noom 3\noom_kill 2\n"})
	g := &Group{of: map[string]*dir{"memory": {path: top, v2: true}, "cpuset": {path: top, v2: true}}}
	check(t, g.set(Limits{Memory: 64 << 20}, need{"memory", "memory"}))
	if all := strings.Join(g.Notes(), "\n"); !strings.Contains(all, "degraded: swap is not limited") {
		t.Error(all)
	}
	for _, l := range []Limits{{Memory: 64 << 20, MemorySwap: 64 << 20}, {CPUSet: "0-1"}} {
		if err := g.set(l, l.needs()[0]); !errors.As(err, new(*UnenforceableError)) {
			t.Errorf("%+v: %v", l, err)
		}
	}
	if n, err := g.OOMKills(); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// TestPlaceV2 looks for the directory in which a group can have limits.
func TestPlaceV2(t *testing.T) {
	memory := []need{{"memory", "memory"}}
	files := func(more map[string]string) map[string]string {
		out := map[string]string{}
		for _, dir := range []string{"", "user.slice/", "user.slice/app.slice/", "user.slice/app.slice/run.scope/"} {
			out[dir+"cgroup.controllers"], out[dir+"cgroup.subtree_control"], out[dir+"cgroup.procs"] = "cpu memory pids", "memory pids", ""
		}
		for name, content := range more {
			out[name] = content
		}
		return out
	}
	at := func(top string) *host {
		return &host{v2: &v2Place{top: top, own: filepath.Join(top, "user.slice/app.slice/run.scope")}}
	}
	top := fake(t, files(nil))
	if p, err := at(top).placeV2(memory); p != filepath.Join(top, "user.slice/app.slice") || err != nil {
		t.Errorf("the nearest above: %q, %v", p, err)
	}
	p, err := at(top).placeV2([]need{{"processor time", "cpu"}})
	if got, _ := read(p, "cgroup.subtree_control"); err != nil || got != "+cpupids" && !strings.HasPrefix(got, "+cpu") {
		t.Errorf("a controller is handed down: %q, %q, %v", p, got, err)
	}
	top = fake(t, files(map[string]string{"user.slice/app.slice/cgroup.controllers": "pids", "user.slice/app.slice/cgroup.subtree_control": "pids"}))
	if p, err := at(top).placeV2(memory); p != filepath.Join(top, "user.slice") || err != nil {
		t.Errorf("further above, where the controller is: %q, %v", p, err)
	}
	top = fake(t, files(map[string]string{"user.slice/app.slice/cgroup.controllers": "pids", "user.slice/cgroup.controllers": "pids", "cgroup.controllers": "pids",
		"user.slice/app.slice/cgroup.subtree_control": "pids", "user.slice/cgroup.subtree_control": "pids", "cgroup.subtree_control": "pids"}))
	_, err = at(top).placeV2(memory)
	if un := new(UnenforceableError); !errors.As(err, &un) || !strings.Contains(err.Error(), "memory controller is not available") || un.Remedy == "" {
		t.Errorf("nowhere: %v", err)
	}
	_, err = (&host{}).placeV2(memory)
	if un := new(UnenforceableError); !errors.As(err, &un) || !strings.Contains(err.Error(), "no cgroup file system") || un.Remedy == "" {
		t.Errorf("none mounted: %v", err)
	}
}

func TestParseHost(t *testing.T) {
	const v2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	const v1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
		"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n" +
		"35 31 0:32 /box /sys/fs/cgroup/mem\\040ory rw - cgroup cgroup rw,memory\n" +
		"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	h := parseHost([]byte(v2), []byte("0::/user.slice/a.scope\n"))
	if h.v2 == nil || *h.v2 != (v2Place{"/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/a.scope"}) || len(h.v1) != 0 {
		t.Errorf("%+v", h)
	}
	h = parseHost([]byte(v1), []byte("4:memory:/box/in\n1:cpu,cpuacct:/x\n0::/../../out\n"))
	if h.v1["memory"] != "/sys/fs/cgroup/mem ory/in" || h.v1["cpu"] != "/sys/fs/cgroup/cpu,cpuacct/x" || h.v2.own != "/sys/fs/cgroup/unified" {
		t.Errorf("%+v %+v", h, h.v2)
	}
	// The paths of the host, and a mount of the container's own.
	h = parseHost([]byte(v1), []byte("4:memory:/docker/1\n"))
	if h.v1["memory"] != "/sys/fs/cgroup/mem ory" || h.v2 != nil {
		t.Errorf("%+v", h)
	}
}

func TestParseSet(t *testing.T) {
	for list, want := range map[string][]int{"0": {0}, "0-2,5": {0, 1, 2, 5}, "3,1,1-2": {1, 2, 3}} {
		if got, err := parseSet(list); !slices.Equal(got, want) || err != nil {
			t.Errorf("%q: %v, %v", list, got, err)
		}
	}
	for _, bad := range []string{"", ",", "1,", "-1", "2-1", "0x1", "1 ", "a", "99999", "0-65535,0-65535", "1-2-3"} {
		if got, err := parseSet(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	f.Add([]byte("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"), []byte("0::/a\n1:cpu,cpuacct:/x\n"))
	f.Fuzz(func(t *testing.T, mounts, own []byte) {
		h := parseHost(mounts, own)
		if h.v2 != nil && h.v2.own != h.v2.top {
			if rel, err := filepath.Rel(h.v2.top, h.v2.own); err != nil || !filepath.IsLocal(rel) {
				t.Errorf("%q is not below %q", h.v2.own, h.v2.top)
			}
		}
	})
}
