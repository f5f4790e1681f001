package manifests

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/internal/quote"
)

// Limits on a graph.
const (
	// maxIndexDepth bounds how deep indexes nest; honest ones do not.
	maxIndexDepth = 3
	// maxDescriptors bounds the blobs of one root. The largest honest indexes
	// have some hundreds.
	maxDescriptors = 10_000
	// maxDocuments bounds all documents of a graph together, in bytes, because
	// they are held in memory: ten thousand images have half of it.
	maxDocuments = 256 << 20
	// maxGraph bounds the sum of all sizes, in bytes, so that it cannot
	// overflow: no medium holds it.
	maxGraph = 1 << 60
	// maxShared bounds how often documents are found below further roots than
	// the first: ten thousand indexes may list the same ten thousand images.
	maxShared = 4 << 20
)

// NewGraph reads all manifests, indexes and configs reachable from the
// entries, each once and jobs at a time (0 means 4), and checks them. Every
// manifest of an image is held to LoadImage; manifests of other artifacts, such
// as attestations and signatures, are carried as they are with all their
// blobs. What an index lists that is neither manifest nor index is carried as a
// blob. The subject of a manifest is not followed.
//
// One digest under two sizes, or both as a manifest and as something else, is a
// *ContentError; a root that is neither manifest nor index is an
// *UnsupportedError.
func NewGraph(ctx context.Context, entries []Entry, jobs int) (*Graph, error) {
	if jobs <= 0 {
		jobs = 4
	}
	w := &walker{entries: entries, nodes: map[digest.Digest]*node{}, claims: make([]int, len(entries))}
	level, err := w.start()
	for err == nil && len(level) > 0 {
		if err = w.load(ctx, level, jobs); err == nil {
			level, err = w.next(level)
		}
	}
	if err != nil {
		return nil, err
	}
	return w.graph()
}

// node is one blob of the graph under construction.
type node struct {
	desc     ocispec.Descriptor
	document bool                 // reached as a manifest or index
	raw      []byte               // nil for what is not read whole
	image    *Image               // nil for what is no image's manifest
	links    []ocispec.Descriptor // what it refers to, in order
	height   int                  // indexes on the longest way down
	// collected says that all below it was listed under a root.
	collected bool
}

// task is a document to load. The walk goes level by level, so that what is
// claimed, counted and refused depends on no timing.
type task struct {
	*node
	entry int // index of the entry that reached it first
	depth int
}

type walker struct {
	entries []Entry
	nodes   map[digest.Digest]*node
	claims  []int        // new blobs per entry
	read    atomic.Int64 // bytes of documents
	shared  int          // links that were followed again
}

// start returns the roots as the first level.
func (w *walker) start() ([]task, error) {
	var level []task
	for i, e := range w.entries {
		d := e.Root.Descriptor
		if !isDocument(d.MediaType) {
			reason := fmt.Sprintf("media type %s is neither a manifest's nor an index's", quote.Text(d.MediaType))
			if isSchema1(d.MediaType) {
				reason = schema1Reason
			}
			return nil, w.of(i, &UnsupportedError{Subject: quote.Clean(string(d.Digest)), Reason: reason})
		}
		t, err := w.claim(task{entry: i}, d, true)
		if err != nil {
			return nil, w.of(i, err)
		}
		level = append(level, t...)
	}
	return level, nil
}

// of says which root an error is about.
func (w *walker) of(entry int, err error) error {
	return fmt.Errorf("%s: %w", w.entries[entry].Root.Display(), err)
}

// claim records a blob that parent refers to. It returns a task for a document
// seen for the first time.
func (w *walker) claim(parent task, d ocispec.Descriptor, document bool) ([]task, error) {
	if err := CheckDescriptor(d); err != nil {
		return nil, err
	}
	if n, ok := w.nodes[d.Digest]; ok {
		return nil, n.agrees(d, document)
	}
	if w.claims[parent.entry]++; w.claims[parent.entry] > maxDescriptors {
		return nil, Bad(KindLimit, string(d.Digest), "more than %d blobs below one name", maxDescriptors)
	}
	n := &node{desc: d, document: document}
	w.nodes[d.Digest] = n
	if !document {
		return nil, nil
	}
	return []task{{node: n, entry: parent.entry, depth: parent.depth + 1}}, nil
}

// agrees refuses a second descriptor of a blob that could not be true together
// with the first. Layers and configs may go by several media types, as they do
// once an image was converted between Docker's and OCI's.
func (n *node) agrees(d ocispec.Descriptor, document bool) error {
	subject := string(d.Digest)
	switch {
	case n.desc.Size != d.Size:
		return Bad(KindSize, subject, "said to be %d bytes long, and %d elsewhere", n.desc.Size, d.Size)
	case n.document != document, document && n.desc.MediaType != d.MediaType:
		return Bad(KindMalformed, subject, "referred to as %s, and as %s elsewhere", quote.Text(n.desc.MediaType), quote.Text(d.MediaType))
	}
	return nil
}

// load reads the documents of one level.
func (w *walker) load(ctx context.Context, level []task, jobs int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	for _, t := range level {
		group.Go(func() error {
			err := ctx.Err()
			if err == nil {
				err = w.loadOne(ctx, t)
			}
			if err != nil {
				return w.of(t.entry, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (w *walker) loadOne(ctx context.Context, t task) error {
	if err := w.spend(t.desc); err != nil {
		return err
	}
	source := w.entries[t.entry].Source
	if IsIndex(t.desc.MediaType) {
		if t.depth > maxIndexDepth {
			return tooDeep(t.desc)
		}
		raw, err := ReadDocument(ctx, source, t.desc)
		if err != nil {
			return err
		}
		x, err := ParseIndex(raw, t.desc)
		t.raw, t.links = raw, x.Manifests
		return err
	}
	raw, m, err := loadManifest(ctx, source, t.desc)
	if err != nil {
		return err
	}
	t.raw, t.links = raw, append([]ocispec.Descriptor{m.Config}, m.Layers...)
	if !IsImage(t.desc, m) {
		return nil
	}
	if err := w.spend(m.Config); err != nil {
		return err
	}
	t.image, err = loadConfig(ctx, source, t.desc, raw, m)
	return err
}

// spend counts a document before it is read.
func (w *walker) spend(d ocispec.Descriptor) error {
	if w.read.Add(d.Size) > maxDocuments {
		return Bad(KindLimit, string(d.Digest), "manifests, indexes and configs hold more than %d bytes together", int64(maxDocuments))
	}
	return nil
}

func tooDeep(d ocispec.Descriptor) error {
	return Bad(KindLimit, string(d.Digest), "indexes are nested deeper than %d", maxIndexDepth)
}

// next claims what the documents of a level refer to, and returns those that
// are documents themselves.
func (w *walker) next(level []task) ([]task, error) {
	var below []task
	for _, t := range level {
		index := IsIndex(t.desc.MediaType)
		for _, d := range t.links {
			more, err := w.claim(t, d, index && isDocument(d.MediaType))
			if err != nil {
				return nil, w.of(t.entry, err)
			}
			below = append(below, more...)
		}
		if t.image != nil {
			w.nodes[t.image.Manifest.Config.Digest].raw = t.image.RawConfig
		}
	}
	return below, nil
}

// graph puts what was found in order.
func (w *walker) graph() (*Graph, error) {
	g := &Graph{under: map[digest.Digest][]*Image{}, doc: map[digest.Digest]int{}, from: map[digest.Digest]Fetcher{}}
	seen := map[digest.Digest]bool{}
	for i := len(w.entries) - 1; i >= 0; i-- {
		if err := w.sortDocs(g, w.entries[i].Root.Descriptor.Digest, seen); err != nil {
			return nil, w.of(i, err)
		}
	}
	slices.Reverse(g.docs)
	for i, n := range g.docs {
		g.doc[n.Descriptor.Digest] = i
		g.size += n.Descriptor.Size
	}
	for i, e := range w.entries {
		g.roots = append(g.roots, e.Root)
		id := e.Root.Descriptor.Digest
		if _, done := g.under[id]; done {
			continue
		}
		g.under[id] = w.collect(g, id, e.Source, map[digest.Digest]bool{})
		if w.shared > maxShared {
			return nil, w.of(i, Bad(KindLimit, string(id), "names share indexes and images more than %d times", maxShared))
		}
		if g.size > maxGraph {
			return nil, w.of(i, Bad(KindLimit, string(id), "more than %d bytes in all", int64(maxGraph)))
		}
	}
	return g, nil
}

// sortDocs appends the documents below id, children before parents and, of
// several children, the last first: the reverse of the order wanted.
func (w *walker) sortDocs(g *Graph, id digest.Digest, seen map[digest.Digest]bool) error {
	n := w.nodes[id]
	if seen[id] || n.raw == nil {
		return nil
	}
	seen[id] = true
	for _, d := range slices.Backward(n.links) {
		if err := w.sortDocs(g, d.Digest, seen); err != nil {
			return err
		}
		n.height = max(n.height, w.nodes[d.Digest].height)
	}
	if IsIndex(n.desc.MediaType) {
		if n.height++; n.height > maxIndexDepth {
			return tooDeep(n.desc)
		}
	}
	g.docs = append(g.docs, Node{n.desc, n.raw})
	return nil
}

// collect appends the blobs below id that are no documents, and returns its
// images.
func (w *walker) collect(g *Graph, id digest.Digest, source Fetcher, seen map[digest.Digest]bool) []*Image {
	if seen[id] {
		return nil
	}
	seen[id] = true
	n := w.nodes[id]
	var images []*Image
	if n.image != nil {
		images = append(images, n.image)
	}
	if n.collected { // only images are of interest
		if !IsIndex(n.desc.MediaType) {
			return images
		}
		if w.shared += len(n.links); w.shared > maxShared {
			return nil
		}
	}
	n.collected = true
	if _, known := g.from[id]; n.raw == nil && !known {
		g.from[id] = source
		g.blobs = append(g.blobs, n.desc)
		g.size += n.desc.Size
	}
	for _, d := range n.links {
		images = append(images, w.collect(g, d.Digest, source, seen)...)
	}
	return images
}
