// Package rangecoder packs bits whose probabilities are learnt on the way. It is
// the coder of recipes, and frozen as their format is: docs/recipe-format.md has
// it in words.
package rangecoder

import "math"

// Prob learns how likely a bit is to be 0. The zero value holds both equally
// likely.
type Prob struct {
	half uint16 // probability of a 0 in 1/65536, less one half
	seen uint8  // bits, up to len(rates)-1
}

// rates is by how many bits the distance to the truth shrinks: fast at first.
var rates = [16]uint8{1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5}

const top = 1 << 24 // range is at least this between bits

func (p *Prob) zero() uint32 { return uint32(p.half ^ 0x8000) }

func (p *Prob) learn(bit int) {
	z, rate := p.zero(), rates[p.seen&15]
	if bit == 0 {
		z += (1<<16 - z) >> rate
	} else {
		z -= z >> rate
	}
	p.half = uint16(z) ^ 0x8000
	if p.seen < uint8(len(rates)-1) {
		p.seen++
	}
}

// Encoder packs bits. The zero value is not ready: call Reset.
type Encoder struct {
	out     []byte
	low     uint64 // 32 bits and a carry
	size    uint32 // of the range
	cache   byte   // last byte, that a carry may still change
	pending int    // bytes ff after it
}

// Reset begins anew. What Finish returned before is not valid any more.
func (e *Encoder) Reset() {
	*e = Encoder{out: e.out[:0], size: math.MaxUint32}
}

// Len is about how many bytes Finish would return.
func (e *Encoder) Len() int { return len(e.out) + e.pending }

// Bit packs a bit.
func (e *Encoder) Bit(p *Prob, bit int) {
	bound := e.size >> 16 * p.zero()
	if bit == 0 {
		e.size = bound
	} else {
		e.low += uint64(bound)
		e.size -= bound
	}
	p.learn(bit)
	for e.size < top {
		e.size <<= 8
		e.shift()
	}
}

// Direct packs the n low bits of v, at most 32, the highest first, as they are.
func (e *Encoder) Direct(v uint32, n int) {
	for n--; n >= 0; n-- {
		e.size >>= 1
		if v>>n&1 != 0 {
			e.low += uint64(e.size)
		}
		if e.size < top {
			e.size <<= 8
			e.shift()
		}
	}
}

// shift moves the highest byte of low out.
func (e *Encoder) shift() {
	if e.low < 0xff<<24 || e.low > math.MaxUint32 {
		carry := byte(e.low >> 32)
		e.out = append(e.out, e.cache+carry)
		for ; e.pending > 0; e.pending-- {
			e.out = append(e.out, 0xff+carry)
		}
		e.cache = byte(e.low >> 24)
	} else {
		e.pending++
	}
	e.low = e.low << 8 & math.MaxUint32
}

// Finish returns what was packed, valid until the next Reset. It ends with as
// few bytes as tell it; the decoder takes what is missing for zeros.
func (e *Encoder) Finish() []byte {
	for n := 32; n >= 0; n-- {
		v := (e.low + 1<<n - 1) >> n << n
		if v < e.low+uint64(e.size) {
			e.low = v
			break
		}
	}
	for range 5 {
		e.shift()
	}
	out := e.out[1:] // the first is always 0
	for len(out) > 0 && out[len(out)-1] == 0 {
		out = out[:len(out)-1]
	}
	return out
}

// Decoder unpacks what an Encoder packed, when asked for the same bits with the
// same Probs. It never fails: asked for other bits it gives any.
type Decoder struct {
	in   []byte
	code uint32
	size uint32
}

// Reset begins with in, which must not change meanwhile.
func (d *Decoder) Reset(in []byte) {
	*d = Decoder{in: in, size: math.MaxUint32}
	for range 4 {
		d.next()
	}
}

// Rest is the number of bytes that were not asked for.
func (d *Decoder) Rest() int { return len(d.in) }

func (d *Decoder) next() {
	d.code <<= 8
	if len(d.in) > 0 {
		d.code |= uint32(d.in[0])
		d.in = d.in[1:]
	}
}

// Bit unpacks a bit.
func (d *Decoder) Bit(p *Prob) (bit int) {
	bound := d.size >> 16 * p.zero()
	if d.code < bound {
		d.size = bound
	} else {
		bit = 1
		d.code -= bound
		d.size -= bound
	}
	p.learn(bit)
	for d.size < top {
		d.size <<= 8
		d.next()
	}
	return bit
}

// Direct unpacks n bits, at most 32.
func (d *Decoder) Direct(n int) (v uint32) {
	for ; n > 0; n-- {
		d.size >>= 1
		v <<= 1
		if d.code >= d.size {
			d.code -= d.size
			v |= 1
		}
		if d.size < top {
			d.size <<= 8
			d.next()
		}
	}
	return v
}
