package deflate

// fastMarked is fast for values of 16 bits.
func (f *Inflater) fastMarked(out []uint16, op, low int) (int, error) {
	if len(f.in)-f.pos < enterRoom {
		return op, nil
	}
	t := f.tables
	in, pos, bits, n := f.in, f.pos, f.bits, f.n
	lastIn, lastOut := len(in)-tailRoom, len(out)-MinRoom
	var err error
	ended := false
	for pos <= lastIn && op <= lastOut {
		bits |= load64(in, pos) << (n & 63)
		pos += int(^n >> 3 & 7)
		n |= 56
		e := t.lit[bits&(1<<litBits-1)]
		for room := out[op : op+3]; len(room) > 0 && e&entryLiteral != 0; room = room[1:] {
			bits >>= e & 63
			n -= uint(e)
			room[0] = uint16(e >> 16)
			op++
			e = t.lit[bits&(1<<litBits-1)]
		}
		if e&entryLiteral != 0 {
			continue
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
				out[op] = uint16(e >> 16)
				op++
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
		bits |= load64(in, pos) << (n & 63)
		pos += int(^n >> 3 & 7)
		n |= 56
		d := t.dist[bits&(1<<distBits-1)]
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
		if distance > op-low {
			err = errFar
			break
		}
		copyMarked(out[op-distance:op+length], distance)
		op += length
	}
	f.pos, f.bits, f.n = pos, bits, n&63
	f.unread()
	if ended {
		f.endBlock()
	}
	return op, err
}

// copyMarked fills w from at on with what is at bytes before.
func copyMarked(w []uint16, at int) {
	if to := w[at:]; len(to) <= at {
		copy(to, w)
		return
	}
	for i, v := range w[:len(w)-at] {
		w[at+i] = v
	}
}
