package unpack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/manifests"
)

// ImageFrom is an image, and what its layers are read from.
type ImageFrom struct {
	Source manifests.Fetcher
	Image  *manifests.Image
}

// Unpacked is an image's directories, and what was done for them.
type Unpacked struct {
	Rootfs *Rootfs
	Result *Result
	Mount  string // the command that mounts them, of WriteLayers
}

// ImageError is what is wrong with one of several images.
type ImageError struct {
	Index int // of the image, among those that were given
	Of    int
	Err   error
}

func (e *ImageError) Error() string { return fmt.Sprintf("image %d of %d: %v", e.Index+1, e.Of, e.Err) }

// Unwrap returns what is wrong.
func (e *ImageError) Unwrap() error { return e.Err }

// Unpack makes the directories of an image that are not there yet and returns
// them all. What is wrong with a layer is a *manifests.ContentError that names
// it. After any error the store is as it was.
func (s *LayerStore) Unpack(ctx context.Context, src manifests.Fetcher, img *manifests.Image, o Options) (*Rootfs, *Result, error) {
	all, err := s.UnpackAll(ctx, []ImageFrom{{src, img}}, o)
	if err != nil {
		return nil, nil, err
	}
	return all[0].Rootfs, all[0].Result, nil
}

// UnpackAll is Unpack of several images in one operation, all of them or none:
// a layer that several have is read once, the largest come first, whosever they
// are, and all are forced to disk together. What is wrong with one of several
// images is an *ImageError.
func (s *LayerStore) UnpackAll(ctx context.Context, images []ImageFrom, o Options) ([]Unpacked, error) {
	o.NoXattrs, o.IDs = false, IDs{}
	return s.unpack(ctx, images, o)
}

func (s *LayerStore) unpack(ctx context.Context, images []ImageFrom, o Options) (_ []Unpacked, err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	unlock, err := s.lock(ctx, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer unlock()
	out := make([]Unpacked, len(images))
	u := &unpacking{store: s, options: o, given: len(images), layers: map[digest.Digest]*staged{}, chained: map[digest.Digest]*staged{}}
	for i, from := range images {
		var ok bool
		if out[i], ok = s.there(from.Image); !ok {
			u.images = append(u.images, &composer{unpacking: u, src: from.Source, img: from.Image, number: i})
		}
	}
	if len(u.images) == 0 {
		return out, nil
	}
	if u.work, err = s.begin(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, u.work.end()) }()
	if err := u.run(ctx); err != nil {
		return nil, err
	}
	for _, c := range u.images {
		out[c.number] = Unpacked{Rootfs: s.rootfs(c.record), Result: c.result()}
	}
	return out, nil
}

// there returns an image that is in the store.
func (s *LayerStore) there(img *manifests.Image) (Unpacked, bool) {
	r, record, ok := s.lookup(img)
	if !ok {
		return Unpacked{}, false
	}
	res, err := s.recall(record)
	return Unpacked{Rootfs: r, Result: res}, err == nil
}

// unpacking is one operation on a store: images of which something is missing.
type unpacking struct {
	store   *LayerStore
	work    *workspace
	options Options
	given   int // images that were asked for
	images  []*composer
	layers  map[digest.Digest]*staged // by diffID
	chained map[digest.Digest]*staged // by chainID
	fresh   []*staged                 // what is to be moved to its place, in order
}

// staged is a directory of the store: at its place, or about to be moved
// there.
type staged struct {
	dir   string // where it is now
	final string // its place, relative to the store
	isNew bool
	blob  digest.Digest // that a new layer is made of
	told  bool          // in an image's result, as new
	meta  *layerMeta
}

// stagedLayer is a layer to be unpacked, of the first image that has it.
type stagedLayer struct {
	*staged
	of    *composer
	index int
}

// run unpacks what is missing and moves it to its place.
func (u *unpacking) run(ctx context.Context) error {
	if err := u.extract(ctx); err != nil {
		return err
	}
	made := map[digest.Digest]*composer{}
	for _, c := range u.images {
		key := imageKey(c.img)
		if same := made[key]; same != nil {
			c.layers, c.record = same.layers, same.record
			continue
		}
		made[key] = c
		image, err := c.compose(ctx)
		if err != nil {
			return c.blame(err)
		}
		u.fresh = append(u.fresh, image)
	}
	if err := u.store.commit(u.work, u.fresh); err != nil {
		return fmt.Errorf("commit layers: %w", err)
	}
	return nil
}

// extract unpacks the layers that the store has not, each on its own.
func (u *unpacking) extract(ctx context.Context) error {
	var todo []stagedLayer
	var missing []manifests.Layer // of todo
	var claimed []stagedLayer     // layers of diffIDs that others have too, but by other blobs
	for _, c := range u.images {
		c.layers = make([]*staged, len(c.img.Layers))
		for i, l := range c.img.Layers {
			st := u.layers[l.DiffID]
			if st == nil {
				st = &staged{final: placeOf("layers", l.DiffID)}
				u.layers[l.DiffID] = st
				if err := u.store.find(st); err != nil {
					u.stage(st, "layer")
					st.blob = l.Blob.Digest
					todo, missing = append(todo, stagedLayer{st, c, i}), append(missing, l)
				}
			}
			if st.isNew && st.blob != l.Blob.Digest {
				claimed = append(claimed, stagedLayer{st, c, i})
			}
			c.layers[i] = st
		}
	}
	var err error
	if u.work.budget, err = newBudget(u.work.fd, u.options, missing); err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(u.options.jobs())
	for _, i := range bySize(missing) {
		l := todo[i]
		group.Go(func() error {
			j := l.of.job(l.index)
			j.progress = u.options.Progress
			return l.of.blame(j.stage(gctx, l.staged))
		})
	}
	for _, l := range claimed {
		group.Go(func() error { return l.of.blame(l.of.job(l.index).proveAll(gctx)) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// stage gives a directory that is to be made its place in the workspace.
func (u *unpacking) stage(st *staged, kind string) {
	st.isNew, st.dir = true, filepath.Join(u.work.dir, fmt.Sprint(kind, len(u.layers)+len(u.chained)))
}

// find looks for a directory at its place.
func (s *LayerStore) find(st *staged) (err error) {
	st.dir = filepath.Join(s.dir, st.final)
	st.meta, err = loadMeta(st.dir)
	return err
}

// stage unpacks a layer into a new directory, with its record.
func (j *job) stage(ctx context.Context, st *staged) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir := filepath.Join(st.dir, fsName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var dirs map[string]*attrs
	if st.meta, dirs, err = j.run(ctx, dir); err != nil {
		return err
	}
	j.budget.forget(dirs)
	return st.meta.save(st.dir)
}

// commit forces everything to disk and moves it to its place, in order. A
// directory that another process has brought there first is as good.
func (s *LayerStore) commit(w *workspace, fresh []*staged) error {
	if !s.inner {
		if err := syncTree(w.fd); err != nil {
			return err
		}
	}
	parents := map[string]bool{}
	for _, st := range fresh {
		to := filepath.Join(s.dir, st.final)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		err := unix.Renameat2(unix.AT_FDCWD, st.dir, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without it
			err = os.Rename(st.dir, to)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return &fs.PathError{Op: "rename", Path: to, Err: err}
		}
		parents[filepath.Dir(to)] = true
	}
	if s.inner {
		return nil
	}
	for dir := range parents {
		if err := syncDir(dir); err != nil {
			return err
		}
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}
