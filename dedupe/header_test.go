package dedupe

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
	"time"
)

// What a bundle may look like is written out in header.go; the writer uses
// archive/tar. They must say the same.
func TestHeadersAreThoseOfTheWriter(t *testing.T) {
	long := "blobs/sha512/" + strings.Repeat("b", 128)
	for _, name := range []string{readmeName, indexName, "blobs/sha256/" + strings.Repeat("a", 64), long} {
		for _, size := range []int64{0, 1, 511, 512, 513, 1 << 20, maxUstarSize, maxUstarSize + 1, maxBlobSize} {
			var want bytes.Buffer
			err := tar.NewWriter(&want).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o444, ModTime: time.Unix(0, 0)})
			if err != nil {
				t.Fatal(err)
			}
			got := encodeHeader(name, size)
			if !bytes.Equal(got, want.Bytes()) {
				t.Errorf("%s %d: differs from archive/tar", name, size)
			}
			n, s, err := decodeHeader(got)
			if n != name || s != size || err != nil || headerLength(got) != int64(len(got)) {
				t.Errorf("%s %d: read back as %s %d, %v", name, size, n, s, err)
			}
		}
	}
}

func TestHeaderOneForm(t *testing.T) {
	name := "blobs/sha512/" + strings.Repeat("b", 128)
	for _, size := range []int64{5, maxUstarSize + 1} {
		h := encodeHeader(name, size)
		for at := range h {
			bad := bytes.Clone(h)
			bad[at] ^= 1
			// A record that says something else is another member's; the member
			// table sees that.
			if n, s, err := decodeHeader(bad); err == nil && n == name && s == size {
				t.Errorf("size %d: byte %d changed, and it was read", size, at)
			}
		}
	}
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(encodeHeader(indexName, 7))
	f.Add(encodeHeader("blobs/sha512/"+strings.Repeat("b", 128), maxUstarSize+1))
	f.Fuzz(func(t *testing.T, h []byte) {
		if len(h) < blockSize || int64(len(h)) != headerLength(h) {
			return
		}
		name, size, err := decodeHeader(h)
		if err != nil {
			return
		}
		again, n, err := decodeHeader(encodeHeader(name, size))
		if again != name || n != size || err != nil {
			t.Errorf("%q %d reads back as %q %d, %v", name, size, again, n, err)
		}
	})
}
