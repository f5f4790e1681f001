package deflate

// fast takes tokens while there is plenty of input and output. It returns with
// nil where slow has to go on. See wide.go on why it stays inside.
//
// It is one long function because calls would cost it its registers. The low 6
// bits of n count bits; beyond them bits holds those that follow, which filling
// up puts there again. In each round e is what bits begins with, looked up before
// they are filled up to 56 or more, so that looking up does not wait for that:
// two literals and a length take 42 at most, which leaves the 8 that index a
// distance, and distances take 28 after filling up.
func (f *Inflater) fast(out []byte, op, low int) (int, error) {
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
			store8(out, op, uint8(e>>16))
			op++
			if e = t.lit[bits&(1<<litBits-1)]; e&entryLiteral != 0 {
				bits >>= e & 63
				n -= uint(e)
				store8(out, op, uint8(e>>16))
				op++
				if e = t.lit[bits&(1<<litBits-1)]; e&entryLiteral != 0 {
					bits >>= e & 63
					n -= uint(e)
					store8(out, op, uint8(e>>16))
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
				store8(out, op, uint8(e>>16))
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
	f.pos, f.bits, f.n = pos, bits, n&63
	f.unread()
	if ended {
		f.endBlock()
	}
	return op, err
}
