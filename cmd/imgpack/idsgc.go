package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/internal/subid"
	"github.com/imgpack/imgpack/sandbox"
	"github.com/imgpack/imgpack/unpack"
)

// gcPart is one of the places where a store keeps unpacked layers and what
// sandboxes write: one for the owner alone, and one for each map of ids.
type gcPart struct {
	layers, runs string
	ids          string          // the map; "" for the owner alone
	used         []digest.Digest // layers of containers
	stale        bool            // of a map that is no longer the caller's: nothing can use it
	hint         string          // where it cannot be collected
}

// gcParts lists the places that gc goes through. Where one holds files of other
// ids than the caller's, the program does the whole command again in a user
// namespace that has them, and done is true; where there is none to be had
// those places are left out, and left says why.
func (a *app) gcParts(ctx context.Context, store *archive.Store, dryRun bool) (parts []gcPart, left error, done bool, err error) {
	runs := filepath.Join(store.Dir(), "run")
	parts = append(parts, gcPart{layers: store.LayerDir(), runs: runs})
	keys, err := idsKeys(filepath.Join(store.LayerDir(), idsDir), filepath.Join(runs, idsDir))
	if err != nil || len(keys) == 0 {
		return parts, nil, false, err
	}
	own, full := a.gcKey(), false
	for _, key := range keys {
		p := gcPart{layers: filepath.Join(store.LayerDir(), idsDir, key), runs: filepath.Join(runs, idsDir, key), ids: key, stale: !a.root() && key != own}
		if p.stale {
			p.hint = "its layers have owners that /etc/subuid or /etc/subgid no longer gives to you; root can remove it"
		}
		full = full || holdsAny(p.layers, 3) || holdsAny(p.runs, 1)
		parts = append(parts, p)
	}
	if !full || dryRun || a.root() {
		return parts, nil, false, nil
	}
	ids := idsFlag{mode: idsRanges}
	done, err = ids.enter(ctx, a, "gc", filepath.Join(store.LayerDir(), idsDir))
	if f, ok := errors.AsType[*failure](err); ok && ctx.Err() == nil {
		return parts[:1], f, false, nil
	}
	return parts, nil, done, err
}

// gcKey is the key of the caller's map; "" where there is none.
func (a *app) gcKey() string {
	if a.namespace != nil {
		return idsKey(a.namespace.Maps)
	}
	m, err := subid.Lookup(os.Getuid(), os.Getgid())
	if err != nil {
		return ""
	}
	return idsKey(m)
}

// idsKeys lists the directories of maps in several directories.
func idsKeys(dirs ...string) (keys []string, err error) {
	seen := map[string]bool{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if !seen[e.Name()] {
				seen[e.Name()] = true
				keys = append(keys, e.Name())
			}
		}
	}
	return keys, nil
}

// holdsAny reports whether there is anything depth directories below dir, or
// in its tmp: what is above that is the caller's own.
func holdsAny(dir string, depth int) bool {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if depth == 1 || e.Name() == "tmp" && holdsAny(filepath.Join(dir, "tmp"), 1) || e.IsDir() && holdsAny(filepath.Join(dir, e.Name()), depth-1) {
			return true
		}
	}
	return err != nil && !errors.Is(err, fs.ErrNotExist)
}

// collect frees what is not needed, and adds it up.
func (p *gcPart) collect(ctx context.Context, keep []digest.Digest, doc *gcDoc) error {
	if p.stale {
		keep = nil
	}
	keep = slices.Concat(keep, p.used)
	n, bytes, err := unpack.NewLayerStore(p.layers).GC(ctx, keep, doc.DryRun)
	if err != nil {
		return err
	}
	doc.Layers += n
	doc.Bytes += bytes
	if doc.DryRun {
		return nil
	}
	left, err := sandbox.Sweep(p.runs)
	if err != nil {
		return err
	}
	doc.Temps += left
	if p.stale && len(p.used) == 0 {
		return errors.Join(os.RemoveAll(p.layers), os.RemoveAll(p.runs))
	}
	return nil
}
