package deflate

// fastCopies is fast that puts matches of what is unknown into copies, while there
// is room. It returns their number.
func (f *Inflater) fastCopies(out []byte, op int, u *Unknown, copies []Copy) (int, int, error) {
	if len(f.in)-f.pos < enterRoom || len(out)-op < MinRoom {
		return op, 0, nil
	}
	t := f.tables
	bitmap, k := u.bits, 0
	bits, n := f.bits, f.n
	in, pos := f.in, f.pos
	lastIn, lastOut := len(in)-tailRoom, len(out)-MinRoom
	var err error
	ended := false
	bits |= load64(in, pos) << (n & 63)
	pos += int(^n >> 3 & 7)
	n |= 56
	e := t.lit[bits&(1<<litBits-1)]
	for pos <= lastIn && op <= lastOut && k < len(copies) {
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
		from := op - distance
		if from < 0 {
			err = errFar
			break
		}
		v := load64(bitmap, from>>3) >> (from & 7) & (1<<(length&63) - 1)
		if length > loadBits || distance < length {
			if u.mark(op, length, distance) {
				copies[k] = newCopy(op, length, distance)
				k++
			}
		} else {
			store64(bitmap, op>>3, load64(bitmap, op>>3)|v<<(op&7))
			copies[k] = newCopy(op, length, distance)
			k += int((v | -v) >> 63)
		}
		if distance < 8 {
			copyNear(out, op, distance, length)
			op += length
		} else {
			end := op + length
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
	return op, k, err
}
