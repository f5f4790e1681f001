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
	fastRules
	levels []int // 0 is -2
}

// fastRules are what changed between versions in levels 1 to 6.
type fastRules struct {
	skip    int  // see fast5
	astray  bool // see fast4
	shorter bool // see draft
}

var (
	allLevels = []int{5, 6, 9, 1, 3, 2, 4, 7, 8, 0}
	recent    = fastRules{2, true, false}

	// soundLevels are those that 1.18.1 makes valid streams at.
	soundLevels = []int{5, 6, 1, 3, 2, 4, 0}
)

// releases has what is most likely first. Names say what is true of level 5.
var releases = []release{
	{42, "1.15.10 to 1.18.0", true, allSymbols, lazyRules{true, true}, fastRules{2, false, false}, allLevels},
	{32, "since 1.18.2", true, countEnd, lazyRules{false, false}, recent, allLevels},
	{72, "1.15.10 to 1.18.0", false, allSymbols, lazyRules{true, true}, fastRules{2, false, false}, allLevels},
	{62, "since 1.18.2", false, countEnd, lazyRules{false, false}, recent, allLevels},
	{102, "1.15.0 to 1.15.9", true, allSymbols, lazyRules{}, fastRules{}, []int{5, 6}},
	{112, "1.14", true, allSymbols, lazyRules{}, fastRules{shorter: true}, []int{5, 6}},
	{52, "1.18.1", true, noEnd, lazyRules{}, recent, soundLevels},
	{82, "1.18.1", false, noEnd, lazyRules{}, recent, soundLevels},
	{92, "1.18.2 to 1.19.2", true, countEnd, lazyRules{true, false}, recent, []int{7, 8, 9}},
	{102, "1.18.0", true, allSymbols, lazyRules{}, recent, []int{4}},
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
			b := &buffer{}
			return newPlayer(&fast{finder: r.finder(level, b), shorter: r.shorter, buffer: b}, r.rules, penaltyFast, dict)
		}
		return newPlayer(&lazy{effort: efforts[level], lazyRules: r.lazyRules, dict: dict}, r.rules, penaltyLazy, dict)
	}
	return s
}

func (r *release) finder(level int, b *buffer) finder {
	switch level {
	case 1:
		return &fast1{}
	case 2:
		return &fast2{}
	case 3:
		return &fast3{}
	case 4:
		return &fast4{astray: r.astray, buffer: b}
	case 5:
		return &fast5{skip: r.skip}
	}
	return &fast6{fast5{skip: r.skip}}
}
