package deflate

import (
	"math/bits"
	"sync"
)

// Decoding tables. The next bits of the input index a table; codes that are
// longer than its index go on in a subtable behind it. An entry is
//
//	bits 0–5    bits to take: the code (in a subtable: its rest), and extra bits
//	bit 6       exceptional: see below
//	bit 7       a literal
//	bits 8–11   bits of the code (or its rest)
//	bits 16–31  the literal, or the base of the length or distance
//
// Bits 0–5 are the lowest so that they can be shifted by and subtracted as they
// are. Exceptional entries are
//
//	bit 12      the end of the block
//	bit 13      a subtable: its index bits are in bits 8–11, where it begins is
//	            in bits 16–31, and bits 0–5 are what indexes the main table
//
// and with neither, a code that stands for nothing, or for nothing allowed.
const (
	entryExcept  = 1 << 6
	entryLiteral = 1 << 7
	entryEnd     = 1 << 12
	entrySub     = 1 << 13

	litBits  = 11
	distBits = 8

	// How long a table with its subtables gets at most, for any code of that many
	// symbols and MaxBits bits (zlib's examples/enough.c computes them).
	litEnough  = 2342
	distEnough = 402
)

type (
	litTable  [litEnough]uint32
	distTable [distEnough]uint32
	codeTable [1 << MaxCode]uint32
)

// What symbols stand for: entries that want the length of the code added.
var (
	litEntries  [NumLit]uint32
	distEntries [NumDist]uint32
	codeEntries [NumCode]uint32
)

// fixedTables are those of blocks that bring none.
var fixedTables = sync.OnceValue(func() *tables {
	t := new(tables)
	lit := FixedLit()
	t.lit.build(lit[:])
	t.dist.build(fixedDist[:])
	return t
})

// initTables runs when the facts of symbols are there.
func initTables() {
	for s := range litEntries {
		switch i := s - FirstMatch; {
		case s < EndSymbol:
			litEntries[s] = entryLiteral | uint32(s)<<16
		case s == EndSymbol:
			litEntries[s] = entryExcept | entryEnd
		case i < len(LengthBase):
			litEntries[s] = uint32(LengthBase[i])<<16 | uint32(LengthExtra[i])
		default:
			litEntries[s] = entryExcept
		}
	}
	for s := range distEntries {
		distEntries[s] = entryExcept
		if s < MaxDist {
			distEntries[s] = (uint32(DistBase[s])+1)<<16 | uint32(DistExtra[s])
		}
	}
	for s := range codeEntries {
		codeEntries[s] = uint32(s) << 16
	}
}

// completeness of a code.
type completeness int

const (
	broken completeness = iota // some bits have two meanings, or none
	complete
	single // one code of one bit
	none
)

func (t *litTable) build(lengths []uint8) completeness {
	return buildTable(t[:], litBits, lengths, litEntries[:])
}

func (t *distTable) build(lengths []uint8) completeness {
	return buildTable(t[:], distBits, lengths, distEntries[:])
}

func (t *codeTable) build(lengths []uint8) completeness {
	return buildTable(t[:], MaxCode, lengths, codeEntries[:])
}

// entry is that of a symbol whose code, or the rest of it, has n bits.
func entry(e uint32, n int) uint32 { return e + uint32(n)<<8 + uint32(n) }

// buildTable makes the table of a canonical code (RFC 1951, section 3.2.2). A
// broken one leaves it as it was.
func buildTable(t []uint32, tableBits int, lengths []uint8, entries []uint32) completeness {
	var count, offset [MaxBits + 2]int
	for _, n := range lengths {
		count[n&15]++
	}
	left, longest := 1<<MaxBits, 0
	for n := 1; n <= MaxBits; n++ {
		if count[n] > 0 {
			longest = n
		}
		left -= count[n] << (MaxBits - n)
		offset[n+1] = offset[n] + count[n]
	}
	if left != 0 {
		return buildSmall(t[:1<<tableBits], lengths, entries, longest, left)
	}
	var sorted [NumLit]uint16 // symbols in the order of their codes
	for s, n := range lengths {
		if n != 0 {
			sorted[offset[n]] = uint16(s)
			offset[n]++
		}
	}
	fillTable(t, tableBits, &count, sorted[:offset[longest]], entries)
	return complete
}

// buildSmall makes the table of no code, or of one of one bit.
func buildSmall(t []uint32, lengths []uint8, entries []uint32, longest, left int) completeness {
	if left < 0 || longest > 1 {
		return broken
	}
	for i := range t {
		t[i] = entryExcept | 1
	}
	for s, n := range lengths {
		if n == 1 {
			for i := 0; i < len(t); i += 2 {
				t[i] = entry(entries[s], 1)
			}
			return single
		}
	}
	return none
}

// fillTable fills in a complete code. Codes have their first bit in bit 0.
// Entries of n bits fill the first 1<<n of the table, which is doubled whenever
// n grows.
func fillTable(t []uint32, tableBits int, count *[MaxBits + 2]int, sorted []uint16, entries []uint32) {
	n := 1
	for count[n] == 0 {
		n++
	}
	size, code := 1<<n, 0 // as if a table of n bits were there
	done := min(n, tableBits)
	sub, subBits, prefix := 0, 0, -1
	end := 1 << tableBits
	for _, s := range sorted {
		for count[n] == 0 {
			n++
			size <<= 1
			if n <= tableBits {
				copy(t[size>>1:size], t[:size>>1])
				done = n
			}
		}
		if n <= tableBits {
			t[code] = entry(entries[s], n)
		} else {
			if p := code & (1<<tableBits - 1); p != prefix {
				prefix, sub = p, end
				subBits = n - tableBits
				for used := count[n]; used < 1<<subBits; {
					subBits++
					used = used<<1 + count[tableBits+subBits]
				}
				end += 1 << subBits
				t[p] = entryExcept | entrySub | uint32(sub)<<16 | uint32(subBits)<<8 | uint32(tableBits)
			}
			e := entry(entries[s], n-tableBits)
			for i := code >> tableBits; i < 1<<subBits; i += 1 << (n - tableBits) {
				t[sub+i] = e
			}
		}
		count[n]--
		// The next code, carrying from its last bit to its first.
		high := bits.Len(uint(code ^ (size - 1)))
		if high == 0 {
			break
		}
		bit := 1 << (high - 1)
		code = code&(bit-1) | bit
	}
	for ; done < tableBits; done++ {
		copy(t[1<<done:2<<done], t[:1<<done])
	}
}
