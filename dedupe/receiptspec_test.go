package dedupe_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// specReceipt checks a receipt, whose chunks must be those of the tars.
func specReceipt(t testing.TB, raw []byte, tars map[string][]byte) (leaves, layers []string) {
	t.Helper()
	if len(raw) < 5 || string(raw[:4]) != "\x28\xb5\x2f\xfd" || raw[4]&4 == 0 {
		t.Fatalf("not a zstd frame with a checksum: %x", raw[:min(len(raw), 5)])
	}
	var r struct {
		Kind    string                          `json:"kind"`
		Version int                             `json:"version"`
		Name    string                          `json:"name"`
		Created string                          `json:"created"`
		Digest  string                          `json:"digest"`
		Images  []struct{ Name, Digest string } `json:"images"`
		Blobs   []specBlob                      `json:"blobs"`
		Layers  []struct {
			DiffID string `json:"diffID"`
			specBlob
			Chunks string `json:"chunks"`
		} `json:"layers"`
	}
	dec := json.NewDecoder(bytes.NewReader(unzstd(t, raw, 512<<20)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil || r.Kind != "imgpack.receipt" || r.Version != 1 || !strings.HasSuffix(r.Created, "Z") || len(r.Images) == 0 {
		t.Fatalf("receipt: %v: %q version %d of %q", err, r.Kind, r.Version, r.Created)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Fatalf("something follows the receipt: %v", err)
	}
	for _, b := range r.Blobs {
		leaves = append(leaves, b.Digest)
	}
	for _, l := range r.Layers {
		layers = append(layers, l.DiffID)
		record, err := base64.StdEncoding.DecodeString(l.Chunks)
		if tars[l.DiffID] == nil || err != nil {
			t.Fatalf("layer %s: %v", l.DiffID, err)
		}
		specChunks(t, record, tars[l.DiffID])
	}
	return leaves, layers
}

// specChunks checks the record of a layer's chunks.
func specChunks(t testing.TB, record, tar []byte) {
	r := &specNumbers{t, record}
	var before []byte // from the start of the chunk before to the end of the tar
	var length uint64 // its
	for len(r.p) > 0 {
		gap := r.uvarint()
		tar = tar[gap:]
		if before != nil && (gap == 0 && specCut(before) != length || gap > 0 && specCut(before) < length) {
			t.Fatalf("a chunk of %d bytes ends where the content does not say so", length)
		}
		length, before = r.uvarint(), tar
		sum := sha256.Sum256(tar[:length])
		if !bytes.Equal(r.take(16), sum[:16]) {
			t.Fatal("a chunk has another sum")
		}
		tar = tar[length:]
	}
}

var specGear = func() (g [256]uint64) {
	for i := range g {
		sum := sha256.Sum256(append([]byte("imgpack gear 1"), byte(i)))
		g[i] = binary.BigEndian.Uint64(sum[:8])
	}
	return g
}()

// specCut is the length of the chunk at the start of p, if its body goes on to
// the end of p.
func specCut(p []byte) uint64 {
	var h uint64
	for i, c := range p {
		n := i + 1
		h = h<<1 + specGear[c]
		mask := uint64(1<<18-1) << 46
		if n >= 65536 {
			mask = uint64(1<<14-1) << 50
		}
		if n >= 16384 && h&mask == 0 || n == 262144 {
			return uint64(n)
		}
	}
	return uint64(len(p))
}
