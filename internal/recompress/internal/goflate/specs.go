// Package goflate has models of the encoder of Go's compress/flate, as it is in
// Go 1.8 to 1.26: that of docker, BuildKit, containerd and whatever else is
// written in Go and uses the standard library.
//
// The encoder makes tokens and headers in four ways: levels 4 to 9 look for the
// best match and then for a better one a byte on (lazy); levels 2 and 3 take the
// first (greedy); level 1 is a way of its own, in blocks of 65535 bytes (fast);
// and HuffmanOnly and level 0 look for none (plain). All take the same decisions
// whatever pieces the content is written in, but for one position in each
// 32 KiB, where the model is corrected if it must.
package goflate

import (
	"fmt"

	"github.com/imgpack/imgpack/internal/recompress/model"
)

var levels = [10]params{
	2: {nice: 16, chain: 8, skip: 5},
	3: {nice: 32, chain: 32, skip: 6},
	4: {lazy: 4, nice: 16, chain: 16},
	5: {lazy: 16, nice: 32, chain: 32},
	6: {lazy: 16, nice: 128, chain: 128},
	7: {lazy: 32, nice: 128, chain: 256},
	8: {lazy: 128, nice: 258, chain: 1024},
	9: {lazy: 258, nice: 258, chain: 4096},
}

// Specs returns the models of this package: 1 to 9 are the levels, 10 is
// HuffmanOnly, and 11 is level 0. None restarts: the encoder goes on after a
// flush.
func Specs() []model.Spec {
	specs := []model.Spec{
		{ID: 10, Name: "Go compress/flate, Huffman only", New: func() model.Model { return &plain{} }},
		{ID: 11, Name: "Go compress/flate, level 0", New: func() model.Model { return &plain{store: true} }},
		{ID: 1, Name: "Go compress/flate, level 1", New: func() model.Model { return &fast{} }},
	}
	for l := 2; l <= 9; l++ {
		newModel := func() model.Model { return &lazy{params: levels[l]} }
		if l < 4 {
			newModel = func() model.Model { return &greedy{params: levels[l]} }
		}
		specs = append(specs, model.Spec{ID: uint16(l), Name: fmt.Sprintf("Go compress/flate, level %d", l), New: newModel})
	}
	return specs
}
