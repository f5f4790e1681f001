package zlibflate

import (
	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// near lists parameters that come near to encoders without a model of their own:
// those that were the best on libdeflate's levels 3, 6 and 9. They look all the
// window over, leave short matches, and never end a block.
func near() []model.Spec {
	const never = 1 << 30
	base := params{hashBits: 16, symbols: never, slow: true, reach: deflate.Window, least: 4, good: never, lazy: deflate.MaxLength}
	deep, middle, greedy := base, base, base
	deep.chain, deep.nice, deep.weighs = 600, deflate.MaxLength, true
	middle.chain, middle.nice, middle.weighs, middle.good = 100, 65, true, 3
	greedy.chain, greedy.nice, greedy.lazy = 24, 14, 3
	return []model.Spec{
		spec(idNear, "near libdeflate 9", deep),
		spec(idNear+1, "near libdeflate 6", middle),
		spec(idNear+2, "near libdeflate 3", greedy),
	}
}
