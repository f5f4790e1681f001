package dedupe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/tarball"
	"github.com/imgpack/imgpack/manifests"
)

func (p *chunkPlan) writeFile(ctx context.Context, path string, o Options) (*Summary, error) {
	var s *Summary
	err := makeFile(path, o, func(f *atomicfile.File, left bool) (err error) {
		o.SpoolDir = filepath.Dir(path)
		if len(p.far()) == 0 {
			removeBeside(path)
		}
		d, end, err := p.prepare(ctx, o, openBeside(path, o.Keep != nil))
		defer func() { err = errors.Join(err, end(err != nil && o.Keep != nil && o.Keep(err))) }()
		if err != nil {
			return err
		}
		front, err := d.front(o.Progress)
		if err != nil {
			return err
		}
		if err := f.Reserve(front.Size()); err != nil {
			return err
		}
		again := leftover{file: f, blobs: d.carried, skip: frontMembers, offset: front.Offset, progress: o.Progress}
		if err := front.WriteAt(ctx, f, o.jobs(), again.have(ctx, left)); err != nil {
			return err
		}
		if s, err = d.rest(ctx, io.NewOffsetWriter(f, front.Size()), front.Size(), o); err != nil {
			return errors.Join(err, f.Truncate(front.Size())) // the next run makes the segments anew
		}
		s.Resumed = again.bytes + d.spool.resumedBytes(again.found)
		return checkWritten(f, path, s.Size, s.Digest)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (p *chunkPlan) write(ctx context.Context, w io.Writer, o Options) (s *Summary, err error) {
	d, end, err := p.prepare(ctx, o, openUnnamed(cmp.Or(o.SpoolDir, ".")))
	defer func() { err = errors.Join(err, end(false)) }()
	if err != nil {
		return nil, err
	}
	front, err := d.front(o.Progress)
	if err != nil {
		return nil, err
	}
	if err := front.Write(ctx, w); err != nil {
		return nil, err
	}
	return d.rest(ctx, w, front.Size(), o)
}

// rest writes what follows the front: segments window by window, and what says
// how they are used.
func (p *chunkPlan) rest(ctx context.Context, w io.Writer, front int64, o Options) (*Summary, error) {
	k := newPacker(p, o)
	k.out = &blobWriter{w: w, at: front}
	for _, d := range p.carried {
		if err := k.out.note(mediaTypeCarried, d.Digest, d.Size); err != nil {
			return nil, err
		}
	}
	if len(p.open) > 0 {
		spool, err := atomicfile.Unnamed(cmp.Or(o.SpoolDir, "."))
		if err != nil {
			return nil, err
		}
		defer spool.Close()
		k.spool = &spoolWriter{file: spool, need: p.tempWith(o.SpoolLimit)}
	}
	if err := k.run(ctx); err != nil {
		return nil, err
	}
	return k.finish()
}

// finish writes what follows the segments.
func (k *packer) finish() (*Summary, error) {
	recipes, err := k.recipesBlob()
	if err != nil {
		return nil, err
	}
	if _, err := k.out.add(mediaTypeRecipes, recipes); err != nil {
		return nil, err
	}
	if len(k.plan.streams) > 0 {
		if err := k.out.addStreams(k.plan.recipes, k.plan.streams); err != nil {
			return nil, err
		}
	}
	c := k.catalog()
	raw, err := formatCatalog(c)
	if err != nil {
		return nil, err
	}
	listed := k.out.blobs
	config, err := k.out.add(mediaTypeCatalog, raw)
	if err != nil {
		return nil, err
	}
	if raw, err = formatManifest(config, listed); err != nil {
		return nil, err
	}
	manifest, err := k.out.add(ocispec.MediaTypeImageManifest, raw)
	if err != nil {
		return nil, err
	}
	var features []string
	if c.Needs != nil {
		features = append(features, featureDelta)
	}
	if c.Streams != nil {
		features = append(features, featureStreams)
	}
	index, err := chunkIndex(manifest, k.out.blobs, k.out.at, features)
	if err != nil {
		return nil, err
	}
	if err := k.out.member(indexName, index); err != nil {
		return nil, err
	}
	if err := k.out.write(tarball.End()); err != nil {
		return nil, err
	}
	s := k.summary()
	s.Exact, s.Size, s.Digest = true, k.out.at, digest.FromBytes(index)
	s.Totals.Stored = k.out.stored
	s.Receipt = k.receipt(s.Digest)
	return s, nil
}

// recipesBlob joins the recipes of all windows, and proves that each says what
// the one said that its tar was put together by.
func (k *packer) recipesBlob() ([]byte, error) {
	blob, err := encodeRecipes(k.tars, k.prefixes)
	if err != nil {
		return nil, err
	}
	set, err := recipe.Parse(blob, k.bounds())
	if err != nil {
		return nil, fmt.Errorf("prove recipes: %w", err)
	}
	for i := range k.tars {
		same, err := walked(set.Walk(i), func(recipe.Extent) error { return nil })
		if err == nil && same != k.proofs[i] {
			err = errors.New("it is not the one that was proven")
		}
		if err != nil {
			return nil, fmt.Errorf("prove recipe of %s: %w", k.plan.open[i].DiffID, err)
		}
	}
	for i, want := range k.prefixes {
		if got, err := set.Prefix(i); err != nil || !slices.Equal(got, want) {
			return nil, fmt.Errorf("prove prefix of segment %d: it reads back as another", i)
		}
	}
	return blob, nil
}

func encodeRecipes(tars []recipe.Tar, prefixes [][]recipe.Extent) ([]byte, error) {
	blob, err := recipe.Encode(tars, prefixes)
	var format *recipe.FormatError
	if errors.As(err, &format) { // the format has no room for them
		return nil, &manifests.ContentError{Kind: manifests.KindLimit, Subject: "bundle", Err: err}
	}
	return blob, err
}

func (k *packer) bounds() recipe.Bounds {
	b := recipe.Bounds{Segments: k.segments, Sources: len(k.sources.layers)}
	for _, t := range k.plan.open[:len(k.tars)] {
		b.Tars = append(b.Tars, t.size)
	}
	return b
}

func (k *packer) catalog() catalog {
	c := catalog{Images: k.plan.images, Segments: k.segments}
	for _, t := range k.plan.open {
		c.Tars = append(c.Tars, tarEntry{t.DiffID, t.size})
	}
	for _, s := range k.plan.streams {
		c.Streams = append(c.Streams, streamEntry{s.blob.Digest, s.blob.Size, s.tar, s.recipe.length})
	}
	if len(k.plan.need)+len(k.sources.layers) == 0 {
		return c
	}
	c.Needs = &Needs{Blobs: k.plan.need, Layers: k.sources.layers}
	for _, b := range k.plan.bases {
		if k.uses(b) {
			c.Bases = append(c.Bases, b.ID())
		}
	}
	return c
}

// uses reports whether b is the first of the bases to have something needed.
func (k *packer) uses(b *Base) bool {
	for _, d := range k.plan.need {
		if k.plan.holder(d.Digest) == b {
			return true
		}
	}
	for _, l := range k.sources.layers {
		if k.sources.holder(l.DiffID) == b {
			return true
		}
	}
	return false
}

// blobWriter appends blobs to a bundle, and remembers them.
type blobWriter struct {
	w      io.Writer
	at     int64 // in the file
	blobs  []ocispec.Descriptor
	known  map[digest.Digest]bool
	stored int64 // bytes of blobs
}

func (b *blobWriter) add(mediaType string, raw []byte) (ocispec.Descriptor, error) {
	d := digest.FromBytes(raw)
	if err := b.note(mediaType, d, int64(len(raw))); err != nil {
		return ocispec.Descriptor{}, err
	}
	return b.blobs[len(b.blobs)-1], b.member(memberName(d), raw)
}

// note takes down a blob. A file cannot hold one twice; that two are the same
// takes an image that was made of a part of a bundle.
func (b *blobWriter) note(mediaType string, d digest.Digest, size int64) error {
	if b.known == nil {
		b.known = map[digest.Digest]bool{}
	}
	if b.known[d] {
		return manifests.Bad(manifests.KindMalformed, "blob "+string(d), "it is a part of the bundle itself")
	}
	if len(b.blobs) == maxChunkBlobs {
		return manifests.Bad(manifests.KindLimit, "bundle", "more than %d blobs", maxChunkBlobs)
	}
	b.known[d] = true
	b.blobs = append(b.blobs, ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size})
	b.stored += size
	return nil
}

func (b *blobWriter) member(name string, raw []byte) error {
	header, err := tarball.Header(name, int64(len(raw)))
	if err != nil {
		return err
	}
	for _, part := range [][]byte{header, raw, tarball.Padding(int64(len(raw)))} {
		if err := b.write(part); err != nil {
			return err
		}
	}
	return nil
}

func (b *blobWriter) write(p []byte) error {
	n, err := b.w.Write(p)
	b.at += int64(n)
	return err
}
