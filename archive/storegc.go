package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/manifests"
)

// GCOptions are options of Store.GC.
type GCOptions struct {
	DryRun bool // count only; the store is not even locked
}

// GCResult says what GC removed, or would remove.
type GCResult struct {
	Blobs       int
	Temps       int             // pieces of unfinished work that killed processes left
	Bytes       int64           // in blobs
	KeepDiffIDs []digest.Digest // of every layer of every image still there, sorted
}

// GC removes the blobs that no image of the store needs, and what killed
// processes left. Images without a name are images too. An image that cannot be
// read is an error, and nothing is removed: it must be removed first.
func (s *Store) GC(ctx context.Context, o GCOptions) (GCResult, error) {
	var result GCResult
	if _, err := os.Stat(s.dir); errors.Is(err, fs.ErrNotExist) {
		return result, nil
	}
	if !o.DryRun {
		unlock, err := s.lock(ctx)
		if err != nil {
			return result, err
		}
		defer unlock()
	}
	keep, diffIDs, err := s.needed(ctx)
	if err != nil {
		return result, err
	}
	result.KeepDiffIDs = diffIDs
	if result.Temps, err = s.recover(!o.DryRun); err != nil {
		return result, err
	}
	for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		if err := s.sweep(ctx, a, keep, o.DryRun, &result); err != nil {
			return result, err
		}
	}
	return result, nil
}

// needed returns all blobs and all diffIDs of the store's images.
func (s *Store) needed(ctx context.Context) (map[digest.Digest]bool, []digest.Digest, error) {
	roots, err := s.roots()
	if err != nil {
		return nil, nil, err
	}
	g, err := manifests.NewGraph(ctx, manifests.Entries(s, roots), 0)
	if err != nil {
		return nil, nil, fmt.Errorf("find what is needed: %w", damaged(err))
	}
	keep := map[digest.Digest]bool{}
	for _, d := range allBlobs(g) {
		keep[d.Digest] = true
	}
	diffIDs := []digest.Digest{}
	for _, r := range roots {
		for _, img := range g.Images(r) {
			for _, l := range img.Layers {
				diffIDs = append(diffIDs, l.DiffID)
			}
		}
	}
	slices.Sort(diffIDs)
	return keep, slices.Compact(diffIDs), nil
}

// sweep removes the blobs of one algorithm that are not kept. What does not
// have the name of a blob is not touched.
func (s *Store) sweep(ctx context.Context, a digest.Algorithm, keep map[digest.Digest]bool, dry bool, result *GCResult) error {
	dir := filepath.Join(s.dir, "blobs", a.String())
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		d := digest.NewDigestFromEncoded(a, n.Name())
		if manifests.CheckDigest(d) != nil || keep[d] {
			continue
		}
		st, err := n.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !dry {
			if err := os.Remove(filepath.Join(dir, n.Name())); err != nil {
				return err
			}
		}
		result.Blobs++
		result.Bytes += st.Size()
	}
	return nil
}
