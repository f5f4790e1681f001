package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/manifests"
)

// layoutTar is an OCI image layout in a tar.
type layoutTar struct {
	*container
	roots   []manifests.Root
	partial bool // leaves were left out: its reader is to have them
}

var _ Source = (*layoutTar)(nil)

func newLayoutTar(c *container) (*layoutTar, error) {
	marker, err := c.document("oci-layout")
	if err != nil {
		return nil, err
	}
	if err := manifests.ParseLayoutMarker(marker); err != nil {
		return nil, within(c.in.name, err)
	}
	index, err := c.document("index.json")
	if err != nil {
		return nil, err
	}
	roots, err := manifests.ParseLayoutIndex(index)
	if err != nil {
		return nil, within(c.in.name, err)
	}
	var notes struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := manifests.DecodeJSON(index, "index.json", &notes); err != nil {
		return nil, within(c.in.name, err)
	}
	_, partial := notes.Annotations[annotationOmitted]
	return &layoutTar{container: c, roots: roots, partial: partial}, nil
}

// Format is FormatLayoutArchive.
func (l *layoutTar) Format() Format { return FormatLayoutArchive }

func (l *layoutTar) Roots(ctx context.Context) ([]manifests.Root, error) {
	return append([]manifests.Root(nil), l.roots...), ctx.Err()
}

func (l *layoutTar) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := manifests.CheckDescriptor(d); err != nil {
		return nil, err
	}
	name := blobPath(d.Digest)
	if !l.has(name) {
		err := l.missing("blob " + string(d.Digest))
		if l.partial {
			err = fmt.Errorf("%w; this archive leaves out layers that were there before", err)
		}
		return nil, err
	}
	e, err := l.lookup(name)
	if err != nil {
		return nil, err
	}
	return l.blob(ctx, e, d), nil
}

// Local is true. See manifests.LocalFetcher.
func (*layoutTar) Local(digest.Digest) bool { return true }

func (l *layoutTar) Close() error { return l.close() }

// newHybrid reads a tar that is both a layout and a docker archive. The layout
// has the exact digests. `docker save` of one platform leaves the index of all
// of them behind: where a single one is there, that is taken. Where blobs of
// the layout are absent altogether, docker's part is read. Layers that were left
// out on purpose say nothing.
func newHybrid(ctx context.Context, c *container) (Source, error) {
	l, err := newLayoutTar(c)
	if err != nil {
		return nil, err
	}
	if l.partial {
		return l, nil
	}
	in := &inventory{l, map[documentKey]held{}}
	for i, r := range l.roots {
		h, err := in.holds(ctx, r.Descriptor, 0)
		if err != nil {
			return nil, err
		}
		if len(h.present) == 0 {
			return newDockerTar(ctx, c)
		}
		if !h.whole && len(h.present) == 1 {
			l.roots[i].Index, l.roots[i].Descriptor = r.Descriptor.Digest, h.present[0]
		}
	}
	return l, nil
}

// maxNesting bounds how deep indexes in indexes are followed here; deeper ones
// are refused where the graph is read.
const maxNesting = 3

// held is what a tar has of what a descriptor names.
type held struct {
	present []ocispec.Descriptor // images of which every blob is there; the first two
	whole   bool                 // those are all
}

// inventory finds out what a tar has. Each document is read once: indexes may list
// one another any number of times.
type inventory struct {
	*layoutTar
	known map[documentKey]held
}

type documentKey struct {
	digest    digest.Digest
	mediaType string
}

// holds returns the images under d that are there. Damage is not looked for: what
// cannot be parsed counts as there, and is reported by whoever reads it.
func (l *inventory) holds(ctx context.Context, d ocispec.Descriptor, depth int) (held, error) {
	itself := held{[]ocispec.Descriptor{d}, true}
	if manifests.CheckDescriptor(d) != nil || depth > maxNesting {
		return itself, nil
	}
	if !l.has(blobPath(d.Digest)) {
		return held{}, nil
	}
	if e := l.members[blobPath(d.Digest)]; e.Size != d.Size && e.Type == tar.TypeReg || !manifests.IsIndex(d.MediaType) && !manifests.IsManifest(d.MediaType) {
		return itself, nil
	}
	key := documentKey{d.Digest, d.MediaType}
	h, ok := l.known[key]
	if !ok {
		var err error
		if h, err = l.read(ctx, d, depth); err != nil {
			return held{}, err
		}
		l.known[key] = h
	}
	if h.whole && len(h.present) == 0 { // damage, an image, or an index of nothing but artifacts
		return itself, nil
	}
	return h, nil
}

// read is holds, with nothing present and all of it for d itself.
func (l *inventory) read(ctx context.Context, d ocispec.Descriptor, depth int) (held, error) {
	raw, err := manifests.ReadDocument(ctx, l, d)
	if err != nil {
		return ignoreDamage(err)
	}
	if manifests.IsIndex(d.MediaType) {
		return l.children(ctx, raw, d, depth)
	}
	m, err := manifests.ParseManifest(raw, d)
	if err != nil {
		return ignoreDamage(err)
	}
	for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if !l.has(blobPath(b.Digest)) {
			return held{}, nil
		}
	}
	return held{whole: true}, nil
}

func (l *inventory) children(ctx context.Context, raw []byte, d ocispec.Descriptor, depth int) (held, error) {
	x, err := manifests.ParseIndex(raw, d)
	if err != nil {
		return ignoreDamage(err)
	}
	h := held{whole: true}
	for _, child := range x.Manifests {
		under, err := l.holds(ctx, child, depth+1)
		if err != nil {
			return held{}, err
		}
		h.whole = h.whole && under.whole
		if child.Platform == nil || child.Platform.OS != "unknown" {
			h.present = append(h.present, under.present...)
		}
		h.present = h.present[:min(len(h.present), 2)]
	}
	return h, nil
}

func ignoreDamage(err error) (held, error) {
	var damage *manifests.ContentError
	var unknown *manifests.UnsupportedError
	if errors.As(err, &damage) || errors.As(err, &unknown) {
		return held{whole: true}, nil
	}
	return held{}, err
}
