package dedupe

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/tarball"
	"github.com/imgpack/imgpack/manifests"
)

// PlanOptions choose what a bundle will be. The zero value is a bundle in
// layer mode.
type PlanOptions struct{}

// Plan is a bundle that is laid out and not yet written. It does not change and
// is safe for concurrent use.
type Plan struct {
	graph  *manifests.Graph
	roots  []manifests.Root
	blobs  []ocispec.Descriptor // in the order of the file
	index  []byte
	size   int64
	rows   []Row
	totals Totals
}

// Row says what one root brings to a bundle.
type Row struct {
	Root     manifests.Root
	Images   []*manifests.Image // one, or one for each platform of an index
	Layers   int                // of all Images
	Bytes    int64              // stored size of all blobs the root needs
	NewBytes int64              // of those, what the rows before it did not bring
}

// Totals sums up the rows of a bundle.
type Totals struct {
	Images         int   // rows
	Layers         int   // of all rows
	DistinctLayers int   // that are stored
	Bytes          int64 // of the rows, each on its own
	Stored         int64 // of all blobs, each once
}

// NewPlan lays out a bundle of the graph's roots in layer mode. A root that is
// given twice is stored once. It returns a *manifests.ConflictError where one
// name stands for two digests, and a *manifests.ContentError where a bound of
// the format is passed.
func NewPlan(g *manifests.Graph, _ PlanOptions) (*Plan, error) {
	p := &Plan{graph: g, blobs: order(g)}
	if len(p.blobs) > maxBlobs {
		return nil, manifests.Bad(manifests.KindLimit, "bundle", "%d blobs are more than %d", len(p.blobs), maxBlobs)
	}
	for _, b := range p.blobs {
		if b.Size > maxBlobSize {
			return nil, manifests.Bad(manifests.KindLimit, "blob "+string(b.Digest), "%d bytes are more than %d", b.Size, int64(maxBlobSize))
		}
	}
	var err error
	if p.roots, err = distinct(g.Roots()); err != nil {
		return nil, err
	}
	if err := p.count(); err != nil {
		return nil, err
	}
	rest, err := tarball.NewPlan(p.blobMembers(nil))
	if err != nil {
		return nil, err
	}
	tail := rest.Size()
	index, err := manifests.FormatAnnotatedIndex(p.roots, p.annotations(tail))
	if err != nil {
		return nil, err
	}
	p.index = seal(index)
	if _, _, err := (&scanner{name: "bundle"}).index(p.index); err != nil {
		return nil, err // as a reader would refuse it, before anything is fetched
	}
	head, err := tarball.NewPlan(p.headMembers())
	if err != nil {
		return nil, err
	}
	p.size = head.Size() - endSize + tail
	return p, nil
}

// order is the order of blobs in the file: documents, then leaves.
func order(g *manifests.Graph) []ocispec.Descriptor {
	var blobs []ocispec.Descriptor
	for _, n := range g.Docs() {
		blobs = append(blobs, n.Descriptor)
	}
	return append(blobs, g.Blobs()...)
}

func distinct(roots []manifests.Root) ([]manifests.Root, error) {
	if len(roots) == 0 {
		return nil, &manifests.NotFoundError{Subject: "image to put into a bundle"}
	}
	var out []manifests.Root
	named := map[manifests.Name]digest.Digest{}
	for _, r := range roots {
		if d, ok := named[r.Name]; ok && !r.Name.IsZero() {
			if d != r.Descriptor.Digest {
				return nil, &manifests.ConflictError{Subject: r.Display(), Err: fmt.Errorf("names both %s and %s", d, r.Descriptor.Digest)}
			}
			continue
		}
		named[r.Name] = r.Descriptor.Digest
		same := func(o manifests.Root) bool {
			return o.Name.IsZero() && o.Label == r.Label && o.Descriptor.Digest == r.Descriptor.Digest
		}
		if r.Name.IsZero() && slices.ContainsFunc(out, same) {
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

func (p *Plan) annotations(tail int64) map[string]string {
	table := newMemberTable()
	for _, b := range p.blobs {
		table.add(b.Digest, b.Size)
	}
	return map[string]string{
		annotationVersion: strconv.Itoa(formatVersion),
		annotationMode:    modeLayer,
		annotationBlobs:   strconv.Itoa(table.count),
		annotationTail:    strconv.FormatInt(tail, 10),
		annotationMembers: string(table.digest()),
		annotationReadme:  string(digest.FromString(readme)),
		annotationIndex:   string(blankDigest),
	}
}

func (p *Plan) headMembers() []tarball.Member {
	return []tarball.Member{
		tarball.Bytes(readmeName, []byte(readme)),
		tarball.Bytes(layoutName, []byte(manifests.LayoutMarker)),
		tarball.Bytes(indexName, p.index),
	}
}

func (p *Plan) blobMembers(progress manifests.Progress) []tarball.Member {
	members := make([]tarball.Member, len(p.blobs))
	for i, b := range p.blobs {
		members[i] = tarball.Member{Name: memberName(b.Digest), Size: b.Size, Open: func(ctx context.Context) (io.ReadCloser, error) {
			r, err := p.graph.Fetch(ctx, b)
			return progress.Watch(r, b), err
		}}
	}
	return members
}

// Size is the length of the file, in bytes: exact, and known before anything is
// fetched.
func (p *Plan) Size() int64 { return p.size }

// Digest is the identity of the bundle: the digest of its index.json.
func (p *Plan) Digest() digest.Digest { return digest.FromBytes(p.index) }

// Rows says what each root brings, in the order of the bundle.
func (p *Plan) Rows() []Row { return slices.Clone(p.rows) }

// Totals sums up Rows.
func (p *Plan) Totals() Totals { return p.totals }
