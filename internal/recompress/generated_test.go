package recompress

import (
	"fmt"
	"testing"
)

// TestGenerated gives back streams that no encoder would make.
func TestGenerated(t *testing.T) {
	for seed := range uint64(24) {
		blocks, most := 1+int(seed%20), 1+int(seed*7%500)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			stream, content := generate(seed, blocks, most)
			giveBack(t, stream, content, anyCost)
		})
	}
}

// TestGeneratedParts gives back streams of several parts.
func TestGeneratedParts(t *testing.T) {
	for seed := range uint64(2) {
		stream, content := generate(1000+seed, 400+6000*int(seed&1), 1+int(300-290*(seed&1)))
		_, info := giveBack(t, stream, content, anyCost)
		t.Logf("%+v", info)
	}
}
