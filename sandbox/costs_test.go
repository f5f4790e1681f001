//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"strings"
	"testing"
)

// An image's PATH and command are of any length, and process 1 frees nothing.
func TestPlacesOfCommandsAreBounded(t *testing.T) {
	s := &setup{plan: &plan{}}
	for _, c := range []struct {
		list, name string
		want       int
	}{
		{"/bin:/sbin::x", "sh", 4},
		{strings.Repeat("a:", maxPath), "sh", maxPath/2 + 1},
		{strings.Repeat("a:", maxPath), strings.Repeat("x", maxCommand), maxPath/2 + 1},
		{strings.Repeat("a:", maxPath), strings.Repeat("x", maxCommand+1), 1},
		{"/bin:/sbin", "/" + strings.Repeat("x/", maxPath), 1},
		{"/bin", "", 0},
	} {
		s.plan.Env = []string{"PATH=" + c.list}
		if got := s.candidates(c.name); len(got) != c.want {
			t.Errorf("%.20q in %.20q: %d places, want %d", c.name, c.list, len(got), c.want)
		}
	}
	long := "/" + strings.Repeat("a/", 1<<20)
	if err := checkCwd(long); err == nil || checkCwd(long[:4000]) != nil {
		t.Errorf("a working directory of %d bytes: %v", len(long), err)
	}
}
