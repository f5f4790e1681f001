package quote

import (
	"strconv"
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", `""`},
		{"nginx:1.27", `"nginx:1.27"`},
		{"a\x1b[31mb", `"a\x1b[31mb"`},
		{"title\x1b]0;x\a", `"title\x1b]0;x\a"`},
		{"a\r\nb\tc\x00", `"a\r\nb\tc\x00"`},
		{"\u009b31m", `"\u009b31m"`}, // CSI as one character
		{"cod\u202etxt.exe", `"cod\u202etxt.exe"`},
		{"\u2066\u200f\ufeff", `"\u2066\u200f\ufeff"`},
		{"naïve", `"na\u00efve"`},
		{"\xff\xfe", `"\xff\xfe"`},
		{`say "hi" \ bye`, `"say \"hi\" \\ bye"`},
		{"\x7f", `"\x7f"`},
		{strings.Repeat("x", Max), `"` + strings.Repeat("x", Max) + `"`},
		{strings.Repeat("x", Max+1), `"` + strings.Repeat("x", Max) + `..."`},
		{strings.Repeat("x", Max-1) + "é", `"` + strings.Repeat("x", Max-1) + `..."`},
	} {
		if got := Text(c.in); got != c.want {
			t.Errorf("Text(%q) = %s, want %s", c.in, got, c.want)
		}
	}
}

func TestClean(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"docker.io/library/nginx:1.27", "docker.io/library/nginx:1.27"},
		{`a "b" \c`, `a "b" \c`},
		{"a\x1b[2J", `a\x1b[2J`},
		{"\u202e\"", `\u202e\"`},
		{"\xc3", `\xc3`},
		{strings.Repeat("x", Max+1), strings.Repeat("x", Max) + "..."},
		{strings.Repeat("é", Max), strings.Repeat(`\u00e9`, Max/2) + "..."},
		{strings.Repeat("\x80", Max+1), strings.Repeat(`\x80`, Max) + "..."},
	} {
		if got := Clean(c.in); got != c.want {
			t.Errorf("Clean(%q) = %s, want %s", c.in, got, c.want)
		}
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{
		"", "nginx", "\x1b]8;;http://x\x1b\\", "\u202eabc", "\xff\x00", `\"`, "\U0010ffff",
		strings.Repeat("\U0001f600", 60), strings.Repeat("a", Max), strings.Repeat("\x80", 2*Max),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, clean := Text(s), Clean(s)
		for _, out := range []string{text, clean} {
			if strings.ContainsFunc(out, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%q is not printable ASCII", out)
			}
			if len(out) > 4*Max+5 { // \x00 for each byte, quotes, dots
				t.Fatalf("%d bytes came out for %d", len(out), len(s))
			}
		}
		if back, err := strconv.Unquote(text); len(s) <= Max && (err != nil || back != s) {
			t.Fatalf("%s reads back as %q: %v", text, back, err)
		}
		if Clean(clean) != clean && len(clean) <= Max {
			t.Fatalf("%q is not clean", clean)
		}
	})
}
