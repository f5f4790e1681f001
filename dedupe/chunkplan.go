package dedupe

import (
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe/internal/segment"
	"github.com/imgpack/imgpack/internal/tarball"
	"github.com/imgpack/imgpack/manifests"
)

// defaultWindow is how many bytes of open layers are ordered at a time unless
// told otherwise. What lies in one window is compressed side by side; windows
// share whole chunks alone.
const defaultWindow = 16 << 30

// chunkPlan is a bundle of chunk mode: what becomes of every blob is known, the
// sizes of segments are not.
type chunkPlan struct {
	*selection
	level   segment.Level
	limits  packLimits
	bases   []*Base
	images  []byte               // the catalog's list of roots
	carried []ocispec.Descriptor // documents first
	open    []manifests.Layer    // in the order of leaves
	need    []ocispec.Descriptor
	counts  *counts
}

func newChunkPlan(s *selection, o PlanOptions) (*chunkPlan, error) {
	p := &chunkPlan{selection: s, level: segment.Level(o.Level), limits: defaultLimits, bases: o.Bases}
	if err := checkLevel(o.Level); err != nil {
		return nil, err
	}
	fates := p.sort()
	if n := len(p.carried) + chunkBlobs; n > maxChunkBlobs {
		return nil, manifests.Bad(manifests.KindLimit, "bundle", "%d blobs are more than %d", n, maxChunkBlobs)
	}
	var err error
	if p.images, err = manifests.FormatLayoutIndex(p.roots); err != nil {
		return nil, err
	}
	if _, err = formatCatalog(catalog{Images: p.images}); err != nil {
		return nil, err // as a reader would refuse it, before anything is fetched
	}
	p.counts, err = count(s, func(d ocispec.Descriptor) fate { return fates[d.Digest] })
	return p, err
}

// chunkBlobs are the blobs of every bundle in chunk mode: recipes, catalog,
// manifest.
const chunkBlobs = 3

func checkLevel(l Level) error {
	if !slices.Contains([]Level{"", LevelFast, LevelDefault, LevelMax}, l) {
		return &manifests.InputError{What: "level", Input: string(l), Why: "it is none of fast, default and max"}
	}
	return nil
}

// sort decides what becomes of each blob. A leaf that a base has is left to
// it; an uncompressed layer is opened; all else is carried.
func (p *chunkPlan) sort() map[digest.Digest]fate {
	plain := map[digest.Digest]manifests.Layer{}
	for _, r := range p.roots {
		for _, img := range p.graph.Images(r) {
			for _, l := range img.Layers {
				if l.Compression == manifests.Uncompressed && l.DiffID == l.Blob.Digest {
					plain[l.DiffID] = l
				}
			}
		}
	}
	p.carried = slices.Clone(p.docs)
	fates := map[digest.Digest]fate{}
	for _, d := range p.leaves {
		l, isPlain := plain[d.Digest]
		switch {
		case p.holder(d.Digest) != nil:
			p.need = append(p.need, d)
			fates[d.Digest] = needed
		case isPlain:
			p.open = append(p.open, l)
			fates[d.Digest] = opened
		default:
			p.carried = append(p.carried, d)
		}
	}
	return fates
}

// holder is the first of the bases that has the blob.
func (p *chunkPlan) holder(d digest.Digest) *Base {
	for _, b := range p.bases {
		if b.Has(d) {
			return b
		}
	}
	return nil
}

// front is the part of the file before the segments.
func (p *chunkPlan) front(progress manifests.Progress) (*tarball.Plan, error) {
	t, err := tarball.NewPlan(append([]tarball.Member{
		tarball.Bytes(readmeName, []byte(readmeChunk)),
		tarball.Bytes(layoutName, []byte(manifests.LayoutMarker)),
	}, p.members(p.carried, progress)...))
	if err != nil {
		return nil, err
	}
	return t.Front(), nil
}

// frontMembers are those of front that are no blobs.
const frontMembers = 2

// windows cuts the open layers into runs of at most limit bytes, or of one
// layer.
func (p *chunkPlan) windows(limit int64) (out [][]manifests.Layer) {
	if limit <= 0 {
		limit = defaultWindow
	}
	var sum int64
	for i, l := range p.open {
		if sum += l.Blob.Size; i == 0 || sum > limit {
			out, sum = append(out, nil), l.Blob.Size
		}
		out[len(out)-1] = append(out[len(out)-1], l)
	}
	return out
}

func (p *chunkPlan) transfer() (n int64) {
	for _, d := range p.carried {
		n += d.Size
	}
	return n + p.openBytes()
}

func (p *chunkPlan) openBytes() (n int64) {
	for _, l := range p.open {
		n += l.Blob.Size
	}
	return n
}

func (p *chunkPlan) temp() int64 { return p.tempWith(0) }

// tempWith is the size of the largest window, which is spooled if all of it is
// new, and of the prefixes of its segments.
func (p *chunkPlan) tempWith(limit int64) (most int64) {
	for _, w := range p.windows(limit) {
		var n int64
		for _, l := range w {
			n += l.Blob.Size
		}
		most = max(most, n)
	}
	if p.readsBases() {
		segments := (most + int64(p.segmentSize()) - 1) / int64(p.segmentSize())
		most += segments * maxPackPrefix
	}
	return most
}
