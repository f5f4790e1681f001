//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgpack/imgpack/sandbox/internal/cgroup"
)

// needLimits skips where this user, or this host, can limit nothing.
func needLimits(t *testing.T, l Limits) {
	t.Helper()
	g, err := cgroup.New(cgroup.Limits(l))
	if err != nil {
		if os.Getenv(ordinaryEnv) != "" {
			t.Skip(err) // TestLimitsRefused is for ordinary users
		}
		skip(t, err.Error())
	}
	check(t, g.Remove())
}

// placesEnv names, in a process that TestLimitsOfTheirOwn started, the cgroups
// in which it makes those of its sandboxes.
const placesEnv = "IMGPACK_TEST_CGROUPS"

// placesLater stands for them until the process is in them and is told.
const placesLater = "later"

func awaitPlaces() {
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err == nil {
		err = os.Setenv(placesEnv, strings.TrimSpace(line))
	}
	if err != nil {
		panic(err)
	}
}

// groupsLeft lists groups in the process's own places.
func groupsLeft(t *testing.T) (left []string) {
	t.Helper()
	for place := range strings.SplitSeq(os.Getenv(placesEnv), ":") {
		for _, name := range dirNames(t, place) {
			if strings.HasPrefix(name, "imgpack-") {
				left = append(left, filepath.Join(place, name))
			}
		}
	}
	return left
}

// TestLimitsOfTheirOwn runs tests of limits in cgroups that nobody else uses: as
// root, and all of them as an ordinary user to whom they were given.
func TestLimitsOfTheirOwn(t *testing.T) {
	if os.Getuid() != 0 || os.Getenv(placesEnv) != "" {
		t.Skip("making cgroups for others takes root")
	}
	probe, err := buildProbe()
	check(t, err)
	for id, tests := range map[int][]string{0: {"sLeaveNothing"}, ordinaryID: {"Memory", "Pids", "Processors", "sLeaveNothing"}} {
		limits := Limits{Memory: 4 << 30, CPUs: 1, CPUSet: "0", Pids: 10000}
		needLimits(t, limits)
		g, err := cgroup.New(cgroup.Limits(limits))
		check(t, err)
		defer func() { check(t, g.Remove()) }()
		tmp, err := os.MkdirTemp("", "limits")
		check(t, err)
		defer os.RemoveAll(tmp)
		check(t, os.Chown(tmp, id, id))
		cmd := testsAgain(t, "-test.run=^TestLimit("+strings.Join(tests, "|")+")$")
		cmd.Dir = tmp
		cmd.Env = append(os.Environ(), placesEnv+"="+placesLater, ordinaryEnv+"=", probeEnv+"="+probe, "TMPDIR="+tmp, "HOME="+tmp)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(id), Gid: uint32(id)}}
		in, err := cmd.StdinPipe()
		check(t, err)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		check(t, cmd.Start())
		defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }() // before its cgroup is removed
		check(t, g.Join(cmd.Process.Pid))
		places := placesOf(t, cmd.Process.Pid)
		for _, dir := range places {
			check(t, os.Chown(dir, id, id))
			check(t, os.Chown(filepath.Join(dir, "cgroup.procs"), id, id))
		}
		_, err = fmt.Fprintln(in, strings.Join(places, ":"))
		check(t, err)
		in.Close()
		err = cmd.Wait()
		if passed := strings.Count(out.String(), "--- PASS"); err != nil || passed != len(tests) {
			t.Errorf("as user %d: %v, %d passed\n%s", id, err, passed, &out)
		}
	}
}

// placesOf finds a process's cgroups of version 1.
func placesOf(t *testing.T, pid int) (places []string) {
	t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	check(t, err)
	for line := range strings.Lines(string(groups)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if dir := filepath.Join("/sys/fs/cgroup", part[1], part[2]); part[1] != "" && strings.Contains(dir, "/imgpack-") {
			places = append(places, dir)
		}
	}
	if len(places) == 0 {
		t.Skip("cgroups of version 2: those of its sandboxes would not be below the process's own")
	}
	return places
}

func TestLimitMemory(t *testing.T) {
	im := newImage(t)
	limits := Limits{Memory: 64 << 20}
	needLimits(t, limits)
	eat := func(args ...string) result {
		s := im.spec(args...)
		s.Limits = limits
		return run(t, s)
	}
	if r := eat("eat", "20"); r.err != nil || r.st != (Status{}) {
		t.Errorf("20 of 64 MiB: %+v, %v, %s", r.st, r.err, r.errOut)
	}
	if r := eat("eat", "200"); r.err != nil || r.st.Code != 137 || !r.st.OutOfMemory {
		t.Errorf("200 of 64 MiB: %+v, %v, %s", r.st, r.err, r.out)
	}
	if r := eat("feed", "200"); r.err != nil || r.st.Code != 0 || !r.st.OutOfMemory || !strings.Contains(r.out, "killed") {
		t.Errorf("child, 200 of 64 MiB: %+v, %v, %s", r.st, r.err, r.out)
	}
	limits.MemorySwap = limits.Memory
	r := eat("eat", "200")
	if r.err != nil || r.st.Code != 137 || !r.st.OutOfMemory || !strings.Contains(r.explains, "limit: 67108864 bytes of memory, 0 of swap") {
		t.Errorf("no swap: %+v, %v, %s", r.st, r.err, r.explains)
	}
	if strings.Contains(r.explains, "not limited: memory") || !strings.Contains(r.explains, "not limited: processor time") {
		t.Error(r.explains)
	}
	// At the least that may be asked for, whoever is killed: it is told.
	limits = Limits{Memory: 6 << 20}
	if r := eat("eat", "100"); r.err != nil || r.st.Code != 137 || !r.st.OutOfMemory {
		t.Errorf("6 MiB: %+v, %v, %s", r.st, r.err, r.out)
	}
	noSandboxLeft(t)
}

func TestLimitPids(t *testing.T) {
	im := newImage(t)
	needLimits(t, Limits{Pids: 1})
	for range 5 {
		s := im.spec("fork", "500")
		s.Limits.Pids = 40
		got := probe[struct {
			Forked, Threads int
			Err             string
		}](t, s)
		// The limit is the command's own: process 1's threads are beside it.
		// Of those one may be starting or ending.
		if n := got.Forked + got.Threads; n < 37 || n > 41 || got.Err != "EAGAIN" {
			t.Errorf("%+v", got)
		}
	}
}

func TestLimitProcessors(t *testing.T) {
	im := newImage(t)
	s := im.spec("spin", "1000")
	s.Limits = Limits{CPUs: 0.2, CPUSet: "0"}
	needLimits(t, s.Limits)
	got := probe[struct {
		Used   int64
		CPUs   int
		Cgroup []string
	}](t, s)
	if got.Used < 1 || got.Used > 500 {
		t.Errorf("used %d ms of processor time in 1000 ms with a fifth of a processor", got.Used)
	}
	if got.CPUs != 1 {
		t.Errorf("may run on %d processors", got.CPUs)
	}
	for _, line := range got.Cgroup {
		if strings.Contains(line, "imgpack-") {
			t.Errorf("it sees where its cgroup is: %s", line)
		}
	}
}

// TestLimitsRefused: what cannot be had is an error, and the command is not
// started.
func TestLimitsRefused(t *testing.T) {
	im := newImage(t)
	for _, c := range []struct {
		limits Limits
		word   string
	}{
		{Limits{Memory: 1 << 20}, "less than 6 MiB"},
		{Limits{MemorySwap: 1 << 30}, "memory must be limited too"},
		{Limits{Memory: 64 << 20, MemorySwap: 32 << 20}, "no less than that of memory"},
		{Limits{CPUs: 4096}, "4096 processors"},
		{Limits{CPUs: 0.001}, "0.001 processors"},
		{Limits{Pids: -1}, "too few"},
	} {
		s := im.spec("hello")
		s.Limits = c.limits
		wantStart(t, run(t, s), CodeStart, c.word)
	}
	g, err := cgroup.New(cgroup.Limits{Pids: 10})
	if err == nil {
		check(t, g.Remove())
		needLimits(t, Limits{CPUSet: "0"})
		s := im.spec("hello")
		s.Limits.CPUSet = "4000"
		wantStart(t, run(t, s), CodeStart, "not all of 4000 are there")
		s.Limits.CPUSet = "0-"
		wantStart(t, run(t, s), CodeStart, "no list of processors")
		return
	}
	un := new(cgroup.UnenforceableError)
	if !errors.As(err, &un) || un.Remedy == "" {
		t.Fatal(err)
	}
	for _, l := range []Limits{{Memory: 64 << 20}, {CPUs: 0.5}, {CPUSet: "0"}, {Pids: 10}} {
		s := im.spec("hello")
		s.Limits = l
		wantStart(t, run(t, s), CodeStart, "cannot be limited", un.Remedy)
	}
}

// TestLimitsLeaveNothing counts cgroups after many runs, after one whose caller
// is killed, and after the one that comes next.
func TestLimitsLeaveNothing(t *testing.T) {
	if os.Getenv(placesEnv) == "" {
		t.Skip("TestLimitsOfTheirOwn runs it, where nobody else makes cgroups")
	}
	im := newImage(t)
	limits := Limits{Memory: 64 << 20, Pids: 50, CPUs: 1}
	s := im.spec("hello")
	for range 50 {
		s.Limits = limits
		good(t, s)
	}
	s.Args = []string{"/bin/none"}
	wantStart(t, run(t, s), CodeNoSuch)
	if left := groupsLeft(t); len(left) > 0 {
		t.Errorf("left after many runs: %v", left)
	}

	cmd := call{Lower: []string{im.dir}, Args: []string{"/bin/probe", "stubborn"}, Limits: limits}.command(t)
	startReady(t, cmd)
	if left := groupsLeft(t); len(left) == 0 {
		t.Error("no cgroups while it runs")
	}
	good(t, im.spec("hello")) // leaves those of the living alone
	s = im.spec("hello")
	s.Limits = limits
	good(t, s)
	if left := groupsLeft(t); len(left) == 0 {
		t.Error("another run removed cgroups of one that goes on")
	}
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	waitFor(t, "the next run to clear away", func() bool {
		good(t, s)
		return len(groupsLeft(t)) == 0
	})
}
