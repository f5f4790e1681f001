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
		for level := 5; level <= 5; level++ {
			all = append(all, model.Spec{
				ID:       v.id + uint16(level),
				Name:     fmt.Sprintf("klauspost/pgzip %d (%s)", level, v.name),
				New:      func() model.Model { return newPlayer(&fast{finder: &fast5{}}, v.rules, 7, dictionary) },
				Restarts: true,
			})
		}
	}
	return all
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
