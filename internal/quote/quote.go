// Package quote makes foreign text safe to print: names from archives,
// manifests and registries must not be able to move a terminal's cursor, hide
// other output, turn its direction or fill a screen.
package quote

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Max is how much of a text is shown, in bytes of input; "..." stands for the
// rest.
const Max = 200

// Text returns s in double quotes, as printable ASCII. What fits in Max bytes
// reads back with strconv.Unquote; the rest is cut.
func Text(s string) string {
	s, dots := clip(s)
	q := strconv.QuoteToASCII(s)
	return q[:len(q)-1] + dots + `"`
}

// Clean returns s unchanged when it is printable ASCII of at most Max bytes,
// and otherwise escaped and cut like Text, but without the quotation marks. It
// is for columns and messages where quotes around ordinary names would be
// noise.
func Clean(s string) string {
	s, dots := clip(s)
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		q := strconv.QuoteToASCII(s)
		s = q[1 : len(q)-1]
	}
	return s + dots
}

// clip cuts s between two characters, where it has any.
func clip(s string) (string, string) {
	if len(s) <= Max {
		return s, ""
	}
	n := Max
	for back := range utf8.UTFMax {
		if utf8.RuneStart(s[Max-back]) {
			n = Max - back
			break
		}
	}
	return s[:n], "..."
}
