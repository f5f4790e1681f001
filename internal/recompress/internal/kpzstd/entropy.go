package kpzstd

import "math"

// bitsPerByte is what level "best" takes literals of a block for, by the entropy
// of its bytes: bits of one, times 1024.
//
// The encoder computes it in floating point, so this does too. Conversions keep
// compilers from fusing operations: every step rounds as on its own, on every
// machine.
func bitsPerByte(block []byte) int32 {
	var hist [256]uint32
	histogram(&hist, block)
	sum := float64(0)
	unit := 1 / float64(len(block))
	for _, c := range hist {
		if c > 0 {
			n := float64(c)
			sum += math.Ceil(float64(-log2(float64(n*unit)) * n))
		}
	}
	return max(int32(int(sum)*1024/len(block)), 1024)
}

// log2 is the binary logarithm of x, more than 0 and no more than 1, with the error
// that the common approximation of the natural logarithm by a polynomial in
// f/(2+f) has.
func log2(x float64) float64 {
	frac, exp := math.Frexp(x)
	if frac == 0.5 {
		return float64(exp - 1)
	}
	return float64(float64(ln(frac)*(1/math.Ln2)) + float64(exp))
}

// ln is the natural logarithm of x, from 0.5 to 1.
func ln(x float64) float64 {
	k := float64(0)
	if x < math.Sqrt2/2 {
		x *= 2
		k = -1
	}
	f := x - 1
	s := f / (2 + f)
	s2 := float64(s * s)
	s4 := float64(s2 * s2)
	odd := float64(s4 * 1.479819860511658591e-01)
	odd = float64(s4 * (odd + 1.818357216161805012e-01))
	odd = float64(s4 * (odd + 2.857142874366239149e-01))
	odd = float64(s2 * (odd + 6.666666666666735130e-01))
	even := float64(s4 * 1.531383769920937332e-01)
	even = float64(s4 * (even + 2.222219843214978396e-01))
	even = float64(s4 * (even + 3.999999999940941908e-01))
	half := float64(float64(0.5*f) * f)
	low := float64(s*(half+float64(odd+even))) + float64(k*1.90821492927058770002e-10)
	return float64(k*6.93147180369123816490e-01) - ((half - low) - f)
}
