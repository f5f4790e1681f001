package unpack

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// GC removes the layers whose diffID is not in keep, what was made of them,
// and what killed runs left. It returns how many layers were removed (with
// dryRun: would be) and the bytes of their files. It waits for running
// Unpacks; that no container uses a layer is for the caller to see to, by
// keeping it.
func (s *LayerStore) GC(ctx context.Context, keep []digest.Digest, dryRun bool) (removed int, bytes int64, err error) {
	if _, err := os.Lstat(s.dir); errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	unlock, err := s.lock(ctx, unix.LOCK_EX)
	if err != nil {
		return 0, 0, err
	}
	defer unlock()
	kept := map[digest.Digest]bool{}
	for _, d := range keep {
		kept[d] = true
	}
	var gone []string
	// Images first: one that is interrupted must not leave an image whose
	// layers are gone.
	for _, kind := range []string{"images", "chained", "layers"} {
		dirs, err := s.list(kind)
		if err != nil {
			return 0, 0, err
		}
		for _, dir := range dirs {
			if err := ctx.Err(); err != nil {
				return 0, 0, err
			}
			ids, size, err := uses(dir, kind)
			if err == nil && all(ids, kept) {
				continue
			}
			gone = append(gone, dir)
			if kind != "images" {
				removed++
				bytes += size
			}
		}
	}
	if dryRun {
		return removed, bytes, nil
	}
	return removed, bytes, s.discard(gone)
}

// list returns the directories of one kind.
func (s *LayerStore) list(kind string) (dirs []string, err error) {
	algorithms, err := os.ReadDir(filepath.Join(s.dir, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, a := range algorithms {
		all, err := os.ReadDir(filepath.Join(s.dir, kind, a.Name()))
		if err != nil {
			return nil, err
		}
		for _, d := range all {
			dirs = append(dirs, filepath.Join(s.dir, kind, a.Name(), d.Name()))
		}
	}
	return dirs, err
}

// uses tells the layers that a directory of the store is made of.
func uses(dir, kind string) ([]digest.Digest, int64, error) {
	if kind == "images" {
		record, err := loadImage(dir)
		if err != nil {
			return nil, 0, err
		}
		return record.DiffIDs, 0, nil
	}
	m, err := loadMeta(dir)
	if err != nil {
		return nil, 0, err
	}
	return m.DiffIDs, m.Bytes, nil
}

func all(ids []digest.Digest, kept map[digest.Digest]bool) bool {
	for _, id := range ids {
		if !kept[id] {
			return false
		}
	}
	return true
}

// discard moves directories out of sight and removes them there.
func (s *LayerStore) discard(dirs []string) (err error) {
	w, err := s.begin() // which sweeps
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.end()) }()
	for i, dir := range dirs {
		if err := os.Rename(dir, filepath.Join(w.dir, strconv.Itoa(i))); err != nil {
			return err
		}
	}
	return nil
}
