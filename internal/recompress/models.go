package recompress

import (
	"slices"
	"sync"

	"github.com/imgpack/imgpack/internal/recompress/internal/goflate"
	"github.com/imgpack/imgpack/internal/recompress/internal/kpflate"
	"github.com/imgpack/imgpack/internal/recompress/internal/zlibflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// First numbers of families.
const (
	firstKlauspost = 32
	firstZlib      = 128
	firstOther     = 192
)

// specs lists the models that recipes name. The numbers are part of the format:
// 0 no encoder, 1 to 31 Go's compress/flate, 32 to 127 klauspost/compress/flate,
// 128 to 191 zlib and GNU gzip, 192 to 255 those that come near to others.
func specs() []model.Spec {
	return slices.Concat(
		[]model.Spec{nothingSpec},
		goflate.Specs(),
		kpflate.Specs(),
		zlibflate.Specs(),
	)
}

// nothingSpec is the model of last resort.
var nothingSpec = model.Spec{ID: 0, Name: "no model", New: func() model.Model { return &nothing{} }}

// known holds the models by number.
var known = sync.OnceValue(func() map[uint16]model.Spec {
	m := make(map[uint16]model.Spec)
	for _, s := range specs() {
		m[s.ID] = s
	}
	return m
})
