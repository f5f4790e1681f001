package dedupe

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/manifests"
)

// PlanOptions choose what a bundle will be. The zero value is a bundle in
// chunk mode that stands alone.
type PlanOptions struct {
	Mode  Mode    // "" is ModeChunk
	Level Level   // of chunk mode; "" is LevelDefault
	Bases []*Base // what the other side has and the bundle, of chunk mode, need not hold: a delta
}

// Level is how hard contents are compressed.
type Level string

// The levels.
const (
	LevelFast    Level = "fast"
	LevelDefault Level = "default"
	LevelMax     Level = "max"
)

// Plan is a bundle that is laid out and not yet written. It does not change and
// is safe for concurrent use.
type Plan struct{ engine }

// engine is what the modes differ in.
type engine interface {
	estimate(ctx context.Context, o Options) (*Summary, error)
	writeFile(ctx context.Context, path string, o Options) (*Summary, error)
	write(ctx context.Context, w io.Writer, o Options) (*Summary, error)
	transfer() int64
	temp() int64
}

// NewPlan lays out a bundle of the graph's roots. A root that is given twice is
// stored once. It returns a *manifests.ConflictError where one name stands for
// two digests, and a *manifests.ContentError where a bound of the format is
// passed.
func NewPlan(g *manifests.Graph, o PlanOptions) (*Plan, error) {
	s, err := newSelection(g)
	if err != nil {
		return nil, err
	}
	var e engine
	switch {
	case o.Mode == "" || o.Mode == ModeChunk:
		e, err = newChunkPlan(s, o)
	case o.Mode == ModeLayer && len(o.Bases) == 0:
		e, err = newLayerPlan(s)
	case o.Mode == ModeLayer:
		err = &manifests.InputError{What: "mode", Input: string(o.Mode), Why: "only a bundle of chunk mode leans on what the other side has"}
	default:
		err = &manifests.InputError{What: "mode", Input: string(o.Mode), Why: "it is neither chunk nor layer"}
	}
	if err != nil {
		return nil, err
	}
	return &Plan{e}, nil
}

// Estimate says what WriteFile would do, and writes nothing. In layer mode
// nothing is read and the summary is exact. In chunk mode open layers are read,
// what they share is exact, and how far it compresses is told from a sample.
// Compressed layers are held open if their beginnings look like it; those that
// come from far away are not read further, and counted as they are.
func (p *Plan) Estimate(ctx context.Context, o Options) (*Summary, error) {
	return p.estimate(ctx, o)
}

// WriteFile writes the bundle to path, which appears whole or not at all. Blobs
// are fetched in parallel, the largest first, straight into their places; those
// of compressed layers first into a file beside it, if they come from far away.
// Space for them is reserved before the first is fetched. The container is read back and
// compared with what was to be written before it counts. An existing file is an
// error wrapping fs.ErrExist unless it may be replaced.
func (p *Plan) WriteFile(ctx context.Context, path string, o Options) (*Summary, error) {
	return p.writeFile(ctx, path, o)
}

// Write writes the bundle to w, in order: the same bytes as WriteFile's, for
// pipes.
func (p *Plan) Write(ctx context.Context, w io.Writer, o Options) (*Summary, error) {
	return p.write(ctx, w, o)
}

// Transfer is how many bytes of blobs writing the bundle tells Options.Progress
// of, once layers have been studied.
func (p *Plan) Transfer() int64 { return p.transfer() }

// Temp is an upper bound of the temporary space that writing the bundle takes,
// in bytes, besides the bundle itself. Compressed layers are taken to unpack to
// four times their size, which real ones seldom exceed.
func (p *Plan) Temp() int64 { return p.temp() }

// selection is what goes into a bundle, however it is stored.
type selection struct {
	graph  *manifests.Graph
	roots  []manifests.Root
	docs   []ocispec.Descriptor // manifests, indexes, configs
	leaves []ocispec.Descriptor
}

func newSelection(g *manifests.Graph) (*selection, error) {
	s := &selection{graph: g, leaves: g.Blobs()}
	for _, n := range g.Docs() {
		s.docs = append(s.docs, n.Descriptor)
	}
	for _, b := range s.blobs() {
		if b.Size > maxBlobSize {
			return nil, manifests.Bad(manifests.KindLimit, "blob "+string(b.Digest), "%d bytes are more than %d", b.Size, int64(maxBlobSize))
		}
	}
	var err error
	s.roots, err = distinct(g.Roots())
	return s, err
}

// blobs are all blobs, in the order of a bundle: documents, then leaves.
func (s *selection) blobs() []ocispec.Descriptor { return slices.Concat(s.docs, s.leaves) }

func distinct(roots []manifests.Root) ([]manifests.Root, error) {
	if len(roots) == 0 {
		return nil, &manifests.NotFoundError{Subject: "image to put into a bundle"}
	}
	type unnamed struct {
		label  string
		digest digest.Digest
	}
	var out []manifests.Root
	named, others := map[manifests.Name]digest.Digest{}, map[unnamed]bool{}
	for _, r := range roots {
		d, other := named[r.Name], unnamed{r.Label, r.Descriptor.Digest}
		switch {
		case r.Name.IsZero() && others[other]:
		case r.Name.IsZero():
			others[other] = true
			out = append(out, r)
		case d == "":
			named[r.Name] = r.Descriptor.Digest
			out = append(out, r)
		case d != r.Descriptor.Digest:
			return nil, &manifests.ConflictError{Subject: r.Display(), Err: fmt.Errorf("names both %s and %s", d, r.Descriptor.Digest)}
		}
	}
	return out, nil
}
