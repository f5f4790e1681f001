package dedupe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/segment"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
)

// spool is one file without a name that holds what has been unpacked: contents
// at their own offsets, and behind them the ranges wanted of base layers. What
// has not been unpacked is a hole.
type spool struct {
	dir  string
	name string       // of the bundle, for messages
	need atomic.Int64 // what it holds at most, in bytes

	mu   sync.Mutex
	file *os.File
}

// open makes the file when it is first needed.
func (s *spool) open() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		return s.file, nil
	}
	f, err := atomicfile.Unnamed(s.dir)
	if err != nil {
		return nil, s.failed(err)
	}
	s.file = f
	return f, nil
}

func (s *spool) failed(err error) error {
	return fmt.Errorf("unpack contents of %s, which need up to %d bytes in %s: %w", s.name, s.need.Load(), s.dir, err)
}

// spoolWrite is how much is written at a time, between two looks at whether
// anybody still waits.
const spoolWrite = 4 << 20

func (s *spool) write(ctx context.Context, p []byte, at int64) error {
	f, err := s.open()
	if err != nil {
		return err
	}
	for len(p) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.WriteAt(p[:min(len(p), spoolWrite)], at)
		if err != nil {
			return s.failed(err)
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// read fills p. The range must have been written.
func (s *spool) read(p []byte, at int64) error {
	f, err := s.open()
	if err != nil {
		return err
	}
	if _, err := f.ReadAt(p, at); err != nil {
		return fmt.Errorf("read unpacked contents of %s: %w", s.name, err)
	}
	return nil
}

func (s *spool) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// part is a stretch of the spool that is unpacked at once: the content of a
// segment, or all that is wanted of a base layer.
type part struct {
	task
	start, end int64
	base       bool
	index      int // of the segment or, if base is set, of the needed layer
}

// spoolRange is a range of bytes of the spool, within one part.
type spoolRange struct {
	part   *part
	at     int64
	length int64
}

// decodeMemory bounds what decoding segments holds in memory at a time, in
// bytes: two of 64 MiB with their blobs of half that. A segment for which that
// is not enough is decoded alone: at the bounds of the format, with
// maxPacked and a prefix, that is 832 MiB.
const decodeMemory = 2 * (64 + 32) << 20

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

// buffers keeps what was used for one segment for the next: two, as many as are
// decoded at a time.
type buffers struct {
	mu   sync.Mutex
	free [][]byte
}

const (
	maxFree = 2
	// maxKept bounds a buffer that is kept, in bytes: larger ones are rare.
	maxKept = 64 << 20
	// bufferStep is what lengths of buffers are multiples of, so that one that
	// was used fits again.
	bufferStep = 8 << 20
)

// get returns n bytes with any content.
func (l *buffers) get(n int64) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := len(l.free) - 1; last >= 0 {
		b := l.free[last]
		l.free = l.free[:last]
		if int64(cap(b)) >= n {
			return b[:n]
		}
	}
	if n < bufferStep {
		return make([]byte, n)
	}
	return make([]byte, n, (n+bufferStep-1)/bufferStep*bufferStep)
}

// put takes a buffer back.
func (l *buffers) put(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) < maxFree && cap(b) <= maxKept {
		l.free = append(l.free, b)
	}
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
