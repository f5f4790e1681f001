package dedupe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
)

// Options govern the writing of a bundle. But for SpoolLimit, they never change
// its bytes.
type Options struct {
	// Jobs is how many blobs are fetched, and frames compressed, at a time; 0
	// means GOMAXPROCS. Memory is Jobs × 1 MiB in layer mode. In chunk mode two
	// jobs take 380 MiB at LevelDefault and 900 at LevelMax, and 100 bytes for
	// each chunk that is put in order at a time; to study compressed layers
	// before takes less.
	Jobs int
	// Progress is told of every byte of a blob that goes into the bundle, and
	// before, twice, of the bytes of those that are studied; in the end, by
	// segment, of the contents that are compressed: see Phase.
	Progress manifests.Progress
	Replace  bool // WriteFile may replace an existing file

	// SpoolDir is where Write keeps temporary data in chunk mode, in files
	// without names; "" is the current directory. WriteFile keeps it beside
	// the bundle, compressed layers from far away under BlobsPath.
	SpoolDir string
	// SpoolLimit is how many bytes of open layers are put in order at a time
	// in chunk mode, and so bounds the temporary space; one layer may be
	// larger. 0 means 16 GiB.
	SpoolLimit int64

	// Phase, if it is not nil, is told of a phase that begins, and of how many
	// bytes Progress will be told of in it.
	Phase func(p Phase, bytes int64)

	// RecipeCache is a directory in which the recipes of layers that have been
	// studied are kept, at most 256 MiB of them, so that they need not be studied
	// again; "" is none. It is made where it is not there. That it fails is no
	// error. A recipe from there is not proven again: it must have been by the
	// same Program, which names the version that packs.
	RecipeCache string
	Program     string

	// Keep says of an error whether WriteFile, which ends with it, leaves the
	// unfinished file: the next WriteFile to that path with a Keep goes on
	// from it. What it holds is proven, never trusted. nil means never.
	Keep func(error) bool
}

func (o Options) jobs() int { return jobs(o.Jobs) }

func jobs(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// makeFile makes path with what write writes; left tells that an unfinished
// file is gone on with.
func makeFile(path string, o Options, write func(f *atomicfile.File, left bool) error) error {
	f, left, err := openTarget(path, o)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := write(f, left); err != nil {
		if o.Keep != nil && o.Keep(err) {
			err = errors.Join(err, f.Keep())
		}
		return err
	}
	return f.Commit()
}

func openTarget(path string, o Options) (*atomicfile.File, bool, error) {
	if o.Keep != nil {
		return atomicfile.Resume(path, o.Replace)
	}
	f, err := atomicfile.Create(path, o.Replace)
	return f, false, err
}

// checkWritten opens what was written as a reader would.
func checkWritten(r io.ReaderAt, path string, size int64, identity digest.Digest) error {
	b, err := OpenReaderAt(r, size, path, OpenOptions{})
	if err != nil {
		return fmt.Errorf("read back %s: %w", path, err)
	}
	if b.info.Digest != identity {
		err = fmt.Errorf("read back %s: it is not the bundle that was written", path)
	}
	return errors.Join(err, b.Close())
}

// leftover finds out what an unfinished file already has.
type leftover struct {
	file     io.ReaderAt
	blobs    []ocispec.Descriptor
	skip     int             // members before the first blob
	offset   func(int) int64 // of a member's content
	progress manifests.Progress

	mu    sync.Mutex
	found map[digest.Digest]bool
	bytes int64 // of blobs found
}

// have is for tarball.Plan.WriteAt. It hashes what lies in a blob's place.
func (l *leftover) have(ctx context.Context, left bool) func(i int) bool {
	if !left {
		return nil
	}
	return func(i int) bool {
		if i < l.skip {
			return false
		}
		d := l.blobs[i-l.skip]
		in := &blobReader{stopped: ctx.Err, r: io.NewSectionReader(l.file, l.offset(i), d.Size)}
		if _, err := io.Copy(io.Discard, manifests.VerifyReader(in, d)); err != nil {
			return false
		}
		l.note(d)
		if l.progress != nil {
			l.progress(d, d.Size)
		}
		return true
	}
}

func (l *leftover) note(d ocispec.Descriptor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.found == nil {
		l.found = map[digest.Digest]bool{}
	}
	l.found[d.Digest] = true
	l.bytes += d.Size
}
