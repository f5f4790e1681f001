package dedupe

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/tarball"
	"github.com/imgpack/imgpack/manifests"
)

// layerPlan is a bundle of layer mode: all sizes are known before anything is
// fetched.
type layerPlan struct {
	*selection
	all     []ocispec.Descriptor // blobs, in the order of the file
	index   []byte
	size    int64
	summary Summary
}

func newLayerPlan(s *selection) (*layerPlan, error) {
	p := &layerPlan{selection: s, all: s.blobs()}
	if len(p.all) > maxBlobs {
		return nil, manifests.Bad(manifests.KindLimit, "bundle", "%d blobs are more than %d", len(p.all), maxBlobs)
	}
	rest, err := tarball.NewPlan(members(p.graph, p.all, nil))
	if err != nil {
		return nil, err
	}
	tail := rest.Size()
	annotations := indexAnnotations(ModeLayer, p.all, readme)
	annotations[annotationTail] = strconv.FormatInt(tail, 10)
	index, err := manifests.FormatAnnotatedIndex(p.roots, annotations)
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
	return p, p.sum()
}

func (p *layerPlan) sum() error {
	c, err := count(p.selection, func(ocispec.Descriptor) fate { return carried })
	if err != nil {
		return err
	}
	c.totals.Stored = c.distinct
	p.summary = Summary{Exact: true, Size: p.size, Digest: digest.FromBytes(p.index), Rows: c.rows, Totals: c.totals}
	return nil
}

func (p *layerPlan) headMembers() []tarball.Member {
	return []tarball.Member{
		tarball.Bytes(readmeName, []byte(readme)),
		tarball.Bytes(layoutName, []byte(manifests.LayoutMarker)),
		tarball.Bytes(indexName, p.index),
	}
}

// members are the members of blobs, which tell progress of what is read.
func members(source manifests.Fetcher, blobs []ocispec.Descriptor, progress manifests.Progress) []tarball.Member {
	members := make([]tarball.Member, len(blobs))
	for i, b := range blobs {
		members[i] = tarball.Member{Name: memberName(b.Digest), Size: b.Size, Open: func(ctx context.Context) (io.ReadCloser, error) {
			r, err := source.Fetch(ctx, b)
			return progress.Watch(r, b), err
		}}
	}
	return members
}

func (p *layerPlan) transfer() int64 { return p.summary.Totals.Stored }
func (p *layerPlan) temp() int64     { return 0 }

func (p *layerPlan) estimate(context.Context, Options) (*Summary, error) { return p.summed(0), nil }

// summed is a summary for the caller to keep.
func (p *layerPlan) summed(resumed int64) *Summary {
	s := p.summary
	s.Resumed = resumed
	return &s
}

func (p *layerPlan) writeFile(ctx context.Context, path string, o Options) (*Summary, error) {
	o.begin(PhaseWrite, p.transfer())
	var resumed int64
	err := makeFile(path, o, func(f *atomicfile.File, left bool) error {
		if err := f.Reserve(p.size); err != nil {
			return err
		}
		t, err := p.tar(o)
		if err != nil {
			return err
		}
		again := leftover{file: f, blobs: p.all, skip: len(p.headMembers()), offset: t.Offset, progress: o.Progress}
		if err := t.WriteAt(ctx, f, o.jobs(), again.have(ctx, left)); err != nil {
			return err
		}
		resumed = again.bytes
		return checkWritten(f, path, p.size, p.summary.Digest)
	})
	if err != nil {
		return nil, err
	}
	return p.summed(resumed), nil
}

func (p *layerPlan) write(ctx context.Context, w io.Writer, o Options) (*Summary, error) {
	o.begin(PhaseWrite, p.transfer())
	t, err := p.tar(o)
	if err != nil {
		return nil, err
	}
	if err := t.Write(ctx, w); err != nil {
		return nil, err
	}
	return p.summed(0), nil
}

func (p *layerPlan) tar(o Options) (*tarball.Plan, error) {
	t, err := tarball.NewPlan(append(p.headMembers(), members(p.graph, p.all, o.Progress)...))
	if err == nil && t.Size() != p.size {
		err = fmt.Errorf("lay out bundle: %d bytes, planned %d", t.Size(), p.size)
	}
	return t, err
}
