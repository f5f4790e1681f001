package segment

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestQuick(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	a := make([]byte, 3<<20)
	for i := range a {
		a[i] = byte(r.Uint32()) & 63
	}
	content := append(append(append([]byte{}, a...), "hello"...), a...)
	for _, l := range []Level{Fast, Default, Max} {
		for _, pre := range [][]byte{nil, a[:1<<20]} {
			e := NewEncoder(l, 2)
			b, err := e.Encode(content, pre)
			if err != nil {
				t.Fatal(err)
			}
			dst := make([]byte, len(content))
			if err := Decode(dst, b, pre, 2); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(dst, content) {
				t.Fatal("differs")
			}
			t.Log(l, len(pre), len(content), len(b))
		}
	}
}
