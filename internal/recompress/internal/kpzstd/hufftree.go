package kpzstd

import "slices"

const (
	maxHuffBits = 11 // the longest code of literals
	weightLog   = 6  // accuracy of the table that weights are written with
)

// huffTable is a prefix code of bytes; the zero value has no codes.
type huffTable struct {
	codes   [256]uint32 // the code, its length from bit 16
	log     uint8       // length of the longest code
	symbols int         // the last byte that has a code, plus 1; 0 is that there is no table
}

func (t *huffTable) length(b int) uint8 { return uint8(t.codes[b] >> 16) }

// size is how many bytes a content takes, about.
func (t *huffTable) size(count []uint32) int {
	sum := uint32(7)
	for i, c := range count {
		sum += t.codes[i] >> 16 * c
	}
	return int(sum >> 3)
}

// covers is that every byte that occurs has a code.
func (t *huffTable) covers(count []uint32) bool {
	if t.symbols == 0 {
		return false
	}
	for i, c := range count {
		if c != 0 && t.codes[i] == 0 {
			return false
		}
	}
	return true
}

// huffBuilder makes codes; it holds what is used again and again.
type huffBuilder struct {
	order [256]uint32 // bytes that occur: count<<8 | ^byte, those that occur most first
	bits  [256]uint8  // lengths, in the same order
	inner [256]uint32 // counts of inner nodes
	up    [512]uint16 // parents: of leaves in their order, of inner nodes from 256
}

// build makes the code for bytes that occur count times, length in sum. At least
// two bytes occur, and the last of count does.
func (h *huffBuilder) build(t *huffTable, count []uint32, length int) {
	symbols := len(count)
	log := uint8(maxHuffBits)
	minBits := min(highBit(uint32(length))+1, highBit(uint32(symbols-1))+2)
	if m := highBit(uint32(length-1)) - 1; m < log {
		log = m
	}
	log = min(max(log, minBits, minTableLog), maxHuffBits)

	n := 0
	for i, c := range count {
		if c > 0 {
			h.order[n] = c<<8 | uint32(^uint8(i))
			n++
		}
	}
	slices.Sort(h.order[:n])
	slices.Reverse(h.order[:n])
	h.grow(n)
	log = h.limit(n, log)
	h.assign(t, n, log)
	t.symbols, t.log = symbols, log
}

// grow joins the two rarest nodes again and again; of equal ones an inner node
// goes first. Lengths of the leaves come out.
func (h *huffBuilder) grow(n int) {
	leaf, node := n-1, 0 // next of each kind
	take := func(made int) int {
		if leaf >= 0 && (node >= made || h.order[leaf]>>8 < h.inner[node]) {
			leaf--
			return leaf + 1
		}
		node++
		return 256 + node - 1
	}
	weight := func(i int) uint32 {
		if i < 256 {
			return h.order[i] >> 8
		}
		return h.inner[i-256]
	}
	for made := 0; made < n-1; made++ {
		a := take(made)
		b := take(made)
		h.inner[made] = weight(a) + weight(b)
		h.up[a], h.up[b] = uint16(made), uint16(made)
	}
	var depth [256]uint8
	for i := n - 3; i >= 0; i-- {
		depth[i] = depth[h.up[256+i]] + 1
	}
	for i := range n {
		h.bits[i] = depth[h.up[i]] + 1
	}
}

// limit shortens codes to log bits, and returns the length of the longest. What
// that costs is paid back by lengthening others, where it costs least by the rule
// of the encoder.
func (h *huffBuilder) limit(n int, log uint8) uint8 {
	longest := h.bits[n-1]
	if longest <= log {
		return longest
	}
	debt := 0
	unit := 1 << (longest - log)
	i := n - 1
	for ; h.bits[i] > log; i-- {
		debt += unit - 1<<(longest-h.bits[i])
		h.bits[i] = log
	}
	for h.bits[i] == log {
		i--
	}
	debt >>= longest - log

	// last[k] is the rarest byte whose code is k bits shorter than log.
	const none = -1
	var last [maxHuffBits + 2]int
	for k := range last {
		last[k] = none
	}
	for p, cur := i, log; p >= 0; p-- {
		if h.bits[p] < cur {
			cur = h.bits[p]
			last[log-cur] = p
		}
	}
	for debt > 0 {
		debt -= h.lengthen(&last, log, debt)
	}
	for ; debt < 0; debt++ {
		if last[1] == none {
			for h.bits[i] == log {
				i--
			}
			h.bits[i+1]--
			last[1] = i + 1
			continue
		}
		last[1]++
		h.bits[last[1]]--
	}
	return log
}

// lengthen makes one code longer, and returns how much of the debt that pays.
func (h *huffBuilder) lengthen(last *[maxHuffBits + 2]int, log uint8, debt int) int {
	const none = -1
	k := int(highBit(uint32(debt))) + 1
	for ; k > 1; k-- {
		high, low := last[k], last[k-1]
		if high == none {
			continue
		}
		if low == none || h.order[high]>>8 <= 2*(h.order[low]>>8) {
			break
		}
	}
	for k <= maxHuffBits && last[k] == none {
		k++
	}
	if last[k-1] == none {
		last[k-1] = last[k]
	}
	h.bits[last[k]]++
	if last[k] == 0 {
		last[k] = none
	} else {
		last[k]--
		if h.bits[last[k]] != log-uint8(k) {
			last[k] = none
		}
	}
	return 1 << (k - 1)
}

// assign gives out codes by length, longest first, and among equals by byte.
func (h *huffBuilder) assign(t *huffTable, n int, log uint8) {
	var number, next [maxHuffBits + 2]uint32
	clear(t.codes[:])
	for i := range n {
		number[h.bits[i]]++
		t.codes[^uint8(h.order[i])] = uint32(h.bits[i]) << 16
	}
	at := uint32(0)
	for k := log; k > 0; k-- {
		next[k] = at
		at = (at + number[k]) >> 1
	}
	for i, c := range t.codes {
		if c != 0 {
			k := c >> 16
			t.codes[i] |= next[k]
			next[k]++
		}
	}
}

// appendTable appends the weights of a table (RFC 8878, 4.2.1); false if they
// cannot be written.
func (h *huffBuilder) appendTable(out []byte, t *huffTable) ([]byte, bool) {
	var weights [256]uint8
	var count [16]uint32
	last := t.symbols - 1 // whose weight follows from the others
	for i := range last {
		if l := t.length(i); l > 0 {
			weights[i] = t.log + 1 - l
		}
		count[weights[i]]++
	}
	if last >= 2 {
		if b, ok := appendWeights(append(out, 0), weights[:last], &count); ok && len(b)-len(out)-1 < t.symbols>>1 {
			b[len(out)] = byte(len(b) - len(out) - 1)
			return b, true
		}
	}
	if last > 128 {
		return out, false
	}
	out = append(out, 127+byte(last))
	for i := 0; i < last; i += 2 {
		out = append(out, weights[i]<<4|weights[i+1])
	}
	return out, true
}

// appendWeights writes weights with two states in turn; false if that makes them
// no shorter.
func appendWeights(out []byte, weights []uint8, count *[16]uint32) ([]byte, bool) {
	n := len(weights)
	symbols, most := 0, uint32(0)
	for i, c := range count {
		if c > 0 {
			symbols = i + 1
		}
		most = max(most, c)
	}
	if int(most) == n || most == 1 || int(most) < n>>7 || n <= 2 {
		return nil, false
	}
	var t fseTable
	log := tableLog(weightLog, highBit(uint32(n-1))+1, n, symbols)
	if !t.normalize(count[:symbols], n, log) {
		return nil, false
	}
	from := len(out)
	out = t.appendHeader(out)
	t.build()
	var room [512]byte
	w := bitWriter{buf: room[:]}
	// The last weight is for the second state if their number is even, else for the
	// first.
	state := [2]uint32{t.first(weights[n-1]), t.first(weights[n-2])}
	for i := n - 3; i >= 0; i-- {
		st := &state[(n-1-i)&1]
		s := t.steps[weights[i]]
		k := (*st + s.bits) >> 16
		w.add(uint64(*st&(1<<k-1)), uint(k))
		*st = uint32(t.next[int32(*st>>k)+s.find])
		w.flush()
	}
	first, second := state[0], state[1]
	if n&1 == 0 {
		first, second = second, first
	}
	mask := uint32(1)<<t.log - 1
	w.add(uint64(second&mask), uint(t.log))
	w.add(uint64(first&mask), uint(t.log))
	w.flush()
	w.end()
	out = append(out, room[:w.pos]...)
	return out, len(out)-from < n
}
