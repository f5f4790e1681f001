package recompress

import "github.com/imgpack/imgpack/internal/deflate"

// What follows takes the structure of a part, in both directions.

// event takes what comes next: kindHead or kindBytes outside of a member,
// kindBlock (a run) or kindEmpty in one, or kindStart for the end of the part,
// which is only at the end of its content.
func (p *player) event(inside bool, k kind) kind {
	m, last := &p.structure, p.lastKind
	switch atEnd := p.pos == p.to; {
	case inside && atEnd:
		if p.s.flag(&m.inside[1][last], k != kindStart) {
			p.lastKind = kindEmpty
			return kindEmpty
		}
		return kindStart
	case inside:
		p.lastKind = kindBlock
		if p.s.flag(&m.inside[0][last], k != kindBlock) {
			p.lastKind = kindEmpty
		}
		return p.lastKind
	case atEnd && !p.s.flag(&m.outside[1][last], k != kindStart):
		return kindStart
	}
	p.lastKind = kindHead
	if p.s.flag(&m.outside[0][last], k != kindHead) {
		p.lastKind = kindBytes
	}
	return p.lastKind
}

// memberHead takes the header of a member, which begins.
func (p *player) memberHead(raw []byte) ([]byte, error) {
	m := &p.structure
	if p.s.flag(&m.sameHead, string(raw) != string(p.head)) {
		n := p.s.number(&m.headLength, len(raw))
		if n < 0 || n > maxHead {
			return nil, errRecipe("header of %d bytes", n)
		}
		p.head = p.likeLast(raw, n)
	}
	p.base, p.crcFrom, p.origin = p.pos, p.pos, int64(p.pos)
	p.begin = beginFlushed
	return p.head, nil
}

// likeLast takes n bytes, many of which are those of the last header.
func (p *player) likeLast(raw []byte, n int) []byte {
	out := make([]byte, n)
	copy(out, raw)
	for i := range out {
		if i < len(p.head) && !p.s.flag(&p.structure.headByte[min(i, 31)], out[i] != p.head[i]) {
			out[i] = p.head[i]
			continue
		}
		out[i] = byte(p.s.direct(uint32(out[i]), 8))
	}
	return out
}

// outside takes bytes outside of members.
func (p *player) outside(raw []byte) ([]byte, error) {
	m := &p.structure
	n := p.s.number(&m.bytes, len(raw)-1) + 1
	if n <= 0 || n > maxBytes {
		return nil, errRecipe("piece of %d bytes", n)
	}
	out := make([]byte, n)
	copy(out, raw)
	if p.s.flag(&m.zeros, !allZero(raw)) {
		for i := range out {
			out[i] = byte(p.s.direct(uint32(out[i]), 8))
		}
	}
	return out, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// runHead takes where a run ends, and whether it goes on in the next part.
func (p *player) runHead(to int, goesOn bool) (int, bool, error) {
	m := &p.structure
	if !p.s.flag(&m.toEnd, to != p.to) {
		p.lastRun = p.to - p.pos
		return p.to, p.s.flag(&m.open, goesOn), nil
	}
	n := p.lastRun
	if p.s.flag(&m.sameRun, to-p.pos != n) {
		n = p.s.number(&m.run, to-p.pos-1) + 1
	}
	if n <= 0 || n > p.to-p.pos {
		return 0, false, errRecipe("run of %d bytes", n)
	}
	p.lastRun = n
	return p.pos + n, false, nil
}

// storedHead takes the length of a stored block that is not predicted.
func (p *player) storedHead(n, to int) (int, error) {
	m := &p.structure
	p.miss()
	if p.s.flag(&m.sameSize, n != p.lastSize) {
		p.lastSize = p.s.number(&m.stored, n-1) + 1
	}
	if n = p.lastSize; n <= 0 || n > deflate.MaxStored || n > to-p.pos {
		return 0, errRecipe("stored block of %d bytes", n)
	}
	return n, nil
}

// storedPadding takes the bits before the length of a stored block.
func (p *player) storedPadding(h *deflate.Header) {
	if h.Type == deflate.Stored && p.s.flag(&p.structure.padding[0], h.Padding != 0) {
		h.Padding = uint8(p.s.direct(uint32(h.Padding), 7))
	}
}

// emptyBlock takes a block without content.
func (p *player) emptyBlock(h *deflate.Header) error {
	m := &p.structure
	h.Type = deflate.Type(p.s.tree(m.empty[:], int(h.Type), 2))
	h.Final = p.s.flag(&m.final[1], h.Final)
	p.storedPadding(h)
	p.begin = beginFlushed
	switch h.Type {
	case deflate.Stored, deflate.Fixed:
		return nil
	case deflate.Dynamic:
		return p.trees(nil, &h.Trees, nil)
	}
	return errRecipe("block of type %d", h.Type)
}

// tail takes the bits, count of them, up to the next byte, and the trailer.
func (p *player) tail(pad, count uint8, raw [8]byte) (uint8, [8]byte) {
	m := &p.structure
	if p.s.flag(&m.padding[1], pad != 0) {
		pad = uint8(p.s.direct(uint32(pad), int(count)))
	} else {
		pad = 0
	}
	p.lastKind = kindTail
	if p.crcFrom != none {
		computed := p.trailer()
		if !p.s.flag(&m.trailer, raw != computed) {
			return pad, computed
		}
	}
	for i := range raw {
		raw[i] = byte(p.s.direct(uint32(raw[i]), 8))
	}
	return pad, raw
}

// blockEnd takes what of a block's header is told behind its content.
func (p *player) blockEnd(h *deflate.Header, to int, end bool) {
	if p.pos == to && end {
		h.Final = p.s.flag(&p.structure.final[0], h.Final)
		p.begin = beginFlushed
	}
	p.storedPadding(h)
}

// blockHeader takes the header of a block of tokens.
func (p *player) blockHeader(h *deflate.Header, tokens []deflate.Token, content []byte) error {
	var predicted deflate.Header
	p.blocks++
	p.model.Header(&predicted, tokens, content)
	predicted.Final, predicted.Padding = h.Final, h.Padding
	if !p.s.flag(&p.structure.header, *h != predicted) {
		*h = predicted
		return nil
	}
	p.miss()
	return p.header(&predicted, h, tokens)
}
