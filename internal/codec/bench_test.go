package codec

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// consume does what unpacking does with a layer: hash it and write it down.
func consume(b *testing.B, r io.ReadCloser) {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "out"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyBuffer(io.MultiWriter(sha256.New(), f), struct{ io.Reader }{r}, make([]byte, 128<<10)); err != nil {
		b.Fatal(err)
	}
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
}
