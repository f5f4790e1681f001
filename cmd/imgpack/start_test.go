package main

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// initialised is what the runtime says of a package's initialisation. Times are
// not among it: they depend on the machine.
type initialised struct {
	name          string
	bytes, allocs int
}

// initTrace lists the packages of this program, which has all that imgpack has
// and what its tests need, in the order they are initialised.
func initTrace(t *testing.T) (all []initialised) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Skipf("this system does not start programs again: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line) // init NAME @1.2 ms, 0.3 ms clock, 45 bytes, 6 allocs
		if len(f) != 11 || f[0] != "init" {
			continue
		}
		bytes, berr := strconv.Atoi(f[7])
		allocs, aerr := strconv.Atoi(f[9])
		if berr != nil || aerr != nil {
			t.Fatalf("%q", line)
		}
		all = append(all, initialised{f[1], bytes, allocs})
	}
	return all
}

// What is initialised before main is paid for by every start, and what is
// initialised before package sandbox twice by run: once more by process 1.
func TestStartIsLight(t *testing.T) {
	const (
		own       = "github.com/imgpack/imgpack/"
		ownBytes  = 16 << 10 // of each package of ours; a compiled pattern has 10 to 100 KiB
		ownAllocs = 96
		early     = 160 << 10 // of all before package sandbox
		earlyMany = 120       // packages
	)
	never := []string{"google.golang.org/protobuf", "google.golang.org/grpc", "golang.org/x/net/http2", "k8s.io/", "github.com/prometheus/", "github.com/docker/docker/"}
	later := []string{"net", "net/netip", "net/http", "crypto/tls", "crypto/x509", "regexp", "text/template", "unique", "github.com/opencontainers/go-digest", "github.com/spf13/cobra", "github.com/spf13/pflag", own + "manifests", own + "archive", own + "dedupe", own + "unpack"}
	all := initTrace(t)
	before, bytes, begun := -1, 0, false
	for i, p := range all {
		if p.name == own+"sandbox" {
			before = i
			break
		}
		bytes += p.bytes
	}
	for _, p := range all[:max(before, 0)] {
		begun = begun || p.name == own+"cmd/imgpack/first"
		counted := testing.CoverMode() == "" // or each package has counters made for it
		if !begun && counted && (strings.HasPrefix(p.name, own) || strings.HasPrefix(p.name, "github.com/klauspost")) && p.allocs > 0 {
			t.Errorf("%s holds up package first", p.name)
		}
	}
	if before < 0 || !begun {
		t.Fatalf("packages first and sandbox are not among %d packages in this order", len(all))
	}
	t.Logf("%d packages, %d with %d bytes before package sandbox", len(all), before, bytes)
	if before > earlyMany || bytes > early {
		t.Errorf("%d packages with %d bytes are initialised before package sandbox", before, bytes)
	}
	for i, p := range all {
		if strings.HasPrefix(p.name, own) && p.name != own+"cmd/imgpack" && (p.bytes > ownBytes || p.allocs > ownAllocs) {
			t.Errorf("%s takes %d bytes in %d allocations; make that when it is first needed", p.name, p.bytes, p.allocs)
		}
		if slices.ContainsFunc(never, func(n string) bool { return strings.HasPrefix(p.name, n) }) {
			t.Errorf("%s is part of the program", p.name)
		}
		if i < before && slices.Contains(later, p.name) {
			t.Errorf("%s holds up process 1; let package sandbox do without what needs it", p.name)
		}
	}
}

// A start of run makes the flags of run, and nothing of other commands; what
// completes flags, and hints, are made where they are asked for.
func TestRunMakesLittle(t *testing.T) {
	const most = 400 // allocations
	a, _, _ := testApp(nil)
	n := testing.AllocsPerRun(5, func() { rootFor(a, []string{"run"}) })
	all := testing.AllocsPerRun(5, func() { rootFor(a, []string{"ps"}) })
	t.Logf("%.0f allocations, %.0f for all commands", n, all)
	if n > most {
		t.Errorf("the flags of run take %.0f allocations, more than %d", n, most)
	}
}
