package recompress

import "github.com/imgpack/imgpack/internal/recompress/model"

// effort counts what a player does. It is the same on every machine, so what is
// bounded by it is too.
type effort struct {
	worker      model.Worker // the model, if it is one
	stepsBefore int64        // of it
	begins      int          // of the model
	begun       int          // bytes that it looked at there
	blocks      int
	freed       int // bytes that were played in vain
	hops        int // steps along chains in dense parts
}

// What is counted is about as many nanoseconds.
const (
	stepWork  = 2
	hopWork   = 2
	beginWork = 50_000
	priorWork = 1
	blockWork = 4_000
	missWork  = 150
	tokenWork = 12
	plainWork = 4 // a byte of content
)

// work is what was done for a part so far.
func (p *player) work() int64 {
	n := plainWork*int64(p.pos-p.from+p.freed) + tokenWork*int64(p.played) + missWork*int64(p.misses) +
		blockWork*int64(p.blocks) + beginWork*int64(p.begins) + priorWork*int64(p.begun) + hopWork*int64(p.hops)
	if p.worker != nil {
		n += stepWork * (p.worker.Steps() - p.stepsBefore)
	}
	return n
}

// miss counts a mistake of the model.
func (p *player) miss() {
	p.misses++
	p.missed = p.pos
}

// Bounds of the steps along chains in a dense part.
const (
	mostHops    = 1 << 20 // and
	hopsForByte = 16      // for each byte of its content
)

// tooManyHops tells whether a part takes more steps than any may.
func (p *player) tooManyHops() bool {
	return p.hops > mostHops+hopsForByte*(p.to-p.from)
}
