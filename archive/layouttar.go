package archive

import (
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
	for i, r := range l.roots {
		present, whole, err := l.holds(ctx, r.Descriptor, 0)
		if err != nil {
			return nil, err
		}
		if len(present) == 0 {
			return newDockerTar(ctx, c)
		}
		if !whole && len(present) == 1 {
			l.roots[i].Index, l.roots[i].Descriptor = r.Descriptor.Digest, present[0]
		}
	}
	return l, nil
}

// maxNesting bounds how deep indexes in indexes are followed here; deeper ones
// are refused where the graph is read.
const maxNesting = 3

// holds returns the images under d of which every blob is in the tar, and
// whether those are all. Damage is not looked for: what cannot be parsed counts
// as there, and is reported by whoever reads it.
func (l *layoutTar) holds(ctx context.Context, d ocispec.Descriptor, depth int) (present []ocispec.Descriptor, whole bool, err error) {
	if manifests.CheckDescriptor(d) != nil || depth > maxNesting {
		return []ocispec.Descriptor{d}, true, nil
	}
	if !l.has(blobPath(d.Digest)) {
		return nil, false, nil
	}
	raw, err := manifests.ReadDocument(ctx, l, d)
	if err != nil {
		return ignoreDamage(d, err)
	}
	if manifests.IsIndex(d.MediaType) {
		return l.holdsChildren(ctx, raw, d, depth)
	}
	m, err := manifests.ParseManifest(raw, d)
	if err != nil {
		return ignoreDamage(d, err)
	}
	for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if !l.has(blobPath(b.Digest)) {
			return nil, false, nil
		}
	}
	return []ocispec.Descriptor{d}, true, nil
}

func (l *layoutTar) holdsChildren(ctx context.Context, raw []byte, d ocispec.Descriptor, depth int) (present []ocispec.Descriptor, whole bool, err error) {
	x, err := manifests.ParseIndex(raw, d)
	if err != nil {
		return ignoreDamage(d, err)
	}
	whole = true
	for _, child := range x.Manifests {
		under, all, err := l.holds(ctx, child, depth+1)
		if err != nil {
			return nil, false, err
		}
		whole = whole && all
		if child.Platform == nil || child.Platform.OS != "unknown" {
			present = append(present, under...)
		}
	}
	if whole && len(present) == 0 { // an index of nothing but artifacts
		present = []ocispec.Descriptor{d}
	}
	return present, whole, nil
}

func ignoreDamage(d ocispec.Descriptor, err error) ([]ocispec.Descriptor, bool, error) {
	var damage *manifests.ContentError
	var unknown *manifests.UnsupportedError
	if errors.As(err, &damage) || errors.As(err, &unknown) {
		return []ocispec.Descriptor{d}, true, nil
	}
	return nil, false, err
}
