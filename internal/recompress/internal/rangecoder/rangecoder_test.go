package rangecoder

import (
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

// step is a bit with a context, or up to 32 bits without one.
type step struct {
	context int // -1 is none
	value   uint32
	n       int
}

func steps(seed uint64, count int) []step {
	r := rand.New(rand.NewPCG(seed, 1))
	s := make([]step, count)
	for i := range s {
		if s[i].context = r.IntN(8) - 1; s[i].context < 0 {
			s[i].n = r.IntN(33)
			s[i].value = uint32(r.Uint64() & (1<<s[i].n - 1))
		} else if r.IntN(1<<(2*s[i].context)) == 0 {
			s[i].value = 1
		}
	}
	return s
}

func pack(e *Encoder, s []step) []byte {
	e.Reset()
	var probs [8]Prob
	for _, v := range s {
		if v.context < 0 {
			e.Direct(v.value, v.n)
		} else {
			e.Bit(&probs[v.context], int(v.value))
		}
	}
	return e.Finish()
}

func TestRoundTrip(t *testing.T) {
	var e Encoder
	var d Decoder
	for seed := range uint64(3000) {
		s := steps(seed, int(seed)/2)
		packed := pack(&e, s)
		d.Reset(packed)
		var probs [8]Prob
		for i, v := range s {
			var got uint32
			if v.context < 0 {
				got = d.Direct(v.n)
			} else {
				got = uint32(d.Bit(&probs[v.context]))
			}
			if got != v.value {
				t.Fatalf("seed %d: step %d is %d, not %d", seed, i, got, v.value)
			}
		}
		if d.Rest() != 0 {
			t.Fatalf("seed %d: %d bytes too many", seed, d.Rest())
		}
	}
}

// TestCarry packs what makes carries run through many bytes.
func TestCarry(t *testing.T) {
	var e Encoder
	var d Decoder
	for last := range 200 {
		e.Reset()
		var p, q Prob
		for i := range 4000 {
			bit := 1
			if i >= 4000-last {
				bit = i & 1
			}
			e.Bit(&p, bit)
			e.Direct(uint32(bit*0xff), 8)
		}
		d.Reset(e.Finish())
		for i := range 4000 {
			bit := 1
			if i >= 4000-last {
				bit = i & 1
			}
			if d.Bit(&q) != bit || d.Direct(8) != uint32(bit*0xff) {
				t.Fatalf("last %d: step %d", last, i)
			}
		}
	}
}

// TestVector keeps the format.
func TestVector(t *testing.T) {
	var e Encoder
	const want = "01cff9e847f90a1cac339579dc141a1b6564b26325ba435acfc510"
	if got := hex.EncodeToString(pack(&e, steps(7, 64))); got != want {
		t.Errorf("packed\n%s\nnot\n%s", got, want)
	}
	e.Reset()
	if got := e.Finish(); len(got) != 0 {
		t.Errorf("nothing is packed as %x", got)
	}
}

// TestShort holds that sure bits cost next to nothing.
func TestShort(t *testing.T) {
	var e Encoder
	e.Reset()
	var p Prob
	for range 10_000 {
		e.Bit(&p, 0)
	}
	if got := e.Finish(); len(got) > 2 {
		t.Errorf("10000 sure zeros take %d bytes", len(got))
	}
	e.Reset()
	p = Prob{}
	for range 10_000 {
		e.Bit(&p, 1)
	}
	if got := e.Finish(); len(got) > 4 {
		t.Errorf("10000 sure ones take %d bytes", len(got))
	}
}
