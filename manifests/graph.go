package manifests

import (
	"context"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
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
	Label      string // what its layout calls it, where that is neither Name nor Name's tag
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

// Display is the shortest text that names the root for people, safe to print.
func (r Root) Display() string {
	switch {
	case !r.Name.IsZero():
		return r.Name.Familiar()
	case r.Label != "":
		return quote.Clean(r.Label)
	}
	return string(r.Descriptor.Digest)
}

// Entry is a root and the source it is read from.
type Entry struct {
	Source Fetcher
	Root   Root
}

// Entries are roots that are read from one source.
func Entries(src Fetcher, roots []Root) []Entry {
	entries := make([]Entry, len(roots))
	for i, r := range roots {
		entries[i] = Entry{Source: src, Root: r}
	}
	return entries
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
	roots []Root
	docs  []Node                     // parents before children
	blobs []ocispec.Descriptor       // layers and other leaves
	under map[digest.Digest][]*Image // by root
	doc   map[digest.Digest]int
	from  map[digest.Digest]Fetcher // the source of each of blobs
	size  int64
}

// Roots returns the entry points in the order given to NewGraph.
func (g *Graph) Roots() []Root { return slices.Clone(g.roots) }

// Docs returns every manifest, every index, and the configs of images, parents
// before children: whoever publishes them goes from the end to the beginning.
func (g *Graph) Docs() []Node { return slices.Clone(g.docs) }

// Blobs returns every blob that is not a document, in order of first
// appearance: layers, all parts of artifacts, and entries of an index that are
// neither manifest nor index.
func (g *Graph) Blobs() []ocispec.Descriptor { return slices.Clone(g.blobs) }

// Images returns the images under a root, in index order, each once; one for a
// root that is a manifest, none for an artifact.
func (g *Graph) Images(r Root) []*Image { return slices.Clone(g.under[r.Descriptor.Digest]) }

// Size is the sum of the stored sizes of all documents and blobs, in bytes.
func (g *Graph) Size() int64 { return g.size }

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

// OpenLayer gives the layer's tar where its source can without decompressing
// it. See LayerOpener.
func (g *Graph) OpenLayer(ctx context.Context, layer Layer) (io.ReadCloser, error) {
	if o, ok := g.from[layer.Blob.Digest].(LayerOpener); ok {
		return o.OpenLayer(ctx, layer)
	}
	return nil, ErrCompressed
}

// Source is where a blob that is no document comes from; nil if it is not of the
// graph.
func (g *Graph) Source(d digest.Digest) Fetcher { return g.from[d] }

// Local reports whether a blob comes from memory or from a file. See
// LocalFetcher.
func (g *Graph) Local(d digest.Digest) bool {
	if _, ok := g.doc[d]; ok {
		return true
	}
	l, ok := g.from[d].(LocalFetcher)
	return ok && l.Local(d)
}

var (
	_ Fetcher      = (*Graph)(nil)
	_ LayerOpener  = (*Graph)(nil)
	_ LocalFetcher = (*Graph)(nil)
)
