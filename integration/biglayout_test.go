//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// bigLayout writes an OCI layout with one image of so many layers, not
// compressed, of about size bytes each. Half of each layer is as in the layer
// below, a quarter does not compress.
func bigLayout(t testing.TB, dir string, layers int, size int64) {
	t.Helper()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(mediaType string, content []byte) map[string]any {
		digest := fmt.Sprintf("%x", sha256.Sum256(content))
		if err := os.WriteFile(filepath.Join(blobs, digest), content, 0o600); err != nil {
			t.Fatal(err)
		}
		return map[string]any{"mediaType": mediaType, "digest": "sha256:" + digest, "size": len(content)}
	}
	encode := func(v any) []byte {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	var stack []map[string]any
	var ids []string
	for i := range layers {
		path := filepath.Join(blobs, "new")
		digest, n := bigLayer(t, path, uint64(i), size)
		if err := os.Rename(path, filepath.Join(blobs, digest)); err != nil {
			t.Fatal(err)
		}
		stack = append(stack, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:" + digest, "size": n})
		ids = append(ids, "sha256:"+digest)
	}
	config := put("application/vnd.oci.image.config.v1+json", encode(map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}}))
	manifest := put("application/vnd.oci.image.manifest.v1+json", encode(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": stack}))
	manifest["annotations"] = map[string]string{"io.containerd.image.name": "example.com/big:1", "org.opencontainers.image.ref.name": "1"}
	index := encode(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}})
	for name, content := range map[string][]byte{"index.json": index, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// bigLayer writes files of 1 KiB to 4 MiB; those of even number depend on
// their number alone.
func bigLayer(t testing.TB, path string, seed uint64, size int64) (digest string, n int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	w := tar.NewWriter(io.MultiWriter(f, sum))
	noise := rand.NewChaCha8([32]byte{})
	body := make([]byte, 4<<20)
	for i, written := uint64(0), int64(0); written < size; i++ {
		p := body[:1<<10<<(i%13)]
		salt := i << 8
		if i%2 == 1 {
			salt |= seed + 1
		}
		var key [32]byte
		copy(key[:], fmt.Sprint(salt))
		noise.Seed(key)
		noise.Read(p)
		if i%4 > 1 { // text of sixteen letters
			for k := range p {
				p[k] = "etaoin shrdlu\n()"[p[k]%16]
			}
		} else if i%8 < 4 {
			copy(p[len(p)/2:], bytes.Repeat(p[:64], len(p)/128))
		}
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("data/%03d/file%d", i%100, i), Mode: 0o644, Size: int64(len(p))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		written += int64(len(p))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), fileSize(t, path)
}
