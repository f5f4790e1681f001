package unpack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/manifests"
)

// LayerStore keeps unpacked layers, one directory per diffID, shared by every
// image that has the layer. A store belongs to one user; the directories are
// of no use to another. It is safe for concurrent use, by several processes
// too.
//
//	layers/ALGO/HEX/{fs,layer.json}   a layer on its own, by diffID
//	chained/ALGO/HEX/{fs,layer.json}  a layer that needs those below, by chainID
//	images/ALGO/HEX/{fs,image.json}   a stack of layers and its fix-up, by chainID
//	tmp/                              what is being unpacked
//	lock
type LayerStore struct{ dir string }

// NewLayerStore returns the store in dir, which is made, with mode 0700, when
// first written to.
func NewLayerStore(dir string) *LayerStore {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return &LayerStore{dir}
}

// staged is a directory of the store: at its place, or about to be moved
// there.
type staged struct {
	dir   string // where it is now
	final string // its place, relative to the store
	isNew bool
	meta  *layerMeta
}

func placeOf(kind string, d digest.Digest) string {
	return filepath.Join(kind, d.Algorithm().String(), d.Encoded())
}

// imageKey names a stack of layers.
func imageKey(img *manifests.Image) digest.Digest {
	if n := len(img.Layers); n > 0 {
		return img.Layers[n-1].ChainID
	}
	return digest.FromString("")
}

// Unpack makes the directories of an image that are not there yet and returns
// them all. What is wrong with a layer is a *manifests.ContentError that names
// it. After any error the store is as it was.
func (s *LayerStore) Unpack(ctx context.Context, src manifests.Fetcher, img *manifests.Image, o Options) (*Rootfs, *Result, error) {
	o.NoXattrs, o.IDs = false, IDs{}
	return s.unpack(ctx, src, img, o)
}

func (s *LayerStore) unpack(ctx context.Context, src manifests.Fetcher, img *manifests.Image, o Options) (_ *Rootfs, _ *Result, err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, nil, err
	}
	unlock, err := s.lock(ctx, unix.LOCK_SH)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	if r, record, ok := s.lookup(img); ok {
		if res, err := s.recall(record); err == nil {
			return r, res, nil
		}
	}
	w, err := s.begin()
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, w.end()) }()
	layers, err := s.extract(ctx, src, img, o, w)
	if err != nil {
		return nil, nil, err
	}
	c := &composer{store: s, work: w, src: src, img: img, options: o, layers: layers}
	image, err := c.compose(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := s.commit(w, append(c.fresh, image)); err != nil {
		return nil, nil, fmt.Errorf("commit layers: %w", err)
	}
	return s.rootfs(c.record), c.result(), nil
}

// extract unpacks the layers that the store has not, each on its own.
func (s *LayerStore) extract(ctx context.Context, src manifests.Fetcher, img *manifests.Image, o Options, w *workspace) ([]*staged, error) {
	layers := make([]*staged, len(img.Layers))
	byID := map[digest.Digest]*staged{}
	var fresh []manifests.Layer
	for i, l := range img.Layers {
		st := byID[l.DiffID]
		if st == nil {
			st = &staged{final: placeOf("layers", l.DiffID)}
			byID[l.DiffID] = st
			if err := s.find(st); err != nil {
				st.isNew, st.dir = true, filepath.Join(w.dir, fmt.Sprint("layer", i))
				fresh = append(fresh, l)
			}
		}
		layers[i] = st
	}
	budget, err := newBudget(w.fd, o, fresh)
	if err != nil {
		return nil, err
	}
	w.budget = budget
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(o.jobs())
	started := map[*staged]bool{}
	for _, i := range bySize(img.Layers) {
		st := layers[i]
		if !st.isNew || started[st] {
			continue
		}
		started[st] = true
		group.Go(func() error {
			j := &job{src: src, img: img, index: i, options: o, budget: budget, marks: true, progress: o.Progress}
			return j.stage(gctx, st)
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return layers, ctx.Err()
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
	if st.meta, _, err = j.run(ctx, dir); err != nil {
		return err
	}
	return st.meta.save(st.dir)
}

// commit forces everything to disk and moves it to its place, in order. A
// directory that another process has brought there first is as good.
func (s *LayerStore) commit(w *workspace, fresh []*staged) error {
	if err := syncTree(w.fd); err != nil {
		return err
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

// imageRecord is image.json: how a stack of layers is put together.
type imageRecord struct {
	Version int             `json:"version"`
	DiffIDs []digest.Digest `json:"diffIDs"`
	Lower   []string        `json:"lower"`  // relative to the store, topmost first
	Layers  []string        `json:"layers"` // the directory of each layer, bottom first
	Mode    uint32          `json:"mode"`   // of the root directory
	UID     uint32          `json:"uid"`
	GID     uint32          `json:"gid"`
}

const imageName = "image.json"

// Lookup returns an image's directories if all of them are there.
func (s *LayerStore) Lookup(img *manifests.Image) (*Rootfs, bool) {
	r, _, ok := s.lookup(img)
	return r, ok
}

func (s *LayerStore) lookup(img *manifests.Image) (*Rootfs, *imageRecord, bool) {
	record, err := loadImage(filepath.Join(s.dir, placeOf("images", imageKey(img))))
	if err != nil || len(record.Layers) != len(img.Layers) {
		return nil, nil, false
	}
	r := s.rootfs(record)
	for _, dir := range r.Lower {
		if _, err := os.Lstat(dir); err != nil {
			return nil, nil, false
		}
	}
	return r, record, true
}

func loadImage(dir string) (*imageRecord, error) {
	raw, err := os.ReadFile(filepath.Join(dir, imageName))
	if err != nil {
		return nil, err
	}
	record := &imageRecord{}
	if err := json.Unmarshal(raw, record); err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	if record.Version != metaVersion {
		return nil, fmt.Errorf("read %s: version %d, want %d", dir, record.Version, metaVersion)
	}
	return record, nil
}

func (s *LayerStore) rootfs(record *imageRecord) *Rootfs {
	r := &Rootfs{Mode: record.Mode, UID: record.UID, GID: record.GID}
	for _, dir := range record.Lower {
		r.Lower = append(r.Lower, filepath.Join(s.dir, dir))
	}
	return r
}

// recall makes the result of an image that is there already.
func (s *LayerStore) recall(record *imageRecord) (*Result, error) {
	res := &Result{LayersShared: len(record.Layers)}
	for i, dir := range record.Layers {
		m, err := loadMeta(filepath.Join(s.dir, dir))
		if err != nil {
			return nil, err
		}
		res.add(i+1, m)
	}
	return res, nil
}

// lockPause is how long to wait between two tries for the store's lock.
const lockPause = 50 * time.Millisecond

// lock takes the store's lock: shared to add, exclusive to remove.
func (s *LayerStore) lock(ctx context.Context, how int) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", s.dir, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(lockPause):
		}
	}
}
