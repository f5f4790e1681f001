package verify_test

import (
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/verify"
)

// Whatever the documents and layers hold, there is a report and no error; and
// what passes can be loaded.
func FuzzRun(f *testing.F) {
	b := fixtures.NewBlobs()
	for _, r := range fixtures.Sample(b) {
		g := b.Graph(f, r)
		for _, img := range g.Images(r) {
			f.Add(img.Descriptor.MediaType, img.RawManifest, img.RawConfig, b.Bytes(img.Layers[0].Blob.Digest))
		}
	}
	f.Add(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[]}`), []byte("{}"), []byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, mediaType string, manifest, config, layer []byte) {
		b := fixtures.NewBlobs()
		root := manifests.Root{Descriptor: b.Add(mediaType, manifest)}
		b.Add("", config)
		// The layer takes the place of whatever the manifest names first.
		if m, err := manifests.ParseManifest(manifest, root.Descriptor); err == nil && len(m.Layers) > 0 {
			b.Corrupt(m.Layers[0].Digest, func([]byte) []byte { return layer })
			if digest.FromBytes(layer) == m.Layers[0].Digest {
				b.Heal(m.Layers[0].Digest)
				b.Add("", layer)
			}
		}
		r, err := verify.Run(t.Context(), b, []manifests.Root{root}, verify.Options{Deep: true})
		if err != nil {
			t.Fatal(err)
		}
		if (r.Verdict == verify.Fail) != (r.Images[0].Result == verify.ResultFail) {
			t.Fatalf("%s, and the image is %s", r.Verdict, r.Images[0].Result)
		}
		if r.Verdict == verify.Pass && r.Warnings == 0 {
			if _, err := manifests.NewGraph(t.Context(), []manifests.Entry{{Source: b, Root: root}}, 1); err != nil {
				t.Fatalf("passes, but: %v", err)
			}
		}
	})
}
