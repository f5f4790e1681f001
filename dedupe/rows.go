package dedupe

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/manifests"
)

// count fills in rows and totals.
func (p *Plan) count() error {
	c := counting{docs: map[digest.Digest][]byte{}, sizes: map[digest.Digest]int64{}}
	for _, n := range p.graph.Docs() {
		c.docs[n.Descriptor.Digest] = n.Raw
	}
	for _, b := range p.blobs {
		c.sizes[b.Digest] = b.Size
	}
	stored, layers := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	for _, r := range p.roots {
		reached := map[digest.Digest]bool{}
		if err := c.reach(r.Descriptor, reached); err != nil {
			return fmt.Errorf("%s: %w", r.Display(), err)
		}
		row := Row{Root: r, Images: p.graph.Images(r)}
		for _, img := range row.Images {
			row.Layers += len(img.Layers)
			for _, l := range img.Layers {
				layers[l.Blob.Digest] = true
			}
		}
		for d := range reached {
			row.Bytes += c.sizes[d]
			if !stored[d] {
				stored[d] = true
				row.NewBytes += c.sizes[d]
			}
		}
		p.rows = append(p.rows, row)
		p.totals.Layers += row.Layers
		p.totals.Bytes += row.Bytes
		p.totals.Stored += row.NewBytes
	}
	p.totals.Images, p.totals.DistinctLayers = len(p.rows), len(layers)
	return nil
}

type counting struct {
	docs  map[digest.Digest][]byte
	sizes map[digest.Digest]int64
}

// reach marks all blobs below a descriptor.
func (c *counting) reach(d ocispec.Descriptor, reached map[digest.Digest]bool) error {
	if reached[d.Digest] {
		return nil
	}
	reached[d.Digest] = true
	children, err := c.children(d)
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := c.reach(child, reached); err != nil {
			return err
		}
	}
	return nil
}

func (c *counting) children(d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	raw, ok := c.docs[d.Digest]
	switch {
	case ok && manifests.IsIndex(d.MediaType):
		x, err := manifests.ParseIndex(raw, d)
		return x.Manifests, err
	case ok && manifests.IsManifest(d.MediaType):
		m, err := manifests.ParseManifest(raw, d)
		return append([]ocispec.Descriptor{m.Config}, m.Layers...), err
	}
	return nil, nil
}
