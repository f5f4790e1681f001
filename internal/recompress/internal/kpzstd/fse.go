package kpzstd

import "math/bits"

const (
	minTableLog  = 5
	seqTableLog  = 8 // the most that tables of sequences have
	maxSymbols   = 64
	impossible   = 1<<32 - 1 // cost of symbols that a table has not
	costFraction = 8         // bits behind the point in costs
)

// step tells how the state goes on behind a symbol: the number of bits to write
// is (state+bits)>>16, the next state is at (state>>that number)+find.
type step struct {
	bits uint32
	find int32
}

// fseTable is a table of finite state entropy for writing. The zero value has no
// symbols.
type fseTable struct {
	log   uint8
	n     int // symbols; 0 is that the table cannot be used
	rle   bool
	only  uint8 // the symbol of a table with rle
	norm  [maxSymbols]int16
	steps [maxSymbols]step
	next  [1 << seqTableLog]uint16
}

func highBit(v uint32) uint8 { return uint8(bits.Len32(v) - 1) }

// tableLog chooses the accuracy for a number of symbols in use. What it does with
// less than five of them comes from arithmetic in bytes, and is part of the model.
func tableLog(most, minBitsSrc uint8, length, symbols int) uint8 {
	log := most
	minBits := min(minBitsSrc, highBit(uint32(symbols-1))+2)
	if m := highBit(uint32(length-1)) - 2; m < log {
		log = m
	}
	return min(max(log, minBits, minTableLog), most)
}

// roundUp is the fractions, by the whole part, from which on a share is rounded up.
var roundUp = [8]uint64{0, 473195, 504333, 520860, 550000, 700000, 750000, 830000}

// normalize shares the states among symbols that occur count times, length in
// sum. At least two symbols occur.
func (t *fseTable) normalize(count []uint32, length int, log uint8) bool {
	t.log, t.n, t.rle = log, len(count), false
	shift := 62 - uint(log)
	unit := (uint64(1) << 62) / uint64(length)
	fraction := uint64(1) << (shift - 20)
	low := uint32(length >> log)
	left := int16(1) << log
	largest, top := 0, int16(0)
	for i, c := range count {
		switch {
		case c == 0:
			t.norm[i] = 0
		case c <= low:
			t.norm[i] = -1
			left--
		default:
			share := int16(uint64(c) * unit >> shift)
			if share < 8 && uint64(c)*unit-uint64(share)<<shift > fraction*roundUp[share] {
				share++
			}
			if share > top {
				top, largest = share, i
			}
			t.norm[i] = share
			left -= share
		}
	}
	if -left >= t.norm[largest]>>1 {
		return t.normalizeAgain(count, uint32(length))
	}
	t.norm[largest] += left
	return true
}

// normalizeAgain shares in another way if the first would take too much from the
// symbol that occurs most.
func (t *fseTable) normalizeAgain(count []uint32, total uint32) bool {
	const open = -2
	low, one := total>>t.log, total*3>>(t.log+1)
	given := uint32(0)
	for i, c := range count {
		switch {
		case c == 0:
			t.norm[i] = 0
			continue
		case c <= low:
			t.norm[i] = -1
		case c <= one:
			t.norm[i] = 1
		default:
			t.norm[i] = open
			continue
		}
		given++
		total -= c
	}
	left := uint32(1)<<t.log - given
	if total/left > one {
		one = total * 3 / (left * 2)
		for i, c := range count {
			if t.norm[i] == open && c <= one {
				t.norm[i] = 1
				given++
				total -= c
			}
		}
		left = uint32(1)<<t.log - given
	}
	if given == uint32(len(count))+1 {
		return false // cannot be: more symbols than there are
	}
	if total == 0 {
		return t.spreadRest(left)
	}
	return t.shareRest(count, left, total, open)
}

// spreadRest gives what is left to symbols in turn.
func (t *fseTable) spreadRest(left uint32) bool {
	for i := 0; left > 0; i = (i + 1) % t.n {
		if t.norm[i] > 0 {
			t.norm[i]++
			left--
		}
	}
	return true
}

// shareRest gives what is left to the open symbols by how often they occur.
func (t *fseTable) shareRest(count []uint32, left, total uint32, open int16) bool {
	shift := 62 - uint(t.log)
	half := uint64(1)<<(shift-1) - 1
	unit := (uint64(left)<<shift + half) / uint64(total)
	at := half
	for i, c := range count {
		if t.norm[i] != open {
			continue
		}
		end := at + uint64(c)*unit
		share := uint32(end>>shift) - uint32(at>>shift)
		if share < 1 {
			return false
		}
		t.norm[i] = int16(share)
		at = end
	}
	return true
}

// build makes the table of states from norm.
func (t *fseTable) build() {
	size := uint32(1) << t.log
	var symbols [1 << seqTableLog]uint8
	var start [maxSymbols]uint16
	last := size - 1
	at := uint16(0)
	for i, v := range t.norm[:t.n] {
		start[i] = at
		if v == -1 {
			symbols[last] = uint8(i)
			last--
			at++
		} else {
			at += uint16(v)
		}
	}
	stride, mask := size>>1+size>>3+3, size-1
	pos := uint32(0)
	for i, v := range t.norm[:t.n] {
		for ; v > 0; v-- {
			symbols[pos] = uint8(i)
			for pos = (pos + stride) & mask; pos > last; {
				pos = (pos + stride) & mask
			}
		}
	}
	for i, s := range symbols[:size] {
		t.next[start[s]] = uint16(size) + uint16(i)
		start[s]++
	}
	t.buildSteps()
}

func (t *fseTable) buildSteps() {
	log := uint32(t.log)
	total := int32(0)
	for i, v := range t.norm[:t.n] {
		switch v {
		case 0:
		case -1, 1:
			t.steps[i] = step{log<<16 - 1<<log, total - 1}
			total++
		default:
			most := log - uint32(highBit(uint32(v-1)))
			t.steps[i] = step{most<<16 - uint32(v)<<most, total - int32(v)}
			total += int32(v)
		}
	}
}

// setOnly makes a table of one symbol that takes no bits.
func (t *fseTable) setOnly(symbol uint8) {
	t.log, t.rle, t.only = 0, true, symbol
	t.next[0] = 0
	t.steps[symbol] = step{}
}

// first is the state from which a stream ends with a symbol.
func (t *fseTable) first(symbol uint8) uint32 {
	if t.rle {
		return 0
	}
	s := t.steps[symbol]
	n := (s.bits + 1<<15) >> 16
	return uint32(t.next[int32((n<<16-s.bits)>>n)+s.find])
}

// appendHeader appends the shares as a decoder needs them (RFC 8878, 4.1.1).
func (t *fseTable) appendHeader(out []byte) []byte {
	var acc uint32 = uint32(t.log - minTableLog)
	have := uint(4)
	left, threshold := int32(1)<<t.log+1, int32(1)<<t.log
	width := uint(t.log) + 1
	flush := func() {
		if have > 16 {
			out = append(out, byte(acc), byte(acc>>8))
			acc >>= 16
			have -= 16
		}
	}
	zeros := false
	for i := 0; left > 1; {
		if zeros {
			from := i
			for t.norm[i] == 0 {
				i++
			}
			for ; i >= from+24; from += 24 {
				acc += 0xffff << have
				out = append(out, byte(acc), byte(acc>>8))
				acc >>= 16
			}
			for ; i >= from+3; from += 3 {
				acc += 3 << have
				have += 2
			}
			acc += uint32(i-from) << have
			have += 2
			flush()
		}
		v := int32(t.norm[i])
		i++
		spare := 2*threshold - 1 - left
		left -= max(v, -v)
		v++
		zeros = v == 1
		if v >= threshold {
			v += spare
		}
		acc += uint32(v) << have
		have += width
		if v < spare {
			have--
		}
		for left < threshold {
			width--
			threshold >>= 1
		}
		flush()
	}
	out = append(out, byte(acc), byte(acc>>8))
	return out[:len(out)-2+int(have+7)/8]
}

// cost is how many bits symbols that occur count times take, about; impossible
// if the table lacks one.
func (t *fseTable) cost(count []uint32) uint32 {
	if t.n < len(count) || t.rle {
		return impossible
	}
	bad := (uint32(t.log) + 1) << costFraction
	sum := uint32(0)
	for i, c := range count {
		if c == 0 {
			continue
		}
		if t.norm[i] == 0 {
			return impossible
		}
		least := t.steps[i].bits >> 16
		beyond := (least+1)<<16 - (t.steps[i].bits + 1<<t.log)
		one := (least+1)<<costFraction - beyond<<costFraction>>t.log
		if one > bad {
			return impossible
		}
		sum += c * one
	}
	return sum >> costFraction
}
