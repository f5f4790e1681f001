package deflate

// fastTokens is Inflater.fast that also puts tokens at tokens[k:], while there
// are tokenRoom of them left.
func (p *Parser) fastTokens(out []byte, tokens []Token, op, k int) (int, int, bool, error) {
	in, pos, bits, n := p.in, p.pos, p.bits, p.n
	lit, dist := p.lit, p.dist
	lastIn, lastOut := len(in)-tailRoom, len(out)-MinRoom
	var err error
	ended := false
	for pos <= lastIn && op <= lastOut {
		if len(tokens)-k < tokenRoom {
			break
		}
		room := (*[tokenRoom]Token)(tokens[k:])
		bits |= load64(in, pos) << (n & 63)
		pos += int(^n >> 3 & 7)
		n |= 56
		e := lit[bits&(1<<litBits-1)]
		at := 0
		if e&entryLiteral != 0 {
			store16(out, op, uint16(e>>16))
			room[0], room[1] = Token(e>>16&0xff), Token(e>>24)
			at = int(e >> 8 & 3)
			op += at
			bits >>= e & 63
			n -= uint(e)
			if e = lit[bits&(1<<litBits-1)]; e&entryLiteral != 0 {
				store16(out, op, uint16(e>>16))
				room[at], room[at+1] = Token(e>>16&0xff), Token(e>>24)
				c := int(e >> 8 & 3)
				op += c
				k += at + c
				bits >>= e & 63
				n -= uint(e)
				continue
			}
			k += at
		}
		if e&entryExcept != 0 {
			if e&entrySub != 0 {
				bits >>= litBits
				n -= litBits
				e = lit[e>>16+uint32(bits)&(1<<(e>>8&15)-1)]
			}
			if e&entryLiteral != 0 {
				out[op] = byte(e >> 16)
				room[at&3] = Token(e >> 16 & 0xff)
				op++
				k++
				bits >>= e & 63
				n -= uint(e)
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
		long := Token(0)
		if length == MaxLength && e&63 > e>>8&15 {
			long = LongForm
		}
		bits >>= e & 63
		n -= uint(e)
		if n&63 < 28 {
			bits |= load64(in, pos) << (n & 63)
			pos += int(^n >> 3 & 7)
			n |= 56
		}
		d := dist[bits&(1<<distBits-1)]
		if d&entryExcept != 0 {
			if d&entrySub != 0 {
				bits >>= distBits
				n -= distBits
				d = dist[d>>16+uint32(bits)&(1<<(d>>8&15)-1)]
			}
			if d&entryExcept != 0 {
				err = errDist
				break
			}
		}
		distance := int(d>>16) + int(bits&(1<<(d&63)-1)>>(d>>8&15))
		bits >>= d & 63
		n -= uint(d)
		if distance > op {
			err = errFar
			break
		}
		room[at&3] = Match(length, distance) | long
		k++
		copyMatch(out, op, distance, length)
		op += length
	}
	p.pos, p.bits, p.n = pos, bits, n&63
	p.unread()
	return op, k, ended, err
}
