package recompress

import (
	"encoding/binary"
	"fmt"

	"github.com/imgpack/imgpack/internal/recompress/model"
)

func errRecipe(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRecipe}, a...)...)
}

// Kinds of recipes, their first byte.
const (
	recipeDeflate = 1 // parts of a gzip stream follow
	recipeZstd    = 2
)

// Bits of the first byte of a part; the lowest three are the bit of the stream
// it begins at, the next two say where in the structure.
const (
	beginShift = 3
	shortPrior = 1 << 5 // fewer than model.Prior bytes of the member are before the part
	shortAhead = 1 << 6 // fewer than model.Ahead bytes of the last run follow
	denseCode  = 1 << 7 // many corrections
)

// record is a part as a recipe has it.
type record struct {
	begin      begin
	dense      bool
	bit        uint8
	model      uint16
	content    int
	prior      int
	moved      int64 // where the encoder began, in the content, behind where that of the part before did
	ahead      int
	structure  []byte
	correction []byte
}

// cost is about how long the record is.
func (r *record) cost() int { return len(r.structure) + len(r.correction) }

// append adds a part to a recipe.
func (r *record) append(recipe []byte) []byte {
	first := r.bit | uint8(r.begin)<<beginShift
	prior := r.begin != beginOutside && r.prior < model.Prior
	if prior {
		first |= shortPrior
	}
	if r.ahead < model.Ahead {
		first |= shortAhead
	}
	if r.dense {
		first |= denseCode
	}
	recipe = append(recipe, first)
	recipe = binary.AppendUvarint(recipe, uint64(r.model))
	recipe = binary.AppendUvarint(recipe, uint64(r.content))
	if prior {
		recipe = binary.AppendUvarint(recipe, uint64(r.prior))
	}
	if r.begin != beginOutside {
		recipe = binary.AppendVarint(recipe, r.moved)
	}
	if r.ahead < model.Ahead {
		recipe = binary.AppendUvarint(recipe, uint64(r.ahead))
	}
	recipe = binary.AppendUvarint(recipe, uint64(len(r.structure)))
	recipe = binary.AppendUvarint(recipe, uint64(len(r.correction)))
	recipe = append(recipe, r.structure...)
	return append(recipe, r.correction...)
}

// take takes the first part off a recipe.
func (r *record) take(recipe []byte) ([]byte, error) {
	first := recipe[0]
	recipe = recipe[1:]
	*r = record{bit: first & 7, begin: begin(first >> beginShift & 3), dense: first&denseCode != 0, ahead: model.Ahead}
	if r.begin > beginAmid {
		return nil, fmt.Errorf("%w: part of kind %x", ErrUnknown, first)
	}
	if r.begin == beginOutside && first&(shortPrior|7) != 0 {
		return nil, errRecipe("part of kind %x", first)
	}
	if r.begin != beginOutside {
		r.prior = model.Prior
	}
	h := numbers{recipe: recipe}
	r.model = uint16(h.take(1<<16 - 1))
	r.content = h.take(maxPart)
	if first&shortPrior != 0 {
		r.prior = h.take(model.Prior - 1)
	}
	if r.begin != beginOutside {
		r.moved = h.signed()
	}
	if first&shortAhead != 0 {
		r.ahead = h.take(model.Ahead - 1)
	}
	structure, correction := h.take(MaxRecipe), h.take(MaxRecipe)
	if h.bad || structure > len(h.recipe) || correction > len(h.recipe)-structure {
		return nil, errRecipe("head of a part")
	}
	r.structure, r.correction = h.recipe[:structure], h.recipe[structure:structure+correction]
	return h.recipe[structure+correction:], nil
}

// numbers takes numbers off a recipe.
type numbers struct {
	recipe []byte
	bad    bool
}

func (h *numbers) take(limit int) int {
	v, n := binary.Uvarint(h.recipe)
	if n <= 0 || v > uint64(limit) {
		h.bad = true
		return 0
	}
	h.recipe = h.recipe[n:]
	return int(v)
}

func (h *numbers) signed() int64 {
	v, n := binary.Varint(h.recipe)
	if n <= 0 {
		h.bad = true
		return 0
	}
	h.recipe = h.recipe[n:]
	return v
}
