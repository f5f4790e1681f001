package unpack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// benchTar is some 200 MB in 8000 files, as a distribution's layer is made.
func benchTar() []byte {
	var files []fixtures.File
	body := strings.Repeat("0123456789abcdef", 1<<14)
	for d := range 400 {
		dir := fmt.Sprintf("usr/share/d%d/", d)
		files = append(files, fixtures.File{Name: dir})
		for f := range 20 {
			n := 200 << (f % 11)
			files = append(files, fixtures.File{Name: fmt.Sprint(dir, "file", f), Body: body[:n]})
		}
	}
	return fixtures.Tar(files...)
}

// BenchmarkLayer runs us and GNU tar over the same plain tar.
func BenchmarkLayer(b *testing.B) {
	raw := benchTar()
	if file := os.Getenv("IMGPACK_BENCH_TAR"); file != "" {
		var err error
		if raw, err = os.ReadFile(file); err != nil {
			b.Fatal(err)
		}
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	img := &manifests.Image{Layers: []manifests.Layer{{Blob: desc, DiffID: desc.Digest, ChainID: desc.Digest, Compression: manifests.Uncompressed}}}
	src := &plain{raw}
	b.Run("imgpack", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			dir := b.TempDir()
			if _, err := WriteRootfs(context.Background(), src, img, dir+"/rootfs", Options{}); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			os.RemoveAll(dir)
			b.StartTimer()
		}
	})
	b.Run("imgpack, hashed twice", func(b *testing.B) { // as from a registry: blob and diffID
		fetch := manifests.FetcherFunc(func(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
			return manifests.BytesReader(raw, d), nil
		})
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			dir := b.TempDir()
			if _, err := WriteRootfs(context.Background(), fetch, img, dir+"/rootfs", Options{}); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			os.RemoveAll(dir)
			b.StartTimer()
		}
	})
	b.Run("tar", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			dir := b.TempDir()
			cmd := exec.Command("tar", "-xp", "-C", dir)
			cmd.Stdin = bytes.NewReader(raw)
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			b.StopTimer()
			os.RemoveAll(dir)
			b.StartTimer()
		}
	})
}

// plain gives tars that are proven already.
type plain struct{ raw []byte }

func (p *plain) Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return nil, &manifests.NotFoundError{Subject: "blob"}
}

func (p *plain) OpenLayer(context.Context, manifests.Layer) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(p.raw)), nil
}
