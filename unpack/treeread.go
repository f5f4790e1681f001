package unpack

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// Bounds on what is kept of layers' entries.
const (
	// treeCost is what an entry takes beside its texts: record, inode, and its
	// place in a directory.
	treeCost = 300
	// maxParts is how many parts of a sparse file are told apart; small holes
	// between more of them are written as zeros.
	maxParts = 4096
)

// DefaultTreeMemory bounds what the entries of images' layers take in memory
// until they are one tree, in bytes: a third of a million with names of a common
// length, which is what the largest images met have.
const DefaultTreeMemory = 128 << 20

// readLayers reads the entries of all layers of the images, each once.
func readLayers(ctx context.Context, images []TreeImage, o TreeOptions, bounds *treeBounds) (map[digest.Digest][]*record, error) {
	keeper, err := newKeeper(o.Keep)
	if err != nil {
		return nil, err
	}
	var readers []*treeReader
	known := map[digest.Digest]*treeReader{}
	var claimed []*job // layers of diffIDs that others have too, but by other blobs
	for _, im := range images {
		for i, l := range im.Image.Layers {
			j := job{src: im.Source, img: im.Image, index: i, options: o.bounds()}
			if r := known[l.DiffID]; r != nil {
				if r.blob() != j.blob() {
					claimed = append(claimed, &j)
				}
				continue
			}
			j.progress = o.Progress
			r := &treeReader{digests: o.Digests, keeper: keeper, bounds: bounds, job: j}
			known[l.DiffID] = r
			readers = append(readers, r)
		}
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(Options{Jobs: o.Jobs}.jobs())
	for _, r := range readers {
		group.Go(func() error { return r.read(gctx) })
	}
	for _, j := range claimed {
		group.Go(func() error { return j.proveAll(gctx) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	read := make(map[digest.Digest][]*record, len(known))
	for id, r := range known {
		read[id] = r.records
	}
	return read, ctx.Err()
}

// treeBounds is what the layers of all trees that are read at once share.
type treeBounds struct {
	search search
	held   atomic.Int64
	most   int64 // that held may be
}

func newTreeBounds(memory int64) *treeBounds {
	return &treeBounds{most: cmp.Or(memory, DefaultTreeMemory)}
}

// hold counts bytes that are held in memory.
func (b *treeBounds) hold(n int64) error {
	if b.held.Add(n) > b.most {
		return layertar.Past(LimitMemory, "the entries of all layers take more than %d bytes of memory", b.most)
	}
	return nil
}

// impliedCost is what a directory that names of others lead through takes. Each
// name may have a thousand.
func impliedCost(path string) int64 { return int64(treeCost + len(path)) }

// treeReader reads the entries of one layer.
type treeReader struct {
	job
	digests bool
	keeper  *keeper // nil: nothing is kept
	bounds  *treeBounds
	records []*record
	hash    hash.Hash
	buf     []byte
}

func (t *treeReader) read(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.each(ctx, func(e *layertar.Entry, r io.Reader) error {
		rec, err := t.record(e, r)
		t.records = append(t.records, rec)
		return err
	})
}

// proveAll reads the layer for nothing but its digests.
func (j *job) proveAll(ctx context.Context) error {
	return j.each(ctx, func(*layertar.Entry, io.Reader) error { return nil })
}

func (j *job) blob() digest.Digest { return j.img.Layers[j.index].Blob.Digest }

// each opens the layer, gives every entry of it to visit, and proves its
// digests.
func (j *job) each(ctx context.Context, visit func(e *layertar.Entry, content io.Reader) error) error {
	layer := j.img.Layers[j.index]
	in, err := j.open(ctx, layer)
	if err != nil {
		return j.fail(layer, err)
	}
	defer in.close()
	if err := j.eachOf(ctx, in, visit); err != nil {
		return j.fail(layer, in.blame(err))
	}
	return nil
}

func (j *job) eachOf(ctx context.Context, in *layerStream, visit func(e *layertar.Entry, content io.Reader) error) error {
	layer := j.img.Layers[j.index]
	limits := j.options.Limits
	if layer.Compression != manifests.Uncompressed {
		limits.Compressed = layer.Blob.Size
	}
	r := layertar.NewReader(in, limits)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := r.Next()
		if err == io.EOF {
			return in.prove(layer.DiffID)
		}
		if err == nil {
			err = visit(e, r)
		}
		if err != nil {
			return err
		}
	}
}

// record keeps an entry, and looks through its content where that is asked for.
func (t *treeReader) record(e *layertar.Entry, content io.Reader) (*record, error) {
	cost := int64(treeCost + len(e.Name) + len(e.Linkname))
	r := &record{
		name: e.Name, link: e.Linkname, kind: e.Kind, sparse: e.Sparse, block: e.Block, mode: uint16(e.Mode),
		uid: e.UID, gid: e.GID, sec: e.ModTime.Unix(), nsec: int32(e.ModTime.Nanosecond()), size: e.Size, minor: e.Minor,
	}
	if e.Kind == layertar.Device {
		r.size = e.Major
	}
	if len(e.Xattrs) > 0 || e.Sparse {
		r.more = &extra{}
	}
	if r.more != nil {
		r.more.xattrs = e.Xattrs
	}
	cost += int64(xattrBytes(e.Xattrs))
	content, proof, err := t.keeper.keep(r, content)
	if err != nil {
		return r, err
	}
	if proof = proof || t.digests; e.Kind == layertar.File && (proof || e.Sparse) {
		if err := t.look(r, content, proof); err != nil {
			return r, err
		}
		if r.more != nil {
			cost += int64(len(r.more.parts)) * 16
		}
	}
	return r, t.bounds.hold(cost)
}

// look reads a file's content for its digest and its holes.
func (t *treeReader) look(r *record, content io.Reader, digests bool) error {
	if t.buf == nil {
		t.buf, t.hash = make([]byte, 64<<10), sha256.New()
	}
	t.hash.Reset()
	var found *parts
	if r.sparse {
		found = &parts{gap: hole}
	}
	for {
		n, err := manifests.Fill(content, t.buf)
		if digests {
			t.hash.Write(t.buf[:n])
		}
		if found != nil {
			found.add(t.buf[:n])
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if digests {
		t.hash.Sum(r.sum[:0])
	}
	if found != nil {
		r.more.parts = found.list
	}
	return nil
}

// extent is a part of a sparse file that is no hole.
type extent struct{ at, end int64 }

// parts finds the parts of a sparse file.
type parts struct {
	list []extent
	pos  int64
	gap  int64 // holes shorter than that are none
	most int   // parts that are told apart; 0 means maxParts
}

// add looks at the next bytes of the file; all but the last it is given are a
// multiple of hole.
func (p *parts) add(b []byte) {
	for len(b) > 0 {
		n := min(len(b), hole)
		if !bytes.Equal(b[:n], zeros[:n]) {
			p.part(extent{p.pos, p.pos + int64(n)})
		}
		p.pos += int64(n)
		b = b[n:]
	}
}

func (p *parts) part(e extent) {
	if last := len(p.list) - 1; last >= 0 && e.at-p.list[last].end < p.gap {
		p.list[last].end = e.end
		return
	}
	p.list = append(p.list, e)
	for len(p.list) > cmp.Or(p.most, maxParts) {
		p.gap *= 2
		kept := p.list[:1]
		for _, e := range p.list[1:] {
			if last := len(kept) - 1; e.at-kept[last].end < p.gap {
				kept[last].end = e.end
			} else {
				kept = append(kept, e)
			}
		}
		p.list = kept
	}
}
