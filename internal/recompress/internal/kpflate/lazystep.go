package kpflate

import "github.com/imgpack/imgpack/internal/deflate"

// step plays the encoder at one position. It tells whether it goes on.
func (z *lazy) step() bool {
	ahead := z.end - z.index
	if ahead < lazyAhead {
		if !z.sync {
			return z.move()
		}
		if ahead <= 0 {
			if z.pending {
				z.literal()
				z.pending = false
			}
			return false
		}
	}
	z.visit()
	length, distance := z.length, z.distance
	z.length, z.distance = lazyMinimum-1, 0
	low := max(z.index-window, z.low, 0)
	if z.candidate >= low && ahead > length && length < z.effort.lazy {
		z.search(low, min(ahead, deflate.MaxLength))
	}
	switch {
	case length >= lazyMinimum && z.length <= length:
		z.take(length, distance, low, ahead)
	case z.pending:
		z.pass()
	default:
		z.index++
		z.pending = true
		if z.length >= lazyMinimum {
			z.plainCount = 0
		}
	}
	return true
}

// visit links the present position and tells who comes before it.
func (z *lazy) visit() {
	if z.index >= z.linkEnd {
		return
	}
	if z.linked <= z.index {
		z.linked = z.index
		z.link(z.index + 1)
	}
	z.candidate = int(z.prev[z.index%window]) - 1
}

// search looks for a match of at most most bytes at the present position.
func (z *lazy) search(low, most int) {
	at := z.index
	data := z.data[:at+most]
	nice := min(z.nice, most)
	gain := 4
	tries, looks := z.chain, 0
	for i := z.candidate; tries > 0 && i < at; tries-- {
		if data[i+z.length] == data[at+z.length] {
			looks++
			if n := common(data, at, i); n > z.length && (!z.weighs() || z.gains(n, at-i, &gain)) {
				z.length, z.distance = n, at-i
				if n >= nice {
					break
				}
			}
		}
		if i <= low {
			break
		}
		if i = int(z.prev[i%window]) - 1; i < low {
			break
		}
	}
	z.steps += int64(z.chain - tries + lookSteps*looks)
}

// gains tells whether a match saves more bits than the best so far.
func (z *lazy) gains(length, distance int, gain *int) bool {
	if z.index < z.bitsAt {
		return false // it came back here
	}
	bits := z.bits[z.index-z.bitsAt:]
	// The encoder takes the next greater distance, and what it takes for the
	// greatest is an accident.
	extra := 6
	if distance < window {
		extra = int(deflate.DistExtra[deflate.Match(length, distance+1).DistSymbol()])
	}
	extra += int(deflate.LengthExtra[deflate.Match(length, 1).LengthSymbol()-deflate.FirstMatch])
	n := int(bits[length]-bits[0]) - extra - 3
	if n <= *gain {
		return false
	}
	*gain = n
	return true
}

// take emits the match at the last position, or a longer one that is found by
// what is behind it.
func (z *lazy) take(length, distance, low, ahead int) {
	at := z.index - 1
	if length < deflate.MaxLength-lazyOff && at+length < z.linkEnd {
		h := load32(z.data, at+length) * prime4 >> (32 - lazyBits)
		t := int(z.head[h]) - 1 - length
		if at-t != distance && t > low+lazyOff {
			end := at + min(ahead, deflate.MaxLength+lazyOff)
			if n := common(z.data[:end], at+lazyOff, t+lazyOff); n > length {
				length, distance = z.extend(n, at, t), at-t
			}
		}
	}
	z.emit(deflate.Match(length, distance))
	to := z.index + length - 1
	z.linked = max(z.linked, min(z.index+1, z.linkEnd))
	z.link(min(to, z.linkEnd))
	z.index = to
	z.pending = false
	z.length, z.plainCount = lazyMinimum-1, 0
}

// extend makes a match of n bytes behind the first of lazyOff at a position
// longer to the left, and emits as literals what is not in it.
func (z *lazy) extend(n, at, t int) int {
	for i := lazyOff - 1; i >= 0; i-- {
		if n >= deflate.MaxLength || z.data[at+i] != z.data[t+i] {
			for range i + 1 {
				z.literal()
				z.index++
				z.visit()
			}
			return n
		}
		n++
	}
	return n
}

// pass emits the pending byte, and more where there were no matches for long.
func (z *lazy) pass() {
	if z.length >= lazyMinimum {
		z.plainCount = 0
	}
	z.plainCount++
	z.literal()
	z.index++
	n := int(z.plainCount) - z.chain
	if n <= 0 {
		return
	}
	for range 1 + n>>6 {
		if z.index >= z.end-1 {
			break
		}
		z.literal()
		z.visit()
		z.index++
	}
	z.literal()
	z.pending = false
}
