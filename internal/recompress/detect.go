package recompress

import (
	"bytes"
	"math"

	"github.com/imgpack/imgpack/internal/recompress/model"
)

// verdict is which model a part was found to be made by.
type verdict struct {
	done chan struct{} // closed when the rest is valid
	spec model.Spec
	cost int // bytes of code
	bits int64
}

// detective finds models. It is used from one goroutine.
type detective struct {
	player player
}

// solve finds the recipe of a part.
func (d *detective) solve(q *part) error {
	spec := known()[0]
	s, c, err := d.player.pack(q, spec, limits{content: math.MaxInt, cost: math.MaxInt})
	if err != nil {
		return err
	}
	q.found = q.record(spec.ID, bytes.Clone(s), bytes.Clone(c))
	q.result.spec, q.result.cost, q.result.bits = spec, len(s)+len(c), q.bits
	return nil
}
