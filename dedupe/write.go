package dedupe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/tarball"
	"github.com/imgpack/imgpack/manifests"
)

// Options govern the writing of a bundle. They never change its bytes.
type Options struct {
	Jobs     int                // blobs fetched at a time; 0 means GOMAXPROCS. Memory is Jobs × 1 MiB.
	Progress manifests.Progress // told of every byte of a blob that is stored
	Replace  bool               // an existing file may be replaced
}

// WriteFile writes the bundle to path, which appears whole or not at all. Blobs
// are fetched in parallel, the largest first, straight into their places. Space
// is reserved before the first is fetched. The container is read back and
// compared with the plan before it counts. An existing file is an error
// wrapping fs.ErrExist unless it may be replaced.
func (p *Plan) WriteFile(ctx context.Context, path string, o Options) error {
	f, err := atomicfile.Create(path, o.Replace)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := f.Reserve(p.size); err != nil {
		return err
	}
	t, err := p.tar(o)
	if err != nil {
		return err
	}
	jobs := o.Jobs
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	if err := t.WriteAt(ctx, f, jobs, nil); err != nil {
		return err
	}
	if err := p.check(f, path); err != nil {
		return fmt.Errorf("read back %s: %w", path, err)
	}
	return f.Commit()
}

// Write writes the bundle to w, in order: the same bytes as WriteFile's, for
// pipes.
func (p *Plan) Write(ctx context.Context, w io.Writer, o Options) error {
	t, err := p.tar(o)
	if err != nil {
		return err
	}
	return t.Write(ctx, w)
}

func (p *Plan) tar(o Options) (*tarball.Plan, error) {
	t, err := tarball.NewPlan(append(p.headMembers(), p.blobMembers(o.Progress)...))
	if err == nil && t.Size() != p.size {
		err = fmt.Errorf("lay out bundle: %d bytes, planned %d", t.Size(), p.size)
	}
	return t, err
}

func (p *Plan) check(r io.ReaderAt, path string) error {
	b, err := OpenReaderAt(r, p.size, path, OpenOptions{})
	if err != nil {
		return err
	}
	if b.info.Digest != p.Digest() {
		return errors.New("it is not the bundle that was written")
	}
	return b.Close()
}
