package unpack

import (
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestHidingByScan holds what is found beneath a directory against looking
// through everything.
func TestHidingByScan(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		path := func() string {
			parts := make([]string, 1+random.IntN(4))
			for i := range parts {
				parts[i] = string(rune('a' + random.IntN(3)))
			}
			return strings.Join(parts, "/")
		}
		got, want := newHiding(), newHiding()
		for range 60 {
			switch p := path(); random.IntN(3) {
			case 0:
				if a, b := got.whiteout(p), !want.paths[p]; a != b {
					t.Fatalf("seed %d: whiteout of %s new: %v", seed, p, a)
				}
				want.whiteout(p)
			case 1:
				got.device(p, deviceNode{})
				want.device(p, deviceNode{})
			default:
				got.dropIn(p)
				for d := range maps.Clone(want.devices) {
					if !strings.HasPrefix(d, p+"/") {
						continue
					}
					if want.deviceOnly(d) {
						delete(want.paths, d)
					}
					delete(want.devices, d)
				}
			}
			for name, d := range map[string]string{
				"paths":   cmp.Diff(want.paths, got.paths),
				"devices": cmp.Diff(want.devices, got.devices),
				"marked":  cmp.Diff(want.marked, got.marked),
			} {
				if d != "" {
					t.Fatalf("seed %d: %s (-want +got):\n%s", seed, name, d)
				}
			}
		}
	}
}
