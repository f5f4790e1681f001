package deflate

// fastMarked is fast for values of 16 bits.
func (f *Inflater) fastMarked(out []uint16, op, low int) (int, error) {
	if len(f.in)-f.pos < enterRoom || len(out)-op < MinRoom {
		return op, nil
	}
	t := f.tables
	bits, n := f.bits, f.n
	in, pos := f.in, f.pos
	lastIn, lastOut := len(in)-tailRoom, len(out)-MinRoom
	var err error
	ended := false
	bits |= load64(in, pos) << (n & 63)
	pos += int(^n >> 3 & 7)
	n |= 56
	e := t.lit[bits&(1<<litBits-1)]
	for pos <= lastIn && op <= lastOut {
		if e&entryLiteral != 0 {
			bits >>= e & 63
			n -= uint(e)
			store16(out, op, uint16(e>>16))
			op++
			if e = t.lit[bits&(1<<litBits-1)]; e&entryLiteral != 0 {
				bits >>= e & 63
				n -= uint(e)
				store16(out, op, uint16(e>>16))
				op++
				if e = t.lit[bits&(1<<litBits-1)]; e&entryLiteral != 0 {
					bits >>= e & 63
					n -= uint(e)
					store16(out, op, uint16(e>>16))
					op++
					e = t.lit[bits&(1<<litBits-1)]
					bits |= load64(in, pos) << (n & 63)
					pos += int(^n >> 3 & 7)
					n |= 56
					continue
				}
			}
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
				store16(out, op, uint16(e>>16))
				op++
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
		if distance > op-low {
			err = errFar
			break
		}
		copyMarked(out, op, distance, length)
		op += length
	}
	f.pos, f.bits, f.n = pos, bits, n&63
	f.unread()
	if ended {
		f.endBlock()
	}
	return op, err
}

// copyMarked copies a match.
func copyMarked(out []uint16, op, distance, length int) {
	end := op + length
	if distance < 4 {
		for ; op < end; op++ {
			out[op] = out[op-distance]
		}
		return
	}
	for ; op < end; op += 4 {
		copy4(out, op, op-distance)
	}
}
