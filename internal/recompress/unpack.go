package recompress

import (
	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// unpacker is the state of giving back one part.
type unpacker struct {
	*player
	w    deflate.Writer
	left int // right predictions before the next correction, or none
}

// unpack gives back the stream of a part, appended to out. The bits of the last byte that are not
// full are in the writer.
func (p *player) unpack(s span, spec model.Spec, structure, corrected, out []byte) (deflate.Writer, error) {
	p.start(s, spec)
	p.s.unpack(structure)
	p.c.unpack(corrected)
	u := unpacker{player: p}
	u.w.Out, u.w.Count = out, uint(s.bit)
	u.left = p.gap(0)
	if err := u.pieces(); err != nil {
		return u.w, err
	}
	if p.s.dec.Rest() > 0 || p.c.dec.Rest() > 0 {
		return u.w, errRecipe("code goes on behind the part")
	}
	return u.w, nil
}

func (u *unpacker) pieces() (err error) {
	inside := u.begin != beginOutside
	for n := 0; err == nil; n++ {
		if n > mostPieces {
			return errRecipe("part of more than %d pieces", mostPieces)
		}
		if len(u.w.Out) > maxStream {
			return errRecipe("part of more than %d bytes of stream", maxStream)
		}
		final := false
		switch u.event(inside, kindStart) {
		case kindStart:
			return nil
		case kindHead:
			inside = true
			err = u.bytes(u.memberHead(nil))
		case kindBytes:
			err = u.bytes(u.outside(nil))
		case kindBlock:
			final, err = u.run()
		case kindEmpty:
			var h deflate.Header
			if err = u.emptyBlock(&h); err == nil {
				final = h.Final
				err = u.write(&h, nil, nil)
			}
		}
		if final && err == nil {
			inside = false
			u.tailOf()
		}
	}
	return err
}

// bytes writes bytes as they are, or the error of getting them.
func (u *unpacker) bytes(b []byte, err error) error {
	if err == nil && u.w.Count != 0 {
		err = errRecipe("header in the midst of a byte")
	}
	if err == nil {
		u.w.Out = append(u.w.Out, b...)
	}
	return err
}

// tailOf ends a member.
func (u *unpacker) tailOf() {
	count := (8 - u.w.Count) & 7
	pad, raw := u.tail(0, uint8(count), [8]byte{})
	if count > 0 {
		u.w.Out = append(u.w.Out, byte(u.w.Bits)|pad<<u.w.Count)
		u.w.Bits, u.w.Count = 0, 0
	}
	u.w.Out = append(u.w.Out, raw[:]...)
}

// run gives back a run, and tells whether a final block ended it.
func (u *unpacker) run() (final bool, err error) {
	to, goesOn, err := u.runHead(0, false)
	if err != nil {
		return false, err
	}
	if goesOn && len(u.data) == u.to {
		return false, errRecipe("run goes on behind the content")
	}
	u.play(to, !goesOn)
	for u.pos < to && !final {
		if len(u.w.Out) > maxStream {
			return false, errRecipe("part of more than %d bytes of stream", maxStream)
		}
		if max(u.blocks, u.begins) > mostPieces || u.tooManyHops() {
			return false, errRecipe("part that takes too long")
		}
		if final, err = u.block(to, !goesOn); err != nil {
			return false, err
		}
	}
	return final, nil
}

// block gives back a block of the run that ends at to.
func (u *unpacker) block(to int, end bool) (final bool, err error) {
	var h deflate.Header
	from := u.pos
	if u.s.flag(&u.structure.explicit, false) {
		n, err := u.storedHead(0, to)
		if err != nil {
			return false, err
		}
		u.made = u.made[:0]
		u.behind(n, to, end)
	} else {
		if err := u.tokens(to); err != nil {
			return false, err
		}
		if err := u.blockHeader(&h, u.made, u.data[from:u.pos]); err != nil {
			return false, err
		}
	}
	u.blockEnd(&h, to, end)
	return h.Final, u.write(&h, u.made, u.data[from:u.pos])
}

// tokens gives back the tokens of a block.
func (u *unpacker) tokens(to int) error {
	u.made = u.made[:0]
	for {
		if u.runner != nil && u.left != 0 && !u.dense {
			if err := u.agree(to); err != nil {
				return err
			}
		}
		t := u.model.Predict()
		switch {
		case u.pos == to:
			t = deflate.EndOfBlock
		case u.dense && !u.wrong(t, to, false), !u.dense && u.left != 0:
			if u.left > 0 {
				u.left--
			}
			if t == deflate.EndOfBlock && len(u.made) == 0 || t != deflate.EndOfBlock && !u.plausible(t, to) {
				return errRecipe("prediction that does not fit")
			}
		default:
			var ok bool
			if t, ok = u.correction(t, 0, to); !ok || t == deflate.EndOfBlock && len(u.made) == 0 {
				return errRecipe("correction that does not fit")
			}
			if u.tooManyHops() {
				return errRecipe("part that takes too long")
			}
			u.left = u.gap(0)
		}
		u.model.Commit(t)
		if t == deflate.EndOfBlock {
			return nil
		}
		if len(u.made) == deflate.MaxBlockTokens {
			return errRecipe("block of too many tokens")
		}
		u.made = append(u.made, t)
		u.pos += t.Length()
	}
}

// agree gives back the tokens that the model says at once, up to the next
// correction.
func (u *unpacker) agree(to int) error {
	next := u.runner.Next()
	next = next[:min(len(next), deflate.MaxBlockTokens-len(u.made))]
	if u.left > 0 {
		next = next[:min(len(next), u.left)]
	}
	if n := deflate.Length(next); n <= to-u.pos {
		u.pos += n
	} else if next = u.upTo(next, to); u.pos < to {
		return errRecipe("prediction that does not fit")
	}
	u.made = append(u.made, next...)
	u.runner.Take(len(next))
	if u.left > 0 {
		u.left -= len(next)
	}
	return nil
}

// upTo goes on behind the tokens that end at to at most, and returns them.
func (u *unpacker) upTo(tokens []deflate.Token, to int) []deflate.Token {
	for i, t := range tokens {
		length := t.Length()
		if length > to-u.pos {
			return tokens[:i]
		}
		u.pos += length
	}
	return tokens
}

// plausible tells whether a prediction can come next. Models compare content
// themselves, so only the bounds are looked at.
func (p *player) plausible(t deflate.Token, to int) bool {
	if !t.IsMatch() {
		return t == deflate.Literal(p.data[p.pos])
	}
	return t.Length() <= to-p.pos && t.Distance() <= p.pos-p.base
}

// write writes a block.
func (u *unpacker) write(h *deflate.Header, tokens []deflate.Token, content []byte) error {
	if h.Type == deflate.Stored {
		if len(content) > deflate.MaxStored {
			return errRecipe("stored block of %d bytes", len(content))
		}
		u.w.Stored(h, content)
		return nil
	}
	if !u.w.Block(h, tokens) {
		return errRecipe("block with a symbol that has no code")
	}
	return nil
}
