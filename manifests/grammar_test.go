package manifests

import (
	"regexp"
	"strings"
	"testing"
)

// patterns are the grammar as the specifications write it down.
var patterns = []struct {
	name  string
	match func(string) bool
	want  *regexp.Regexp
}{
	{"registry", isRegistry, regexp.MustCompile(`^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]{1,5})?$`)},
	{"repository", isRepository, regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)},
	{"tag", isTag, regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)},
	{"ID", isHexID, regexp.MustCompile(`^[a-f0-9]{64}$`)},
}

func checkGrammar(t *testing.T, s string) {
	t.Helper()
	for _, p := range patterns {
		if got, want := p.match(s), p.want.MatchString(s); got != want {
			t.Errorf("%s %q: %t, want %t", p.name, s, got, want)
		}
	}
}

// Every text of up to six letters of an alphabet that has one letter of each
// kind is read as the patterns read it.
func TestGrammarIsThatOfThePatterns(t *testing.T) {
	const alphabet = "aZ0._-:/[]"
	var all func(prefix string, left int)
	all = func(prefix string, left int) {
		checkGrammar(t, prefix)
		if left > 0 {
			for _, c := range alphabet {
				all(prefix+string(c), left-1)
			}
		}
	}
	all("", 5)
	for _, s := range []string{
		"host:12345", "host:123456", "[::1]:80", "[::g]", "[::1]x", "a\n", "ä", "a\x00", strings.Repeat("f", 64), strings.Repeat("g", 64),
		strings.Repeat("a", 128), strings.Repeat("a", 129), "a__b", "a___b", "a---b", "a_-b",
	} {
		checkGrammar(t, s)
	}
}

func FuzzGrammar(f *testing.F) {
	f.Add("registry.example.com:5000")
	f.Add("a__b/c--d.e")
	f.Fuzz(func(t *testing.T, s string) { checkGrammar(t, s) })
}
