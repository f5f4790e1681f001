package dedupe

import (
	"cmp"
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

// chunkPlan is a bundle of chunk mode. What becomes of every blob is known but
// for compressed layers that are still to be studied, and but for the sizes of
// segments.
type chunkPlan struct {
	*selection
	level   segment.Level
	limits  packLimits
	bases   []*Base
	images  []byte                            // the catalog's list of roots
	layers  map[digest.Digest]manifests.Layer // that can be held open, by the digest of the blob
	never   map[digest.Digest]Reason          // of the other layers
	source  layerSource                       // of carried and open ones
	carried []ocispec.Descriptor              // documents first
	open    []openTar                         // in the order of leaves
	packed  []manifests.Layer                 // compressed ones that are to be studied
	need    []ocispec.Descriptor
	counts  *counts

	// Once layers have been studied:
	streams []heldStream             // in the order of leaves
	reasons map[digest.Digest]Reason // of layers that are carried
	unread  []heldStream             // that an estimate counts as they are
	recipes *recipeFile
	spool   *blobSpool // source, if it is one
}

// openTar is a layer that is held open: its tar, whose digest is its DiffID,
// and the blob that is read for it.
type openTar struct {
	manifests.Layer
	size int64 // of the tar; may be unknownSize while an estimate is made
}

const unknownSize = -1

// length is the size of the tar, or what it is taken to be.
func (t openTar) length() int64 {
	if t.size == unknownSize {
		return usualRatio * t.Blob.Size
	}
	return t.size
}

// heldStream is a compressed layer that is given back from an open tar.
type heldStream struct {
	blob   ocispec.Descriptor
	tar    digest.Digest
	model  string
	recipe keptRecipe
}

func newChunkPlan(s *selection, o PlanOptions) (*chunkPlan, error) {
	p := &chunkPlan{selection: s, level: segment.Level(o.Level), limits: defaultLimits, bases: o.Bases, source: s.graph}
	if err := checkLevel(o.Level); err != nil {
		return nil, err
	}
	var err error
	if p.images, err = manifests.FormatLayoutIndex(p.roots); err != nil {
		return nil, err
	}
	if _, err = formatCatalog(catalog{Images: p.images}); err != nil {
		return nil, err // as a reader would refuse it, before anything is fetched
	}
	p.findLayers()
	return p, p.arrange(nil)
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

// findLayers notes the layers that can be held open: tars that are what their
// configs say, and compressed ones. Where configs differ on a blob, the first
// is believed. What a layer unpacks to must not be stored as a blob too, unless
// that is a tar which is held open itself.
func (p *chunkPlan) findLayers() {
	p.layers, p.never = map[digest.Digest]manifests.Layer{}, map[digest.Digest]Reason{}
	stored := map[digest.Digest]bool{}
	for _, b := range p.blobs() {
		stored[b.Digest] = true
	}
	var compressed []manifests.Layer
	for _, r := range p.roots {
		for _, img := range p.graph.Images(r) {
			for _, l := range img.Layers {
				switch {
				case l.Compression != manifests.Uncompressed:
					compressed = append(compressed, l)
				case l.DiffID == l.Blob.Digest:
					p.layers[l.DiffID] = l
					delete(stored, l.DiffID)
				default:
					p.never[l.Blob.Digest] = ReasonDiffID
				}
			}
		}
	}
	for _, l := range compressed {
		if stored[l.DiffID] {
			p.never[l.Blob.Digest] = ReasonLimit
		} else if _, known := p.layers[l.Blob.Digest]; !known {
			p.layers[l.Blob.Digest] = l
		}
	}
}

// arrange decides what becomes of each blob. A leaf that a base has is left to
// it; a layer that can be is held open, a compressed one if the study found how;
// all else is carried. verdicts are those of the study by blob; nil before it.
func (p *chunkPlan) arrange(verdicts map[digest.Digest]verdict) error {
	p.carried, p.open, p.packed, p.need = slices.Clone(p.docs), nil, nil, nil
	p.streams, p.unread, p.reasons = nil, nil, map[digest.Digest]Reason{}
	a := arrangement{chunkPlan: p, verdicts: verdicts, fates: map[digest.Digest]fate{}, tars: map[digest.Digest]int{}}
	made := map[digest.Digest]bool{} // tars that streams are made from: they are open, whoever has them
	for d, v := range verdicts {
		made[p.layers[d].DiffID] = made[p.layers[d].DiffID] || v.why == "" && !v.unread
	}
	for _, d := range p.leaves {
		if p.holder(d.Digest) != nil && !made[d.Digest] {
			p.need = append(p.need, d)
			a.fates[d.Digest] = needed
		} else if err := a.leaf(d); err != nil {
			return err
		}
	}
	if n := len(p.carried) + chunkBlobs; n > maxChunkBlobs {
		return manifests.Bad(manifests.KindLimit, "bundle", "%d blobs are more than %d", n, maxChunkBlobs)
	}
	var err error
	p.counts, err = count(p.selection, func(d ocispec.Descriptor) fate { return a.fates[d.Digest] })
	return err
}

// arrangement is a plan that is being arranged.
type arrangement struct {
	*chunkPlan
	verdicts map[digest.Digest]verdict
	fates    map[digest.Digest]fate
	tars     map[digest.Digest]int // in open
	recipes  int64                 // bytes of streams' recipes
}

// leaf decides on a leaf that is in the bundle.
func (a *arrangement) leaf(d ocispec.Descriptor) error {
	l, ok := a.layers[d.Digest]
	v := a.verdicts[d.Digest]
	switch {
	case ok && l.Compression == manifests.Uncompressed:
		a.fates[d.Digest] = opened
		return a.tar(openTar{l, d.Size})
	case ok && a.verdicts == nil:
		a.fates[d.Digest] = opened
		a.packed = append(a.packed, l)
		return nil
	case ok && v.unread:
		a.fates[d.Digest] = opened
		a.unread = append(a.unread, heldStream{d, l.DiffID, v.model, v.recipe})
		return nil
	case ok && v.why == "" && a.recipes+v.recipe.length <= maxStreams:
		a.fates[d.Digest] = opened
		a.recipes += v.recipe.length
		a.streams = append(a.streams, heldStream{d, l.DiffID, v.model, v.recipe})
		return a.tar(openTar{l, v.tar})
	case ok:
		a.reasons[d.Digest] = cmp.Or(v.why, ReasonLimit)
	case a.never[d.Digest] != "":
		a.reasons[d.Digest] = a.never[d.Digest]
	}
	a.carried = append(a.carried, d)
	return nil
}

// tar adds a tar once. It is best read where it is not compressed.
func (a *arrangement) tar(t openTar) error {
	i, ok := a.tars[t.DiffID]
	if !ok {
		a.tars[t.DiffID] = len(a.open)
		a.open = append(a.open, t)
		return nil
	}
	if a.open[i].size != t.size && min(a.open[i].size, t.size) != unknownSize {
		return manifests.Bad(manifests.KindSize, "layer "+string(t.Blob.Digest), "its tar %s has %d bytes, by layer %s it has %d", t.DiffID, t.size, a.open[i].Blob.Digest, a.open[i].size)
	}
	if t.Compression == manifests.Uncompressed {
		a.open[i] = t
	}
	return nil
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
	}, members(p.source, p.carried, progress)...))
	if err != nil {
		return nil, err
	}
	return t.Front(), nil
}

// frontMembers are those of front that are no blobs.
const frontMembers = 2

// windows cuts tars into runs of at most limit bytes, or of one tar.
func windows(tars []openTar, limit int64) (out [][]openTar) {
	if limit <= 0 {
		limit = defaultWindow
	}
	var sum int64
	for i, t := range tars {
		if sum += t.length(); i == 0 || sum > limit {
			out, sum = append(out, nil), t.length()
		}
		out[len(out)-1] = append(out[len(out)-1], t)
	}
	return out
}

func (p *chunkPlan) transfer() (n int64) {
	for _, d := range p.carried {
		n += d.Size
	}
	for _, l := range p.open {
		n += l.Blob.Size
	}
	return n + p.packedBytes()
}

func (p *chunkPlan) packedBytes() (n int64) {
	for _, l := range p.packed {
		n += l.Blob.Size
	}
	return n
}

func (p *chunkPlan) openBytes() (n int64) {
	for _, t := range p.open {
		n += t.size
	}
	return n
}

// far are the layers to be studied that come from far away, and are spooled.
func (p *chunkPlan) far() (blobs []ocispec.Descriptor) {
	for _, l := range p.packed {
		if !p.graph.Local(l.Blob.Digest) {
			blobs = append(blobs, l.Blob)
		}
	}
	return blobs
}

// usualRatio is how much larger than their blobs tars are taken to be until
// they have been read.
const usualRatio = 4

func (p *chunkPlan) temp() int64 { return p.tempWith(0) }

// tempWith is the size of the largest window, which is spooled if all of it is
// new, of the prefixes of its segments, and of compressed layers that come from
// far away.
func (p *chunkPlan) tempWith(limit int64) int64 {
	tars := slices.Clip(p.open)
	for _, l := range p.packed {
		tars = append(tars, openTar{l, unknownSize})
	}
	var most, spooled int64
	for _, w := range windows(tars, limit) {
		var n int64
		for _, t := range w {
			n += t.length()
		}
		most = max(most, n)
	}
	if p.readsBases() {
		segments := (most + int64(p.segmentSize()) - 1) / int64(p.segmentSize())
		most += segments * maxPackPrefix
	}
	for _, d := range p.far() {
		spooled += d.Size
	}
	if p.spool != nil {
		spooled = p.spool.size
	}
	return most + spooled
}
