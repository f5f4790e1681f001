// Package kpflate models the encoders of github.com/klauspost/compress/flate, on
// their own and as github.com/klauspost/pgzip uses them.
package kpflate

import (
	"fmt"

	"github.com/imgpack/imgpack/internal/recompress/model"
)

// Specs lists the models.
func Specs() []model.Spec {
	var all []model.Spec
	for _, v := range versions {
		for level := 1; level <= 6; level++ {
			all = append(all, model.Spec{
				ID:       v.id + uint16(level),
				Name:     fmt.Sprintf("klauspost/pgzip %d (%s)", level, v.name),
				New:      func() model.Model { return newPlayer(&fast{finder: newFinder(level)}, v.rules, 7, dictionary) },
				Restarts: true,
			})
		}
	}
	return all
}

func newFinder(level int) finder {
	switch level {
	case 1:
		return &fast1{}
	case 2:
		return &fast2{}
	case 3:
		return &fast3{}
	case 4:
		return &fast4{astray: true}
	case 5:
		return &fast5{}
	}
	return &fast6{}
}

var versions = []struct {
	id    uint16
	name  string
	rules rules
}{
	{32, "since 1.18.2", countEnd},
	{42, "1.15.10 to 1.18.0", allSymbols},
	{52, "1.18.1", noEnd},
}
