package kpzstd

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestGolden compares with what the library's old versions made of the same
// contents. testdata/golden.txt was made with them and stays.
func TestGolden(t *testing.T) {
	f, err := os.Open(filepath.Join("testdata", "golden.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := 0
	for lines := bufio.NewScanner(f); lines.Scan(); seen++ {
		var c Class
		var l Level
		var kind, want string
		if _, err := fmt.Sscan(lines.Text(), &c, &l, &kind, &want); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		t.Run(fmt.Sprintf("%v/%s", params(l, c), kind), func(t *testing.T) {
			t.Parallel()
			if got := golden(t, params(l, c), kind); got != want {
				t.Errorf("class %d, level %d: %s, not %s", c, l, got, want)
			}
		})
	}
	if seen != int(numClasses)*3*(len(kinds)+1)+int(numClasses-V1_175)*len(kinds) {
		t.Errorf("%d digests", seen)
	}
}

// golden is the digest of the frames of contents of all lengths.
func golden(t *testing.T, p Params, kind string) string {
	h := sha256.New()
	sizes := goldenSizes()
	if kind == "long" {
		kind, sizes = "mixed", []int{longContent}
	}
	var e Encoder
	content := fill(kind, sizes[len(sizes)-1])
	for _, n := range sizes {
		b := content[:n]
		p.Cuts = nil
		if n%2 == 1 && n > 8 && len(sizes) > 1 {
			p.Cuts = []uint32{8}
		}
		if err := e.Reset(h, p); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
