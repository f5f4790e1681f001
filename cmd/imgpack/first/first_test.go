package first

import (
	"strings"
	"testing"
)

func TestUsualRun(t *testing.T) {
	for line, want := range map[string]bool{
		"imgpack":                                false,
		"imgpack run":                            false,
		"imgpack load x":                         false,
		"imgpack help run":                       false,
		"imgpack run x":                          true,
		"imgpack run --store dir x true":         true,
		"imgpack run -e A=1 --timeout 3s x":      true,
		"imgpack run --read-only --explain x":    true,
		"imgpack run -it x sh":                   false,
		"imgpack run -d x":                       false,
		"imgpack run --name=n x":                 false,
		"imgpack run --network host x":           false,
		"imgpack run --net host x":               false,
		"imgpack run -m 1g x":                    false,
		"imgpack run -v /a:/b x":                 false,
		"imgpack run --uid-map 0:100000:65536 x": false,
		"imgpack run x ls -i":                    false, // costs time alone
		"imgpack-sandbox-init":                   false,
		"imgpack --store dir run x":              false,
	} {
		if got := usualRun(strings.Fields(line)); got != want {
			t.Errorf("%q: %t", line, got)
		}
	}
}
