package dedupe

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/dedupe/internal/split"
	"github.com/imgpack/imgpack/manifests"
)

// maxBaseChunks bounds the chunks that a base remembers: 150 MB of memory, and
// at the usual size of chunks 150 GB of layers. Those of layers that come later
// are not found.
const maxBaseChunks = 1 << 22

// Base is what one side has: blobs, and the chunks that the tars of its layers
// are made of. Deltas are made against it. It does not change and is safe for
// concurrent use.
type Base struct {
	id      BaseID
	images  []baseImage
	blobs   []tarEntry // leaves, in the order of the graph
	entries []NeededLayer
	chunks  []chunkAt // in the order of entries, and of each tar
	bySum   []uint32  // places in chunks, ordered by sum and layer; of equal ones the first

	blobIn  map[digest.Digest]bool
	layerIn map[digest.Digest]int  // by diffID
	chains  map[digest.Digest]bool // chainIDs of its layers; nil if they are not known

	content *baseContent // nil where there is none to read: of a receipt
}

type baseImage struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
}

// chunkAt is a chunk of a body and its place in the tar.
type chunkAt struct {
	sum    split.Sum
	offset int64
	length int32
	layer  int32 // set by baseBuilder
}

// BaseOptions say how to make a Base.
type BaseOptions struct {
	ID       BaseID             // what people call it
	Shallow  bool               // the blobs alone: no layer is read, and no chunk will be found
	Jobs     int                // layers read at a time; 0 means GOMAXPROCS. Each takes some 2 MiB beside its chunks.
	Progress manifests.Progress // told of the blobs of layers that are read
}

// NewBase makes a base of all that a graph reaches. It reads each layer once,
// and fails where one cannot be read or is not what it should be; that is a
// *manifests.ContentError. The result does not depend on Jobs. A plan that was
// given the base reads layers again: the graph's sources must outlive it.
func NewBase(ctx context.Context, g *manifests.Graph, o BaseOptions) (*Base, error) {
	if n := len(g.Blobs()); n > maxBlobs {
		return nil, manifests.Bad(manifests.KindLimit, "base", "%d blobs are more than %d", n, maxBlobs)
	}
	bb := newBaseBuilder(o.ID, g)
	if o.Shallow {
		return bb.base(), nil
	}
	bb.b.content = &baseContent{graph: g}
	if err := bb.scan(ctx, g, o); err != nil {
		return nil, err
	}
	bb.b.content.sort()
	return bb.base(), nil
}

// ID is what people call the base. That of a receipt is foreign text.
func (b *Base) ID() BaseID { return b.id }

// WithID is the base under another name.
func (b *Base) WithID(id BaseID) *Base {
	named := *b
	named.id = cleanID(id)
	return &named
}

// cleanID is an ID as it is stored.
func cleanID(id BaseID) BaseID {
	id.Name, id.Date = shortText(id.Name), id.Date.UTC().Truncate(time.Second)
	return id
}

// Has reports whether the base holds the blob, a leaf of its images.
func (b *Base) Has(d digest.Digest) bool { return b.blobIn[d] }

// HasLayer reports whether the base holds the layer's blob and, as far as it
// can tell, on top of the same layers: a receipt does not say what lay on what.
func (b *Base) HasLayer(l manifests.Layer) bool {
	return b.Has(l.Blob.Digest) && (b.chains == nil || b.chains[l.ChainID])
}

// Blobs is the number of leaves the base holds.
func (b *Base) Blobs() int { return len(b.blobs) }

// Images is the number of images, or indexes, the base holds.
func (b *Base) Images() int { return len(b.images) }

// Layers is the number of layers whose chunks the base knows.
func (b *Base) Layers() int { return len(b.entries) }

// Chunks is the number of chunks the base knows.
func (b *Base) Chunks() int { return len(b.chunks) }

// places returns where the base has the chunk: the first place in each layer
// that has it, in the order of layers. The list is not to be changed.
func (b *Base) places(sum split.Sum, length int) []uint32 {
	compare := func(at uint32, sum split.Sum) int { return bytes.Compare(b.chunks[at].sum[:], sum[:]) }
	from, ok := slices.BinarySearchFunc(b.bySum, sum, compare)
	if !ok || int(b.chunks[b.bySum[from]].length) != length {
		return nil
	}
	to := from + 1
	for to < len(b.bySum) && compare(b.bySum[to], sum) == 0 {
		to++
	}
	return b.bySum[from:to]
}

// hasLayer returns the place of the layer that has the diffID.
func (b *Base) hasLayer(diffID digest.Digest) (i int, ok bool) {
	i, ok = b.layerIn[diffID]
	return i, ok
}

// of returns the chunks of the i-th layer.
func (b *Base) of(i int) []chunkAt {
	from, _ := slices.BinarySearchFunc(b.chunks, int32(i), byLayer)
	to, _ := slices.BinarySearchFunc(b.chunks, int32(i)+1, byLayer)
	return b.chunks[from:to]
}

func byLayer(c chunkAt, layer int32) int { return cmp.Compare(c.layer, layer) }

// baseBuilder puts a Base together. It is for one goroutine.
type baseBuilder struct{ b *Base }

// newBaseBuilder begins a base of the images and all leaves of g; the layers
// whose chunks are known are still to be added.
func newBaseBuilder(id BaseID, g *manifests.Graph) *baseBuilder {
	bb := emptyBase(id)
	bb.b.chains = map[digest.Digest]bool{}
	for _, r := range g.Roots() {
		for _, img := range g.Images(r) {
			for _, l := range img.Layers {
				bb.b.chains[l.ChainID] = true
			}
		}
		name := shortText(r.Label)
		if !r.Name.IsZero() {
			name = r.Name.String()
		}
		bb.b.images = append(bb.b.images, baseImage{name, r.Descriptor.Digest})
	}
	for _, d := range g.Blobs() {
		bb.addBlob(tarEntry{d.Digest, d.Size})
	}
	return bb
}

func emptyBase(id BaseID) *baseBuilder {
	return &baseBuilder{&Base{id: cleanID(id), blobIn: map[digest.Digest]bool{}, layerIn: map[digest.Digest]int{}}}
}

// maxBaseText bounds the names a receipt gets, in bytes; nothing is found by
// them.
const maxBaseText = 1 << 10

func shortText(name string) string {
	return strings.ToValidUTF8(name[:min(len(name), maxBaseText)], "\uFFFD")
}

func (bb *baseBuilder) addBlob(e tarEntry) {
	if !bb.b.blobIn[e.Digest] {
		bb.b.blobIn[e.Digest] = true
		bb.b.blobs = append(bb.b.blobs, e)
	}
}

// addLayer adds a layer and the chunks of its tar, in ascending order; they are
// copied. A diffID that is there already is left as it is.
func (bb *baseBuilder) addLayer(l manifests.Layer, chunks []chunkAt) {
	bb.add(NeededLayer{DiffID: l.DiffID, Digest: l.Blob.Digest, Size: l.Blob.Size, MediaType: l.Blob.MediaType}, chunks)
}

func (bb *baseBuilder) add(l NeededLayer, chunks []chunkAt) {
	if _, ok := bb.b.layerIn[l.DiffID]; ok {
		return
	}
	i := len(bb.b.entries)
	bb.b.layerIn[l.DiffID] = i
	bb.b.entries = append(bb.b.entries, l)
	chunks = chunks[:min(len(chunks), maxBaseChunks-len(bb.b.chunks))]
	n := len(bb.b.chunks)
	bb.b.chunks = append(bb.b.chunks, chunks...)
	for j := range chunks {
		bb.b.chunks[n+j].layer = int32(i)
	}
}

// carryOver adds a layer with the chunks that another base knows of it, and
// reports whether it knows the layer.
func (bb *baseBuilder) carryOver(b *Base, l manifests.Layer) bool {
	i, ok := b.hasLayer(l.DiffID)
	if ok {
		bb.addLayer(l, b.of(i))
	}
	return ok
}

// base finishes the base.
func (bb *baseBuilder) base() *Base {
	b := bb.b
	type key struct {
		head uint64 // of the sum: keeps the sort inside its own memory
		at   uint32
	}
	keys := make([]key, len(b.chunks))
	for i := range b.chunks {
		keys[i] = key{binary.BigEndian.Uint64(b.chunks[i].sum[:]), uint32(i)}
	}
	bySum := func(x, y key) int {
		if c := cmp.Compare(x.head, y.head); c != 0 {
			return c
		}
		return bytes.Compare(b.chunks[x.at].sum[:], b.chunks[y.at].sum[:])
	}
	slices.SortFunc(keys, func(x, y key) int { return cmp.Or(bySum(x, y), cmp.Compare(x.at, y.at)) })
	keys = slices.CompactFunc(keys, func(x, y key) bool {
		return bySum(x, y) == 0 && b.chunks[x.at].layer == b.chunks[y.at].layer
	})
	b.bySum = make([]uint32, len(keys))
	for i, k := range keys {
		b.bySum[i] = k.at
	}
	return b
}

// scan adds all layers of g, read by several goroutines and added in order.
func (bb *baseBuilder) scan(ctx context.Context, g *manifests.Graph, o BaseOptions) error {
	layers := layersOf(g)
	o.Jobs = jobs(o.Jobs)
	found := make([]chan *collector, len(layers))
	for i := range found {
		found[i] = make(chan *collector, 1)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(1 + o.Jobs)
	ahead := make(chan struct{}, 2*o.Jobs) // layers read and not added: bounds their memory
	group.Go(func() error {
		for i, l := range layers {
			select {
			case c := <-found[i]:
				bb.addLayer(l, c.chunks)
				bb.b.content.add(l, c.files)
				<-ahead
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for i, l := range layers {
		select {
		case ahead <- struct{}{}:
		case <-ctx.Done():
			return group.Wait()
		}
		group.Go(func() error {
			c := new(collector)
			defer func() { found[i] <- c }()
			return c.read(ctx, g, l, o.Progress)
		})
	}
	return group.Wait()
}

// layersOf returns the layers of all images, each diffID once.
func layersOf(g *manifests.Graph) (layers []manifests.Layer) {
	seen := map[digest.Digest]bool{}
	for _, r := range g.Roots() {
		for _, img := range g.Images(r) {
			for _, l := range img.Layers {
				if !seen[l.DiffID] {
					seen[l.DiffID] = true
					layers = append(layers, l)
				}
			}
		}
	}
	return layers
}

// collector is a split.Sink that notes chunks and files.
type collector struct {
	chunks []chunkAt
	files  []baseFile
	at     int64
}

func (c *collector) read(ctx context.Context, g *manifests.Graph, l manifests.Layer, p manifests.Progress) error {
	tar, err := openLayerTar(ctx, g, l, p)
	if err != nil {
		return err
	}
	defer tar.Close()
	return split.Tar(tar, c)
}

func (c *collector) Head(p []byte) error {
	c.at += int64(len(p))
	return nil
}

func (c *collector) Body(name string) error {
	if name != "" && len(c.files) < maxBaseFiles {
		c.files = append(c.files, newBaseFile(name, c.at))
	}
	return nil
}

func (c *collector) Chunk(p []byte, sum split.Sum) error {
	if n := len(c.files); n > 0 && c.files[n-1].offset+c.files[n-1].length == c.at {
		c.files[n-1].length += int64(len(p))
	}
	if len(c.chunks) < maxBaseChunks {
		c.chunks = append(c.chunks, chunkAt{sum: sum, offset: c.at, length: int32(len(p))})
	}
	c.at += int64(len(p))
	return nil
}

var _ split.Sink = (*collector)(nil)
