package dedupe

import (
	"context"
	"fmt"
	"io"
	"sort"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/manifests"
)

// contents gives the open layers of a bundle back. Everything is unpacked when
// it is first needed, once, into the spool. It is safe for concurrent use.
type contents struct {
	file   io.ReaderAt
	name   string // of the bundle, for messages; safe to print
	tars   []tarEntry
	needs  *Needs
	needed map[digest.Digest]int64 // sizes of needs.Blobs
	jobs   int

	spool    spool
	tasks    taskGroup
	memory   *semaphore.Weighted // see decodeMemory
	passes   *semaphore.Weighted // over base layers, jobs at a time
	blobs    buffers             // for segments as they are stored
	unpacked buffers             // for their contents
	segments []segmentFile
	streams  streams
	supply   supply

	recipes task // sets what follows
	set     *recipe.Set
	bases   []baseLayer // as many as needs.Layers
}

func newContents(b *Bundle, o OpenOptions) *contents {
	c := &contents{file: b.r, name: b.name, tars: b.catalog.Tars, needs: b.catalog.Needs, needed: map[digest.Digest]int64{}, jobs: jobs(o.Jobs)}
	c.spool.dir, c.spool.name = o.SpoolDir, b.name
	c.memory = semaphore.NewWeighted(decodeMemory)
	if c.needs != nil {
		for _, d := range c.needs.Blobs {
			c.needed[d.Digest] = d.Size
		}
	}
	c.passes = semaphore.NewWeighted(int64(c.jobs))
	c.segments = make([]segmentFile, len(b.segments))
	var at int64
	for i := range c.segments {
		s := &c.segments[i]
		s.index, s.blob = i, b.segments[i]
		s.start, s.end = at, at+b.catalog.Segments[i]
		s.group, s.do = &c.tasks, func(ctx context.Context) error { return c.spoolSegment(ctx, s) }
		at = s.end
	}
	c.spool.need.Store(at)
	c.prepareStreams(b)
	recipes := b.recipes
	c.recipes = task{group: &c.tasks, do: func(ctx context.Context) error { return c.parse(ctx, recipes) }}
	return c
}

// Close ends all work and frees the spool.
func (c *contents) Close() error {
	c.tasks.close()
	return c.spool.close()
}

// parse reads the recipes, and finds out what they want of base layers.
func (c *contents) parse(ctx context.Context, blob storedBlob) error {
	raw, err := c.readStored(blob, maxPacked)
	if err != nil {
		return err
	}
	defer c.blobs.put(raw)
	bounds := recipe.Bounds{Tars: make([]int64, len(c.tars)), Segments: make([]int64, len(c.segments))}
	for i, t := range c.tars {
		bounds.Tars[i] = t.Size
	}
	for i := range c.segments {
		bounds.Segments[i] = c.segments[i].length()
	}
	if c.needs != nil {
		bounds.Sources = len(c.needs.Layers)
	}
	if c.set, err = recipe.Parse(raw, bounds); err != nil {
		return &manifests.ContentError{Kind: manifests.KindMalformed, Subject: c.member(blob), Err: err}
	}
	return c.placeBases(ctx)
}

// walk calls visit for the ranges a tar is made of, in its order.
func (c *contents) walk(ctx context.Context, tar int, visit func(recipe.Extent) error) error {
	w := c.set.Walk(tar)
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		e, err := w.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return c.badRecipe(tar, err)
		}
		if err := visit(e); err != nil {
			return err
		}
	}
}

func (c *contents) badRecipe(tar int, err error) error {
	return &manifests.ContentError{Kind: manifests.KindMalformed, Subject: fmt.Sprintf("%s: recipe of %s", c.name, c.tars[tar].Digest), Err: err}
}

// locate takes as much off the front of e as lies in one part of the spool.
func (c *contents) locate(e *recipe.Extent) spoolRange {
	var x spoolRange
	if e.Source == 0 {
		s := &c.segments[c.segmentAt(e.Offset)]
		x = spoolRange{&s.part, e.Offset, min(e.Length, s.end-e.Offset)}
	} else {
		x = c.bases[e.Source-1].locate(e.Offset, e.Length)
	}
	e.Offset += x.length
	e.Length -= x.length
	return x
}

// segmentAt is the index of the segment that holds an offset of the contents.
func (c *contents) segmentAt(offset int64) int {
	return sort.Search(len(c.segments), func(i int) bool { return c.segments[i].end > offset })
}

// openTar gives the i-th open layer: the uncompressed tar. EOF proves that it
// is what the catalog says. The caller closes it.
func (c *contents) openTar(ctx context.Context, i int) (io.ReadCloser, error) {
	if err := c.recipes.wait(ctx); err != nil {
		return nil, err
	}
	order, err := c.order(ctx, i)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &restoredTar{
		c: c, order: order, close: cancel,
		next: c.spoolRanges(i),
		wait: func(p *part) error { return p.wait(ctx) },
	}
	return manifests.VerifyReader(r, ocispec.Descriptor{Digest: c.tars[i].Digest, Size: c.tars[i].Size}), nil
}

// order proves a tar's recipe and returns the parts of the spool that it takes
// something from, in the order in which it first does. A base layer that is not
// there is a *MissingBaseError.
func (c *contents) order(ctx context.Context, tar int) ([]*part, error) {
	var order []*part
	seen := map[*part]bool{}
	var last *part
	err := c.walk(ctx, tar, func(e recipe.Extent) error {
		for e.Length > 0 {
			p := c.locate(&e).part
			if p == last || seen[p] {
				last = p
				continue
			}
			if !c.present(p) {
				return c.missing()
			}
			last, seen[p] = p, true
			order = append(order, p)
		}
		return nil
	})
	return order, err
}

// spoolRanges gives a tar as ranges of the spool, one after another.
func (c *contents) spoolRanges(tar int) func() (spoolRange, error) {
	w := c.set.Walk(tar)
	var e recipe.Extent
	return func() (spoolRange, error) {
		if e.Length == 0 {
			var err error
			if e, err = w.Next(); err == io.EOF {
				return spoolRange{}, err
			} else if err != nil {
				return spoolRange{}, c.badRecipe(tar, err)
			}
		}
		return c.locate(&e), nil
	}
}
