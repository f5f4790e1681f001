package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
)

// blobDir is a directory into which the blobs of a layout are written, with
// the modes that new files and directories in it get.
type blobDir struct {
	path       string
	file, tree fs.FileMode
}

// write copies blobs to their places under the directory and starts writing
// them to disk. On error some may be there.
func (b blobDir) write(ctx context.Context, f manifests.Fetcher, blobs []ocispec.Descriptor, n int, progress manifests.Progress) error {
	if err := b.makeDirs(blobs); err != nil {
		return err
	}
	return each(ctx, blobs, n, func(ctx context.Context, d ocispec.Descriptor) error {
		if err := b.copy(ctx, f, d, progress); err != nil {
			return fmt.Errorf("write %s: %w", d.Digest, err)
		}
		return nil
	})
}

// sync forces blobs that were written to disk. All are on their way there, so
// each waits for little.
func (b blobDir) sync(ctx context.Context, blobs []ocispec.Descriptor, n int) error {
	err := each(ctx, blobs, n, func(_ context.Context, d ocispec.Descriptor) error {
		return syncFile(filepath.Join(b.path, blobPath(d.Digest)))
	})
	if err != nil {
		return err
	}
	return b.syncDirs(blobs)
}

// each runs do for each blob, n at a time.
func each(ctx context.Context, blobs []ocispec.Descriptor, n int, do func(context.Context, ocispec.Descriptor) error) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs(n))
	for _, d := range blobs {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error { return do(gctx, d) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// dirs are the folders that blobs lie in, innermost first.
func (b blobDir) dirs(blobs []ocispec.Descriptor) []string {
	var dirs []string
	seen := map[string]bool{}
	for _, d := range blobs {
		if dir := filepath.Dir(filepath.Join(b.path, blobPath(d.Digest))); !seen[dir] {
			seen[dir] = true
			dirs = append(dirs, dir)
		}
	}
	return append(dirs, filepath.Join(b.path, "blobs"), b.path)
}

func (b blobDir) makeDirs(blobs []ocispec.Descriptor) error {
	for _, dir := range b.dirs(blobs) {
		if err := os.MkdirAll(dir, b.tree); err != nil {
			return err
		}
	}
	return nil
}

func (b blobDir) syncDirs(blobs []ocispec.Descriptor) error {
	for _, dir := range b.dirs(blobs) {
		if err := atomicfile.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (b blobDir) copy(ctx context.Context, f manifests.Fetcher, d ocispec.Descriptor, progress manifests.Progress) (err error) {
	r, err := f.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	out, err := os.OpenFile(filepath.Join(b.path, blobPath(d.Digest)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, b.file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	in := ctxReader{ctx, progress.Watch(r, d)}
	// The file's own ReadFrom would copy in pieces of 32 KiB.
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, in, make([]byte, min(copyBuffer, max(d.Size, 1)))); err != nil {
		return err
	}
	unix.SyncFileRange(int(out.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE) // only a hint: sync follows
	return nil
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// writeSynced makes a file hold data, on disk.
func writeSynced(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// claim opens and locks a path for this process, for as long as the file is
// open. False means that another process holds it.
func claim(path string) (*os.File, bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, false, nil
		}
		return nil, false, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, true, nil
}

// checkSpace tells before the first byte when n more cannot fit into dir, with
// an error wrapping ENOSPC.
func checkSpace(dir string, n int64) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := atomicfile.CheckSpace(int(d.Fd()), n); err != nil {
		return &fs.PathError{Op: "reserve space in", Path: dir, Err: err}
	}
	return nil
}
