package dedupe

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/manifests"
)

// fate is what becomes of a blob in a bundle.
type fate int

const (
	carried fate = iota // stored as it is
	opened              // cut up
	needed              // left out, since a base has it
)

// counts is what can be said of a bundle before anything is read.
type counts struct {
	rows     []Row
	totals   Totals
	distinct int64                 // bytes of all blobs, each once
	row      map[digest.Digest]int // which row first needs a blob
}

// count fills in rows and totals, but for what chunks and compression save.
func count(s *selection, fateOf func(ocispec.Descriptor) fate) (*counts, error) {
	c := &counting{docs: map[digest.Digest][]byte{}, sizes: map[digest.Digest]int64{}, fateOf: fateOf, layers: map[digest.Digest]bool{}}
	c.row = map[digest.Digest]int{}
	for _, n := range s.graph.Docs() {
		c.docs[n.Descriptor.Digest] = n.Raw
	}
	for _, b := range s.blobs() {
		c.sizes[b.Digest] = b.Size
		c.distinct += b.Size
	}
	for _, r := range s.roots {
		if err := c.add(Row{Root: r, Images: s.graph.Images(r)}); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Display(), err)
		}
	}
	c.totals.Images, c.totals.DistinctLayers = len(c.rows), len(c.layers)
	c.totals.SavedByLayers = c.totals.Bytes - c.distinct
	return &c.counts, nil
}

type counting struct {
	counts
	docs   map[digest.Digest][]byte
	sizes  map[digest.Digest]int64
	fateOf func(ocispec.Descriptor) fate
	layers map[digest.Digest]bool // met so far
}

func (c *counting) add(row Row) error {
	for _, img := range row.Images {
		for _, l := range img.Layers {
			c.layer(&row, l)
		}
	}
	reached := map[digest.Digest]bool{}
	if err := c.reach(row.Root.Descriptor, reached); err != nil {
		return err
	}
	for d := range reached {
		row.Bytes += c.sizes[d]
		if _, known := c.row[d]; !known {
			c.row[d] = len(c.rows)
			row.NewBytes += c.sizes[d]
		}
	}
	c.rows = append(c.rows, row)
	c.totals.Layers += row.Layers
	c.totals.Bytes += row.Bytes
	return nil
}

func (c *counting) layer(row *Row, l manifests.Layer) {
	row.Layers++
	met := c.layers[l.Blob.Digest]
	c.layers[l.Blob.Digest] = true
	inRow, inAll := &row.Carried, &c.totals.Carried
	switch c.fateOf(l.Blob) {
	case opened:
		inRow, inAll = &row.Open, &c.totals.Open
	case needed:
		inRow, inAll = &row.Needed, &c.totals.Needed
	}
	*inRow++
	if !met {
		*inAll++
	}
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
