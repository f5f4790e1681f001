package manifests

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// State says what became of an image's digest on its way.
type State string

// The digest states shown on every row of output.
const (
	Exact         State = "exact"    // the digest its name has, or had, at its registry
	PlatformState State = "platform" // the exact manifest of one platform, chosen from an index
	Rebuilt       State = "rebuilt"  // written anew; no registry has held it under this digest
)

// Root is an entry point into a graph of blobs: an image or an index, and the
// name people know it by.
type Root struct {
	Name       Name   // zero when it has none
	Label      string // what its layout calls it, where that is no full name: a bare tag
	Descriptor ocispec.Descriptor
	Index      digest.Digest // the index Descriptor was chosen from; "" if none
	Rebuilt    bool
}

// State is the root's digest state.
func (r Root) State() State {
	switch {
	case r.Rebuilt:
		return Rebuilt
	case r.Index != "":
		return PlatformState
	}
	return Exact
}

// Display is the shortest text that names the root for people.
func (r Root) Display() string {
	switch {
	case !r.Name.IsZero():
		return r.Name.Familiar()
	case r.Label != "":
		return r.Label
	}
	return string(r.Descriptor.Digest)
}

// Entry is a root and the source it is read from.
type Entry struct {
	Source Fetcher
	Root   Root
}

// Node is a document of a graph, with its exact bytes.
type Node struct {
	Descriptor ocispec.Descriptor
	Raw        []byte
}

// Graph is everything reachable from a list of roots, each blob once, in an
// order that depends on nothing but the roots and their content. It is made
// by NewGraph and does not change; it is safe for concurrent use.
//
// A Graph is itself a Fetcher: documents come from memory, other blobs from
// the source that held the first root to reach them.
type Graph struct {
	roots  []Root
	docs   []Node               // parents before children
	blobs  []ocispec.Descriptor // layers and other leaves
	images map[digest.Digest]*Image
	under  map[digest.Digest][]digest.Digest // root digest → digests of its images in order
	doc    map[digest.Digest]int
	from   map[digest.Digest]Fetcher
}

// Limits on a graph; see the catalogue of hostile input in docs/security.md.
const (
	maxIndexDepth  = 3
	maxDescriptors = 100_000
)

// NewGraph reads all manifests, indexes and configs reachable from the
// entries, jobs entries at a time (0 means 4), and checks each of them. Every
// manifest with an image config is held to LoadImage; manifests of other
// artifacts, such as attestations, are carried as they are.
func NewGraph(ctx context.Context, entries []Entry, jobs int) (*Graph, error) {
	if jobs <= 0 {
		jobs = 4
	}
	parts := make([]*part, len(entries))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	for i, e := range entries {
		group.Go(func() error {
			p := &part{source: e.Source, seen: map[digest.Digest]string{}}
			if err := p.walk(gctx, e.Root.Descriptor, 0); err != nil {
				return fmt.Errorf("%s: %w", e.Root.Display(), err)
			}
			parts[i] = p
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	g := &Graph{
		images: map[digest.Digest]*Image{},
		under:  map[digest.Digest][]digest.Digest{},
		doc:    map[digest.Digest]int{},
		from:   map[digest.Digest]Fetcher{},
	}
	for i, p := range parts {
		if err := g.add(entries[i].Root, p); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// part is the graph below one root.
type part struct {
	source Fetcher
	seen   map[digest.Digest]string // media type each digest was reached as
	docs   []Node
	blobs  []ocispec.Descriptor
	images []*Image
}

func (p *part) walk(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if seen, err := p.visit(d); seen || err != nil {
		return err
	}
	switch {
	case IsIndex(d.MediaType):
		return p.index(ctx, d, depth)
	case IsManifest(d.MediaType):
		return p.manifest(ctx, d)
	}
	return &UnsupportedError{Subject: string(d.Digest), Reason: fmt.Sprintf("media type %q is neither a manifest's nor an index's", d.MediaType)}
}

// visit records a descriptor; it refuses one digest under two media types of
// different kind, and more descriptors than any honest image has.
func (p *part) visit(d ocispec.Descriptor) (seen bool, err error) {
	if err := CheckDescriptor(d); err != nil {
		return false, err
	}
	if as, ok := p.seen[d.Digest]; ok {
		if (IsIndex(as) || IsManifest(as)) && as != d.MediaType {
			return false, Bad(KindMalformed, string(d.Digest), "referred to both as %q and as %q", as, d.MediaType)
		}
		return true, nil
	}
	if len(p.seen) >= maxDescriptors {
		return false, Bad(KindLimit, string(d.Digest), "more than %d blobs in one image", maxDescriptors)
	}
	p.seen[d.Digest] = d.MediaType
	return false, nil
}

func (p *part) index(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if depth >= maxIndexDepth {
		return Bad(KindLimit, string(d.Digest), "indexes are nested deeper than %d", maxIndexDepth)
	}
	raw, err := ReadDocument(ctx, p.source, d)
	if err != nil {
		return err
	}
	x, err := ParseIndex(raw, d)
	if err != nil {
		return err
	}
	p.docs = append(p.docs, Node{d, raw})
	for _, child := range x.Manifests {
		if err := p.walk(ctx, child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (p *part) manifest(ctx context.Context, d ocispec.Descriptor) error {
	img, err := LoadImage(ctx, p.source, d)
	if err == nil && !isAttestation(d) {
		p.images = append(p.images, img)
		p.docs = append(p.docs, Node{d, img.RawManifest})
		if seen, err := p.visit(img.Manifest.Config); err != nil {
			return err
		} else if !seen {
			p.docs = append(p.docs, Node{img.Manifest.Config, img.RawConfig})
		}
		return p.leaves(img.Manifest.Layers)
	}
	if !isAttestation(d) && !isArtifact(ctx, p.source, d) {
		return err
	}
	raw, err := ReadDocument(ctx, p.source, d)
	if err != nil {
		return err
	}
	m, err := ParseManifest(raw, d)
	if err != nil {
		return err
	}
	p.docs = append(p.docs, Node{d, raw})
	return p.leaves(append([]ocispec.Descriptor{m.Config}, m.Layers...))
}

func (p *part) leaves(blobs []ocispec.Descriptor) error {
	for _, b := range blobs {
		seen, err := p.visit(b)
		if err != nil {
			return err
		}
		if !seen {
			p.blobs = append(p.blobs, b)
		}
	}
	return nil
}

// isAttestation reports an index entry that BuildKit marks as no image for any
// platform.
func isAttestation(d ocispec.Descriptor) bool {
	return d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

func isArtifact(ctx context.Context, f Fetcher, d ocispec.Descriptor) bool {
	raw, err := ReadDocument(ctx, f, d)
	if err != nil {
		return false
	}
	m, err := ParseManifest(raw, d)
	return err == nil && !IsImageConfig(m.Config.MediaType)
}

func (g *Graph) add(r Root, p *part) error {
	g.roots = append(g.roots, r)
	for _, n := range p.docs {
		if _, ok := g.doc[n.Descriptor.Digest]; !ok {
			g.doc[n.Descriptor.Digest] = len(g.docs)
			g.docs = append(g.docs, n)
		}
	}
	for _, b := range p.blobs {
		if _, ok := g.from[b.Digest]; !ok {
			g.from[b.Digest] = p.source
			g.blobs = append(g.blobs, b)
		}
	}
	var ids []digest.Digest
	for _, img := range p.images {
		ids = append(ids, img.Descriptor.Digest)
		if _, ok := g.images[img.Descriptor.Digest]; !ok {
			g.images[img.Descriptor.Digest] = img
		}
	}
	g.under[r.Descriptor.Digest] = ids
	return nil
}

// Roots returns the entry points in the order given to NewGraph.
func (g *Graph) Roots() []Root { return slices.Clone(g.roots) }

// Docs returns every manifest, index and config, parents before children.
func (g *Graph) Docs() []Node { return slices.Clone(g.docs) }

// Blobs returns every blob that is not a document, in order of first
// appearance.
func (g *Graph) Blobs() []ocispec.Descriptor { return slices.Clone(g.blobs) }

// Images returns the images under a root, in index order; one for a root that
// is a manifest, none for an artifact.
func (g *Graph) Images(r Root) []*Image {
	var out []*Image
	for _, id := range g.under[r.Descriptor.Digest] {
		out = append(out, g.images[id])
	}
	return out
}

// Size is the sum of the stored sizes of all documents and blobs, in bytes.
func (g *Graph) Size() int64 {
	var n int64
	for _, d := range g.docs {
		n += d.Descriptor.Size
	}
	for _, b := range g.blobs {
		n += b.Size
	}
	return n
}

// Fetch gives a blob of the graph. See Fetcher.
func (g *Graph) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if i, ok := g.doc[d.Digest]; ok {
		return BytesReader(g.docs[i].Raw, d), nil
	}
	if f, ok := g.from[d.Digest]; ok {
		return f.Fetch(ctx, d)
	}
	return nil, &NotFoundError{Subject: "blob " + string(d.Digest)}
}

// Opener returns what can give the layer's tar without decompressing it, or
// nil where its source cannot.
func (g *Graph) Opener(layer Layer) LayerOpener {
	o, _ := g.from[layer.Blob.Digest].(LayerOpener)
	return o
}

var _ Fetcher = (*Graph)(nil)
