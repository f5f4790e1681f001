package dedupe

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/segment"
	"github.com/imgpack/imgpack/manifests"
)

// packer turns the open layers of a plan into segments and recipes, one window
// after the other: layers are taken apart and spooled, contents put in order,
// compressed and written, and meanwhile every tar is put together again from
// its recipe and compared with its digest.
//
// At any time there is one encoder, with the content of one segment, and one
// window's lists of chunks: with two jobs 380 MiB at LevelDefault, 900 at
// LevelMax, and 100 bytes for each chunk and 50 for each file of a window,
// which packLimits bound; in a delta 130 MiB more for the prefix and what finds
// matches in it. Recipes stay until the end: 40 bytes a file.
type packer struct {
	gatherer
	o       Options
	out     *blobWriter // nil: nothing is written
	encoder *segment.Encoder
	content []byte
	behind  []byte // the prefix of content

	tars      []recipe.Tar
	proofs    []walkSum         // of what each tar was put together by
	segments  []int64           // lengths of contents
	prefixes  [][]recipe.Extent // by segment
	contents  int64             // all of them
	packed    int64             // bytes of segments
	fromBases int64             // bytes of tars that are ranges of bases
	fresh     []int64           // by open layer: contents that it brought
	chunks    [][]chunkAt
}

func newPacker(p *chunkPlan, o Options) *packer {
	return &packer{gatherer: gatherer{plan: p, limits: p.limits, sources: newSources(p.bases)}, o: o}
}

func (k *packer) run(ctx context.Context) error {
	for i, w := range windows(k.plan.open, k.o.SpoolLimit) {
		if i > 0 && k.out != nil {
			k.o.begin(PhaseWrite, blobBytesOf(w))
		}
		if err := k.window(ctx, w, k.o.Progress); err != nil {
			return err
		}
	}
	return nil
}

func (k *packer) window(ctx context.Context, layers []openTar, progress manifests.Progress) error {
	if err := k.begin(); err != nil {
		return err
	}
	scanned, err := k.scan(ctx, layers, k.o.jobs(), progress)
	if errors.Is(err, errTooManyPieces) {
		k.forget()
		half := len(layers) / 2
		if err := k.window(ctx, layers[:half], nil); err != nil { // told of already
			return err
		}
		return k.window(ctx, layers[half:], nil)
	}
	if err != nil {
		return err
	}
	k.known = nil // large, and not needed again
	k.choose()
	l := k.order(scanned, k.contents)
	k.fresh = append(k.fresh, l.byLayer...)
	k.contents += l.length
	tars := k.recipes(scanned)
	k.tars = append(k.tars, tars...)
	for i, s := range scanned {
		k.chunks = append(k.chunks, k.collect(s))
		k.fromBases += baseBytes(tars[i])
	}
	if k.out != nil {
		if err := k.store(ctx, layers, l); err != nil {
			return err
		}
	}
	k.keep(l)
	return nil
}

func baseBytes(t recipe.Tar) (n int64) {
	for _, e := range slices.Concat(t.Heads, t.Bodies) {
		if e.Source > 0 {
			n += e.Length
		}
	}
	return n
}

// store writes the segments of a window, and proves its tars.
func (k *packer) store(ctx context.Context, layers []openTar, l layout) error {
	cuts := k.cuts(l.fresh, int64(k.plan.segmentSize()))
	for _, c := range cuts {
		k.segments = append(k.segments, k.length(c))
	}
	k.o.begin(PhaseCompress, l.length)
	old := k.choosePrefixes(cuts, l.files)
	defer old.spool.close()
	k.prefixes = append(k.prefixes, old.lists...)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return k.prove(gctx, layers, l) })
	group.Go(func() error {
		if err := old.fetch(gctx, k.o.SpoolDir, k.o.jobs()); err != nil {
			return err
		}
		return k.compress(gctx, cuts, old)
	})
	return group.Wait()
}

func (k *packer) length(ids []uint32) (n int64) {
	for _, id := range ids {
		n += int64(k.gatherer.chunks.at(id).key.length)
	}
	return n
}

// compress writes segments, one at a time.
func (k *packer) compress(ctx context.Context, cuts [][]uint32, old *prefixes) error {
	if k.encoder == nil {
		k.encoder = segment.NewEncoder(k.plan.level, k.o.jobs())
	}
	var most int64
	for _, ids := range cuts {
		most = max(most, k.length(ids))
	}
	if most > int64(len(k.content)) {
		k.content = make([]byte, most)
	}
	for i, ids := range cuts {
		if err := ctx.Err(); err != nil {
			return err
		}
		content := k.content[:k.length(ids)]
		if err := k.load(content, ids); err != nil {
			return err
		}
		var err error
		if k.behind, err = old.read(k.behind, i); err != nil {
			return err
		}
		blob, err := k.encoder.Encode(content, k.behind)
		if err != nil {
			return err
		}
		d, err := k.out.add(mediaTypeSegment, blob)
		if err != nil {
			return err
		}
		if k.o.Progress != nil {
			k.o.Progress(d, int64(len(content)))
		}
		k.packed += int64(len(blob))
	}
	return nil
}

// load reads chunks from the spool, in the order in which they lie there.
func (k *packer) load(content []byte, ids []uint32) error {
	type read struct {
		from   int64
		to, at int // in content
	}
	reads, at := make([]read, len(ids)), 0
	for i, id := range ids {
		c := k.gatherer.chunks.at(id)
		reads[i] = read{c.spool, at + int(c.key.length), at}
		at = reads[i].to
	}
	slices.SortFunc(reads, func(a, b read) int { return int(min(max(a.from-b.from, -1), 1)) })
	for i := 0; i < len(reads); {
		r := reads[i]
		for i++; i < len(reads) && reads[i].at == r.to && reads[i].from == r.from+int64(r.to-r.at); i++ {
			r.to = reads[i].to
		}
		if _, err := k.spool.file.ReadAt(content[r.at:r.to], r.from); err != nil {
			return fmt.Errorf("read temporary data: %w", err)
		}
	}
	return nil
}
