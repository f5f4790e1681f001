package unpack

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
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
type LayerStore struct {
	dir   string
	inner bool // part of something that is forced to disk as a whole
}

// NewLayerStore returns the store in dir, which is made, with mode 0700, when
// first written to.
func NewLayerStore(dir string) *LayerStore {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return &LayerStore{dir: dir}
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
	raw, err := readRecord(filepath.Join(dir, imageName))
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
