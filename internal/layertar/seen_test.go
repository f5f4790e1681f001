package layertar

import (
	"hash/maphash"
	"math/rand/v2"
	"testing"
)

// The set is what a map is, in less room.
func TestSeen(t *testing.T) {
	r, seed := rand.New(rand.NewPCG(5, 6)), maphash.MakeSeed()
	var s seen
	model := map[int]bool{}
	for i := range 200_000 {
		n, dir := r.IntN(1+i), r.IntN(2) == 0
		wantDir, want := model[n]
		model[n] = dir
		if again, wasDir := s.put(maphash.Comparable(seed, n), dir); again != want || wasDir != wantDir {
			t.Fatalf("%d: %v %v, want %v %v", n, again, wasDir, want, wantDir)
		}
	}
	if s.n != len(model) || len(s.slots) > 3*len(model) {
		t.Errorf("%d names in %d slots, want %d", s.n, len(s.slots), len(model))
	}
}
