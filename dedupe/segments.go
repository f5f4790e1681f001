package dedupe

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/segment"
	"github.com/imgpack/imgpack/manifests"
)

// decodeMemory bounds what decoding segments holds in memory at a time, in
// bytes: one of 128 MiB with a blob of half that, or two of 64. A segment for
// which that is not enough is decoded alone: at the bounds of the format, with
// maxPacked and a prefix, that is 832 MiB.
const decodeMemory = (128 + 64) << 20

// maxPacked bounds a segment as it is stored, and the recipes, in bytes.
// What does not compress is stored as it is, so that nothing but the columns of
// copies can make a segment larger than its content.
const maxPacked = segment.MaxContent + segment.MaxCopies

// segmentFile is a segment of the bundle and its place in the spool.
type segmentFile struct {
	part
	blob storedBlob
}

func (s *segmentFile) length() int64 { return s.end - s.start }

// spoolSegment unpacks a segment into the spool.
func (c *contents) spoolSegment(ctx context.Context, s *segmentFile) error {
	return c.decode(ctx, s, func(content []byte) error {
		return c.spool.write(ctx, content, s.start)
	})
}

// decode gives a segment's content to use, proven to be that of the blob the
// manifest lists.
func (c *contents) decode(ctx context.Context, s *segmentFile, use func([]byte) error) error {
	if err := c.recipes.wait(ctx); err != nil {
		return err
	}
	extents, err := c.prefix(s.index)
	if err != nil {
		return err
	}
	var size int64
	for _, e := range extents {
		if err := c.bases[e.Source-1].wait(ctx); err != nil {
			return err
		}
		size += e.Length
	}
	memory := min(s.length()+s.blob.section.size+size, decodeMemory)
	if err := c.memory.Acquire(ctx, memory); err != nil {
		return err
	}
	defer c.memory.Release(memory)
	blob, err := c.readStored(s.blob, maxPacked)
	if err != nil {
		return err
	}
	defer c.blobs.put(blob)
	prefix := make([]byte, size)
	if err := c.readExtents(extents, prefix); err != nil {
		return err
	}
	content := c.unpacked.get(s.length())
	defer c.unpacked.put(content)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := segment.Decode(content, blob, prefix, c.jobs); err != nil {
		return &manifests.ContentError{Kind: manifests.KindMalformed, Subject: c.member(s.blob), Err: err}
	}
	return use(content)
}

// readExtents fills p with what lies in extents whose parts have been unpacked,
// one after another.
func (c *contents) readExtents(extents []recipe.Extent, p []byte) error {
	for _, e := range extents {
		for e.Length > 0 {
			x := c.locate(&e)
			if err := c.spool.read(p[:x.length], x.at); err != nil {
				return err
			}
			p = p[x.length:]
		}
	}
	return nil
}

// readStored reads a blob of the bundle that is no larger than limit, and
// proves it. The bytes may be given back to c.blobs.
func (c *contents) readStored(s storedBlob, limit int64) ([]byte, error) {
	size := s.section.size
	if size > limit {
		return nil, manifests.Bad(manifests.KindLimit, c.member(s), "%d bytes are more than %d", size, limit)
	}
	p := c.blobs.get(size)
	switch n, err := c.file.ReadAt(p, s.section.offset); {
	case int64(n) == size:
	case errors.Is(err, io.EOF):
		return nil, manifests.Bad(manifests.KindTruncated, c.member(s), "%d of its %d bytes are missing", size-int64(n), size)
	default:
		return nil, fmt.Errorf("read %s: %w", c.name, err)
	}
	if got := digest.SHA256.FromBytes(p); got != s.desc.Digest {
		return nil, manifests.Bad(manifests.KindDigest, c.member(s), "content hashes to %s", got)
	}
	return p, nil
}

// member names a blob of the bundle.
func (c *contents) member(s storedBlob) string {
	return c.name + ": member " + memberName(s.desc.Digest)
}
