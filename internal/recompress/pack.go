package recompress

import (
	"errors"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// limits of how far a part is packed, for trials; 0 is none.
type limits struct {
	content int // bytes to look at, at least
	blocks  int // the same
	cost    int // bytes of code, at most
	misses  int // of the model, less than
	work    int64
	dense   bool
}

// errCost is that a part costs more than it may.
var errCost = errors.New("costs too much")

// errWork is that it takes too much work.
var errWork = errors.New("takes too much work")

// errSeen is that enough was looked at.
var errSeen = errors.New("seen enough")

// pack plays a model over a part and returns what must be said beyond. The part
// stays as it is. The code is valid until the next call.
// misses counts what was not as predicted.
func (p *player) pack(q *part, spec model.Spec, l limits) (structure, corrected []byte, misses int, err error) {
	s := q.span
	s.offset, s.dense = q.taken(spec), l.dense
	p.start(s, spec)
	p.s.pack()
	p.c.pack()
	k := packer{player: p, q: q, limits: l}
	err = k.pieces()
	if p.played += k.right; err != nil && err != errSeen {
		return nil, nil, 0, err
	}
	p.gap(none)
	structure, corrected = p.s.enc.Finish(), p.c.enc.Finish()
	if l.cost > 0 && len(structure)+len(corrected) > l.cost {
		return nil, nil, 0, errCost
	}
	return structure, corrected, p.misses, nil
}

// packer is the state of packing one part.
type packer struct {
	*player
	limits limits
	q      *part
	tokens int // of q that are behind
	right  int // predictions since the last correction
}

func (k *packer) pieces() error {
	inside := k.begin != beginOutside
	for i := 0; i < len(k.q.pieces); i++ {
		b := &k.q.pieces[i]
		var err error
		if b.kind != kindTail {
			k.event(inside, b.kind)
		}
		switch b.kind {
		case kindHead:
			inside = true
			_, err = k.memberHead(b.raw)
		case kindBytes:
			if k.limits.content == 0 {
				_, err = k.outside(b.raw)
			}
		case kindBlock:
			i, err = k.runOf(i)
		case kindEmpty:
			h := k.q.header(b)
			err = k.emptyBlock(&h)
		case kindTail:
			inside = false
			k.tail(b.pad, b.count, [8]byte(b.raw))
		}
		if err != nil {
			return err
		}
		if k.seen() {
			return nil
		}
	}
	k.event(inside, kindStart)
	return nil
}

// runOf packs the run that begins with a piece, and returns its last.
func (k *packer) runOf(first int) (int, error) {
	last, to := first, k.pos+k.q.pieces[first].n
	for ; last+1 < len(k.q.pieces) && k.q.pieces[last+1].kind == kindBlock; last++ {
		to += k.q.pieces[last+1].n
	}
	goesOn := k.q.goesOn && last == len(k.q.pieces)-1
	if _, _, err := k.runHead(to, goesOn); err != nil {
		return 0, err
	}
	k.play(to, !goesOn)
	for i := first; i <= last; i++ {
		if err := k.block(&k.q.pieces[i], to, !goesOn); err != nil {
			return 0, err
		}
		if k.seen() {
			break
		}
	}
	return last, nil
}

// block packs a block of the run that ends at to.
func (k *packer) block(b *piece, to int, end bool) error {
	h := k.q.header(b)
	content := k.data[k.pos : k.pos+b.n]
	tokens := k.q.tokens[k.tokens : k.tokens+b.tokens]
	k.tokens += b.tokens
	explicit := false
	if b.block == deflate.Stored {
		tokens, explicit = k.free(b.n, to)
		explicit = !explicit
	}
	if k.s.flag(&k.structure.explicit, explicit) {
		if _, err := k.storedHead(b.n, to); err != nil {
			return err
		}
		k.behind(b.n, to, end)
	} else {
		if b.block != deflate.Stored {
			if err := k.correct(tokens, to); err != nil {
				return err
			}
		} else if k.dense {
			k.agreed(tokens, b.n, to)
		}
		if err := k.blockHeader(&h, tokens, content); err != nil {
			return err
		}
	}
	k.blockEnd(&h, to, end)
	return k.dear()
}

// correct plays the model over the tokens of a block.
func (k *packer) correct(tokens []deflate.Token, to int) error {
	for i := 0; ; i++ {
		i += k.agree(tokens[i:])
		if (k.runner != nil || i&63 == 0) && k.overworked() {
			return errWork
		}
		predicted, t := k.model.Predict(), deflate.EndOfBlock
		if i < len(tokens) {
			t = tokens[i]
		}
		switch {
		case k.pos == to:
		case k.told(predicted, t, to):
		default:
			if _, ok := k.correction(predicted, t, to); !ok {
				return errCost // cannot be: the parser proved it
			}
			if err := k.dear(); err != nil {
				return err
			}
			if k.seen() {
				return errSeen
			}
		}
		k.model.Commit(t)
		if t == deflate.EndOfBlock {
			return nil
		}
		k.pos += t.Length()
	}
}

// told packs whether a prediction is right.
func (k *packer) told(predicted, t deflate.Token, to int) bool {
	right := predicted == t
	if k.dense {
		k.wrong(predicted, to, !right)
	}
	if right {
		k.right++
		return true
	}
	k.gap(k.right)
	k.played += k.right + 1
	k.right = 0
	return false
}

// agree commits the tokens that are as predicted, if the model says several at
// once, and returns how many they are.
func (k *packer) agree(tokens []deflate.Token) (n int) {
	if k.runner == nil || k.dense {
		return 0
	}
	next := k.runner.Next()
	for n < min(len(next), len(tokens)) && next[n] == tokens[n] {
		n++
	}
	k.pos += deflate.Length(tokens[:n])
	k.runner.Take(n)
	k.right += n
	return n
}

// agreed packs that the tokens of a stored block, which is behind, are as
// predicted.
func (k *packer) agreed(tokens []deflate.Token, n, to int) {
	k.pos -= n
	for _, t := range tokens {
		k.wrong(t, to, false)
		k.pos += t.Length()
	}
	if k.pos < to {
		k.wrong(deflate.EndOfBlock, to, false)
	}
}

// seen tells whether enough was looked at.
func (k *packer) seen() bool {
	return k.limits.content > 0 && (k.pos-k.from >= k.limits.content || k.blocks >= k.limits.blocks)
}

// overworked tells whether more work was done than there may be.
func (k *packer) overworked() bool {
	return k.limits.work > 0 && k.work() > k.limits.work || k.tooManyHops()
}

// dear tells whether the part costs too much.
func (k *packer) dear() error {
	if k.limits.cost > 0 && k.s.enc.Len()+k.c.enc.Len() > k.limits.cost ||
		k.limits.misses > 0 && k.misses >= k.limits.misses {
		return errCost
	}
	if k.overworked() {
		return errWork
	}
	return nil
}

// free lets the model make of n bytes, which the stream has as a stored block,
// what it likes, and tells whether it ends a block behind them.
func (k *packer) free(n, to int) ([]deflate.Token, bool) {
	from, right := k.pos, k.right
	k.made = k.made[:0]
	for {
		t := k.model.Predict()
		if k.pos == to {
			k.model.Commit(deflate.EndOfBlock)
			return k.made, true
		}
		if t == deflate.EndOfBlock && k.pos == from+n {
			k.right++
			k.model.Commit(t)
			return k.made, true
		}
		if t == deflate.EndOfBlock || !k.fits(t, from+n) || len(k.made)&63 == 63 && k.overworked() {
			k.freed += k.pos - from
			k.pos, k.right = from, right
			return nil, false
		}
		k.right++
		k.model.Commit(t)
		k.made = append(k.made, t)
		k.pos += t.Length()
	}
}
