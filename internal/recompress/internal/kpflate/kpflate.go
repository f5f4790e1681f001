// Package kpflate models the encoders of github.com/klauspost/compress/flate, on
// their own and as github.com/klauspost/pgzip uses them: for blocks of content,
// of 1 MiB by default, each compressed afresh with the last 16 KiB of the one
// before as a preset dictionary and ended by a flush.
//
// What the package gives for a level has changed many times. Between two
// versions with other decisions here lies one with other streams; versions that
// only got faster are not told apart. Level -1 is level 5.
package kpflate

import (
	"fmt"

	"github.com/imgpack/imgpack/internal/recompress/model"
)

// Penalties of new headers.
const (
	penaltyFast = 7
	penaltyLazy = 8
	penaltyOnly = 10
)

// release is a range of versions that give the same streams.
type release struct {
	id    uint16 // of the model of level -2; that of level n is n greater
	name  string
	pgzip bool
	rules
	lazyRules
	levels []int // 0 is -2
}

var allLevels = []int{5, 6, 9, 1, 3, 2, 4, 7, 8, 0}

// releases has what is most likely first.
var releases = []release{
	{42, "1.15.15 to 1.18.0", true, allSymbols, lazyRules{true, true}, allLevels},
	{32, "since 1.20.0", true, countEnd, lazyRules{false, false}, allLevels},
	{72, "1.15.15 to 1.18.0", false, allSymbols, lazyRules{true, true}, allLevels},
	{62, "since 1.18.2", false, countEnd, lazyRules{false, false}, allLevels},
	{52, "1.18.1", true, noEnd, lazyRules{true, true}, allLevels},
	{82, "1.18.1", false, noEnd, lazyRules{true, true}, allLevels},
	{92, "1.18.2 to 1.19.2", true, countEnd, lazyRules{true, false}, []int{7, 8, 9}},
}

// Specs lists the models.
func Specs() []model.Spec {
	var all []model.Spec
	for _, r := range releases {
		for _, level := range r.levels {
			all = append(all, r.spec(level))
		}
	}
	return all
}

func (r *release) spec(level int) model.Spec {
	name, dict := "klauspost", 0
	if r.pgzip {
		name, dict = "pgzip", dictionary
	}
	s := model.Spec{ID: r.id + uint16(level), Name: fmt.Sprintf("%s %d (%s)", name, level, r.name), Restarts: r.pgzip}
	if level == 0 {
		s.Name = fmt.Sprintf("%s -2 (%s)", name, r.name)
	}
	s.New = func() model.Model {
		switch {
		case level == 0:
			return newPlayer(&only{}, r.rules, penaltyOnly, dict)
		case level < 7:
			return newPlayer(&fast{finder: newFinder(level)}, r.rules, penaltyFast, dict)
		}
		return newPlayer(&lazy{effort: efforts[level], lazyRules: r.lazyRules, dict: dict}, r.rules, penaltyLazy, dict)
	}
	return s
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
