package recompress

import (
	"errors"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestProbe(t *testing.T) {
	text := texts()["text"]
	gz, zst := zipped(t, text, 6), framed(t, text, len(text), zstd.SpeedDefault)
	for name, test := range map[string]struct {
		head  []byte
		model string
		err   error
	}{
		"gzip":       {gz, "Go compress/flate, level 6", nil},
		"cut gzip":   {gz[:200_000], "Go compress/flate, level 6", nil},
		"one block":  {gz[:10_000], "", nil},
		"zstd":       {zst, probed, nil},
		"cut zstd":   {zst[:200_000], probed, nil},
		"no stream":  {text, "", ErrFormat},
		"nothing":    {nil, "", ErrFormat},
		"a header":   {gz[:10], "", nil},
		"bad header": {gz[:1], "", ErrFormat},
	} {
		info, err := Probe(test.head)
		if info.Model != test.model || !errors.Is(err, test.err) || err != nil && test.err == nil {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
		if info.Recipe > smallCost {
			t.Errorf("%s: %+v", name, info)
		}
	}
	if info, err := Probe(aimless(text)[:300_000]); !errors.Is(err, ErrHopeless) {
		t.Errorf("no encoder: %+v, %v", info, err)
	}
}
