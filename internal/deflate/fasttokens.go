package deflate

// fastTokens is Inflater.fast that puts tokens at tokens[k:] too, while there is
// room for tokenRoom of them.
func (p *Parser) fastTokens(out []byte, tokens []Token, op, k int) (int, int, bool, error) {
	if len(p.in)-p.pos < enterRoom || len(out)-op < MinRoom {
		return op, k, false, nil
	}
	t := p.tables
	bits, n := p.bits, p.n
	in, pos := p.in, p.pos
	lastIn, lastOut := len(in)-tailRoom, len(out)-MinRoom
	var err error
	ended := false
	bits |= load64(in, pos) << (n & 63)
	pos += int(^n >> 3 & 7)
	n |= 56
	e := t.lit[bits&(1<<litBits-1)]
	for pos <= lastIn && op <= lastOut && len(tokens)-k >= tokenRoom {
		room := (*[tokenRoom]Token)(tokens[k:])
		at := 0
		if e&entryLiteral != 0 {
			bits >>= e & 63
			n -= uint(e)
			store8(out, op, uint8(e>>16))
			room[0] = Token(e >> 16)
			op++
			at = 1
			if e = t.lit[bits&(1<<litBits-1)]; e&entryLiteral != 0 {
				bits >>= e & 63
				n -= uint(e)
				store8(out, op, uint8(e>>16))
				room[1] = Token(e >> 16)
				op++
				k += 2
				e = t.lit[bits&(1<<litBits-1)]
				bits |= load64(in, pos) << (n & 63)
				pos += int(^n >> 3 & 7)
				n |= 56
				continue
			}
			k++
		}
		if e&entryExcept != 0 {
			if e&entrySub != 0 {
				bits >>= litBits
				n -= litBits
				e = t.lit[e>>16+uint32(bits)&(1<<(e>>8&15)-1)]
			}
			if e&entryLiteral != 0 {
				bits >>= e & 63
				n -= uint(e)
				store8(out, op, uint8(e>>16))
				room[at] = Token(e >> 16)
				op++
				k++
				e = t.lit[bits&(1<<litBits-1)]
				bits |= load64(in, pos) << (n & 63)
				pos += int(^n >> 3 & 7)
				n |= 56
				continue
			}
			if e&entryExcept != 0 {
				bits >>= e & 63
				n -= uint(e)
				ended = e&entryEnd != 0
				if !ended {
					err = errLength
				}
				break
			}
		}
		length := int(e>>16) + int(bits&(1<<(e&63)-1)>>(e>>8&15))
		form := Token(0)
		if length == MaxLength && e&63 > e>>8&15 {
			form = LongForm
		}
		bits >>= e & 63
		n -= uint(e)
		d := t.dist[bits&(1<<distBits-1)]
		bits |= load64(in, pos) << (n & 63)
		pos += int(^n >> 3 & 7)
		n |= 56
		if d&entryExcept != 0 {
			if d&entrySub != 0 {
				bits >>= distBits
				n -= distBits
				d = t.dist[d>>16+uint32(bits)&(1<<(d>>8&15)-1)]
			}
			if d&entryExcept != 0 {
				err = errDist
				break
			}
		}
		distance := int(d>>16) + int(bits&(1<<(d&63)-1)>>(d>>8&15))
		bits >>= d & 63
		n -= uint(d)
		e = t.lit[bits&(1<<litBits-1)]
		bits |= load64(in, pos) << (n & 63)
		pos += int(^n >> 3 & 7)
		n |= 56
		if distance > op {
			err = errFar
			break
		}
		room[at] = Match(length, distance) | form
		k++
		if distance < 8 {
			copyNear(out, op, distance, length)
			op += length
		} else {
			from, end := op-distance, op+length
			store64(out, op, load64(out, from))
			store64(out, op+8, load64(out, from+8))
			for op += 16; op < end; op += 16 {
				from += 16
				store64(out, op, load64(out, from))
				store64(out, op+8, load64(out, from+8))
			}
			op = end
		}
	}
	p.pos, p.bits, p.n = pos, bits, n&63
	p.unread()
	return op, k, ended, err
}
