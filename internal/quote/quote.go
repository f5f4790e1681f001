// Package quote makes foreign text safe to print: names from archives,
// manifests and registries must not be able to move a terminal's cursor, hide
// other output or fill a screen.
package quote

import (
	"strconv"
	"strings"
)

// Max is the longest result of Text and Clean before "…" is added, in bytes
// of input.
const Max = 200

// Text returns s in double quotes, as printable ASCII, cut at Max bytes.
func Text(s string) string {
	s, cut := clip(s)
	q := strconv.QuoteToASCII(s)
	if cut {
		q = q[:len(q)-1] + `…"`
	}
	return q
}

// Clean returns s unchanged when it is printable ASCII of at most Max bytes,
// and otherwise escaped like Text but without the quotation marks. It is for
// columns and messages where quotes around ordinary names would be noise.
func Clean(s string) string {
	s, cut := clip(s)
	plain := !cut && strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0
	if plain {
		return s
	}
	q := strconv.QuoteToASCII(s)
	q = q[1 : len(q)-1]
	if cut {
		q += "…"
	}
	return q
}

func clip(s string) (string, bool) {
	if len(s) <= Max {
		return s, false
	}
	return s[:Max], true
}
