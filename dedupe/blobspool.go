package dedupe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
)

// layerSource gives blobs and layers: a graph, or a blobSpool before one.
type layerSource interface {
	manifests.Fetcher
	manifests.LayerOpener
}

// blobSpool is a source that fetches each of some blobs once: what it gives of
// them, it also writes to a file, each blob in a place of its own. It is safe
// for concurrent use; one blob is read by one goroutine at a time.
type blobSpool struct {
	*manifests.Graph
	file *os.File
	size int64
	at   map[digest.Digest]section // where in the file
	end  func(keep bool) error

	mu      sync.Mutex
	have    map[digest.Digest]bool // true: it is there; false: it is to be found out
	resumed map[digest.Digest]bool // was there from the beginning
}

// openSpool opens the file of a spool, of a size: one that may hold what an
// earlier run left. end frees it or, where that is possible, keeps it for a
// later run.
type openSpool func(size int64) (f *os.File, left bool, end func(keep bool) error, err error)

// newBlobSpool makes a spool for blobs of g.
func newBlobSpool(g *manifests.Graph, blobs []ocispec.Descriptor, open openSpool) (*blobSpool, error) {
	b := &blobSpool{Graph: g, at: map[digest.Digest]section{}, have: map[digest.Digest]bool{}, resumed: map[digest.Digest]bool{}}
	for _, d := range blobs {
		b.at[d.Digest] = section{b.size, d.Size}
		b.size += d.Size
	}
	f, left, end, err := open(b.size)
	if err != nil {
		return nil, b.failed(err)
	}
	b.file, b.end = f, end
	if left {
		for _, d := range blobs {
			b.have[d.Digest] = false
		}
	}
	return b, nil
}

// BlobsPath is where WriteFile keeps compressed layers of the bundle at path
// that come from far away, while it is at work, and when it leaves an
// unfinished file.
func BlobsPath(path string) string { return atomicfile.TempPath(blobsTarget(path)) }

func blobsTarget(path string) string { return path + ".blobs" }

// openBeside opens the file of a spool beside a bundle. One that a killed run
// left is gone on with, if that is wanted.
func openBeside(path string, resume bool) openSpool {
	return func(size int64) (*os.File, bool, func(bool) error, error) {
		open := atomicfile.Resume
		if !resume {
			open = func(target string, replace bool) (*atomicfile.File, bool, error) {
				f, err := atomicfile.Create(target, replace)
				return f, false, err
			}
		}
		f, left, err := open(blobsTarget(path), true)
		if err != nil {
			return nil, false, nil, err
		}
		end := func(keep bool) error {
			if keep {
				return f.Keep()
			}
			f.Abort()
			return nil
		}
		if err := f.Reserve(size); err != nil {
			return nil, false, nil, errors.Join(err, end(left))
		}
		return f.File, left, end, nil
	}
}

// removeBeside removes what a killed run left that kept blobs where this one
// has none to keep.
func removeBeside(path string) {
	if _, err := os.Lstat(BlobsPath(path)); err != nil {
		return
	}
	if f, err := atomicfile.Create(blobsTarget(path), true); err == nil {
		f.Abort()
	}
}

// openUnnamed opens the file of a spool in a directory.
func openUnnamed(dir string) openSpool {
	return func(size int64) (*os.File, bool, func(bool) error, error) {
		f, err := atomicfile.Unnamed(dir)
		if err != nil {
			return nil, false, nil, err
		}
		if err := atomicfile.CheckSpace(int(f.Fd()), size); err != nil {
			f.Close()
			return nil, false, nil, err
		}
		return f, false, func(bool) error { return f.Close() }, nil
	}
}

func (b *blobSpool) failed(err error) error {
	return fmt.Errorf("write temporary data, of %d bytes: %w", b.size, err)
}

// Fetch gives a blob from the file if it is there. See manifests.Fetcher.
func (b *blobSpool) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	at, ok := b.at[d.Digest]
	if !ok {
		return b.Graph.Fetch(ctx, d)
	}
	there := func() io.ReadCloser {
		return manifests.VerifyReader(&blobReader{stopped: ctx.Err, r: io.NewSectionReader(b.file, at.offset, at.size)}, d)
	}
	b.mu.Lock()
	have, left := b.have[d.Digest]
	b.mu.Unlock()
	if left && !have {
		_, err := io.Copy(struct{ io.Writer }{io.Discard}, there())
		have = err == nil
		b.note(d, have, have)
	}
	if have {
		return there(), nil
	}
	in, err := b.Graph.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	return &spoolingReader{ReadCloser: in, spool: b, desc: d, at: at.offset, left: at.size}, nil
}

// note says whether a blob is there, and whether it was before.
func (b *blobSpool) note(d ocispec.Descriptor, have, before bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.have, d.Digest)
	if have {
		b.have[d.Digest], b.resumed[d.Digest] = true, before
	}
}

// resumedBytes is how much of the blobs was there from the beginning, but for
// those that are counted elsewhere.
func (b *blobSpool) resumedBytes(elsewhere map[digest.Digest]bool) (n int64) {
	if b == nil {
		return 0
	}
	for d, before := range b.resumed {
		if before && !elsewhere[d] {
			n += b.at[d].size
		}
	}
	return n
}

// spoolingReader writes a blob to its place while it is read.
type spoolingReader struct {
	io.ReadCloser
	spool    *blobSpool
	desc     ocispec.Descriptor
	at, left int64
}

func (s *spoolingReader) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	part := p[:min(int64(n), s.left)]
	if _, werr := s.spool.file.WriteAt(part, s.at); werr != nil {
		return n, s.spool.failed(werr)
	}
	s.at += int64(len(part))
	s.left -= int64(len(part))
	if err == io.EOF && s.left == 0 {
		s.spool.note(s.desc, true, false)
	}
	return n, err
}

var _ layerSource = (*blobSpool)(nil)
