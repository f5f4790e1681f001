//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestHosts(t *testing.T) {
	im := newImage(t)
	s := im.spec("read", "/etc/hosts")
	s.Hosts = []HostEntry{{"db", "10.0.0.5"}, {"six.example", "fe80::1"}}
	if r := good(t, s); !strings.HasSuffix(r.out, "\n10.0.0.5\tdb\nfe80::1\tsix.example\n") {
		t.Errorf("%q", r.out)
	}
	for _, h := range []HostEntry{
		{"", "10.0.0.5"}, {"a\nb", "10.0.0.5"}, {"a b", "10.0.0.5"},
		{"db", ""}, {"db", "fe80::1%x\n1.2.3.4 evil"},
	} {
		s.Hosts = []HostEntry{h}
		wantStart(t, run(t, s), CodeStart)
	}
}

func TestRlimits(t *testing.T) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("no limits here")
	}
	im := newImage(t)
	for _, user := range []string{"", "app"} {
		for _, unconfined := range []bool{false, true} {
			s := im.spec("read", "/proc/self/limits")
			s.User, s.Unconfined = user, unconfined
			s.Rlimits = []Rlimit{{"nofile", 100, 200}, {"core", 0, 7}, {"nproc", 4000, 5000}, {"fsize", 1 << 20, Unlimited}}
			// The soft limit of files is raised again by the probe's own runtime.
			if got := limitLines(good(t, s).out); !strings.HasSuffix(got["Max open files"], " 200") || got["Max core file size"] != "0 7" ||
				got["Max processes"] != "4000 5000" || got["Max file size"] != "1048576 unlimited" {
				t.Errorf("%v", got)
			}
		}
	}
	s := im.spec("hello")
	s.Rlimits = []Rlimit{{"nofile", 1 << 40, 1 << 40}}
	wantStart(t, run(t, s), CodeStart, "set limit nofile", "above the caller's own", "CAP_SYS_RESOURCE")
	for words, limits := range map[string][]Rlimit{
		`no limit "as"`:        {{"as", 1, 1}},
		"nproc is given twice": {{"nproc", 1, 1}, {"nproc", 1, 1}},
		"above the hard one":   {{"nproc", 2, 1}},
	} {
		s.Rlimits = limits
		wantStart(t, run(t, s), CodeStart, words)
	}
}

// limitLines reads /proc/self/limits.
func limitLines(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		const nameWidth = 26
		if len(line) > nameWidth {
			f := strings.Fields(line[nameWidth:])
			if len(f) >= 2 {
				out[strings.TrimSpace(line[:nameWidth])] = f[0] + " " + f[1]
			}
		}
	}
	return out
}

// TestRlimitNames: each has a number of its own.
func TestRlimitNames(t *testing.T) {
	var seen []int
	for _, name := range RlimitNames() {
		n, ok := (&Rlimit{Name: name}).number()
		if !ok || slices.Contains(seen, n) {
			t.Errorf("%s is %d, %v", name, n, ok)
		}
		seen = append(seen, n)
	}
	if !slices.IsSorted(RlimitNames()) {
		t.Error("not sorted")
	}
}
