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
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
)

// AddOptions are options of Store.Add. The zero value works.
type AddOptions struct {
	Jobs     int                // blobs copied at a time, each with a buffer of 1 MiB; 0 means GOMAXPROCS
	Progress manifests.Progress // told of blobs that are copied, not of those there already
	Force    bool               // an existing tag may move to another digest
}

// AddResult says what became of one root.
type AddResult struct {
	Root     manifests.Root
	Previous digest.Digest // what the tag named before; "" if it was not there
	New      int64         // bytes stored for it
	Shared   int64         // bytes it needs that were there, or came with a root before it
}

// Add stores all of g and names its roots, in one transaction: every image
// appears or none, and after an error the store is as it was; but where only
// the last step fails, forcing index.json's new name to disk, they are there.
// Blobs that are there are not copied again.
//
// A tag that names another digest is a *ConflictError, found before any blob is
// copied, unless o.Force is set; the image it named then stays, without a name.
// Roots without a name are kept so too.
func (s *Store) Add(ctx context.Context, g *manifests.Graph, o AddOptions) (_ []AddResult, err error) {
	roots, err := distinct(g.Roots())
	if err != nil {
		return nil, err
	}
	for i := range roots {
		roots[i].Label = "" // what another layout called it
	}
	old, err := s.roots()
	if err != nil {
		return nil, err
	}
	if _, _, err := merge(old, roots, o.Force); err != nil {
		return nil, err
	}
	t := &addition{store: s, graph: g, roots: roots, blobs: allBlobs(g), options: o, staged: map[digest.Digest]bool{}}
	if standing := s.standing(); standing != "" {
		defer func() {
			if err != nil {
				s.forsake(standing)
			}
		}()
	}
	if t.stage, err = s.begin(ctx); err != nil {
		return nil, err
	}
	defer t.stage.end()
	previous, err := t.run(ctx)
	if err != nil {
		return nil, err
	}
	return t.results(context.WithoutCancel(ctx), previous)
}

// addition is one transaction of Add.
type addition struct {
	store   *Store
	graph   *manifests.Graph
	roots   []manifests.Root
	blobs   []ocispec.Descriptor
	options AddOptions
	stage   *stage
	staged  map[digest.Digest]bool
}

// run stages what is absent and commits. If blobs have been removed by others
// meanwhile, those are staged and it is tried again.
func (t *addition) run(ctx context.Context) ([]digest.Digest, error) {
	for range 5 {
		if err := t.copy(ctx, t.unstaged()); err != nil {
			return nil, err
		}
		previous, done, err := t.commit(ctx)
		if done || err != nil {
			return previous, err
		}
	}
	return nil, &manifests.ConflictError{Subject: t.store.place(), Err: errors.New("blobs are being removed from it all the time")}
}

// unstaged lists the blobs that are neither in the store nor staged.
func (t *addition) unstaged() []ocispec.Descriptor {
	return slices.DeleteFunc(slices.Clone(t.blobs), func(d ocispec.Descriptor) bool {
		return t.staged[d.Digest] || t.store.present(d)
	})
}

func (t *addition) copy(ctx context.Context, blobs []ocispec.Descriptor) error {
	var size int64
	for _, d := range blobs {
		size += d.Size
	}
	if err := checkSpace(t.stage.path, size); err != nil {
		return err
	}
	if err := t.stage.write(ctx, t.graph, blobs, t.options.Jobs, t.options.Progress); err != nil {
		return err
	}
	if err := t.stage.sync(ctx, blobs, t.options.Jobs); err != nil {
		return err
	}
	for _, d := range blobs {
		t.staged[d.Digest] = true
	}
	return nil
}

// commit moves staged blobs into place and names the roots. It is not done if
// blobs are missing that were there before.
func (t *addition) commit(ctx context.Context) (previous []digest.Digest, done bool, err error) {
	s := t.store
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	old, err := s.roots()
	if err != nil {
		return nil, false, err
	}
	roots, previous, err := merge(old, t.roots, t.options.Force)
	if err != nil {
		return nil, false, err
	}
	if len(t.unstaged()) > 0 {
		return nil, false, nil
	}
	next, err := s.prepareIndex(roots)
	if err != nil {
		return nil, false, err
	}
	undo, err := t.place()
	if err == nil {
		err = os.Rename(next, s.index())
	}
	if err != nil {
		os.Remove(next)
		undo()
		return nil, false, err
	}
	return previous, true, atomicfile.SyncDir(s.dir)
}

// place renames staged blobs that are absent into the store and forces their
// folders to disk. undo takes them out again, and puts back a damaged one that
// was replaced.
func (t *addition) place() (undo func(), err error) {
	s := t.store
	var placed []digest.Digest
	undo = func() {
		for _, d := range placed {
			os.Remove(s.blob(d))
			os.Rename(t.aside(d), s.blob(d))
		}
	}
	home := blobDir{s.dir, storeFileMode, storeDirMode}
	if err := home.makeDirs(t.blobs); err != nil {
		return undo, err
	}
	marker := filepath.Join(s.dir, "oci-layout")
	if _, err := os.Lstat(marker); errors.Is(err, fs.ErrNotExist) {
		if err := writeSynced(marker, []byte(manifests.LayoutMarker), storeFileMode); err != nil {
			return undo, err
		}
	}
	for _, d := range t.blobs {
		if !t.staged[d.Digest] || s.present(d) {
			delete(t.staged, d.Digest) // somebody else brought it meanwhile
			continue
		}
		if err := os.Rename(s.blob(d.Digest), t.aside(d.Digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return undo, err
		}
		placed = append(placed, d.Digest)
		if err := os.Rename(filepath.Join(t.stage.path, blobPath(d.Digest)), s.blob(d.Digest)); err != nil {
			return undo, err
		}
	}
	return undo, home.syncDirs(t.blobs)
}

// aside is where a damaged blob goes whose place is needed.
func (t *addition) aside(d digest.Digest) string {
	return filepath.Join(t.stage.path, "damaged-"+d.Encoded())
}

// merge gives the roots of a store the names of those that are added. It
// returns what each of these named before.
func merge(old, added []manifests.Root, force bool) (all []manifests.Root, previous []digest.Digest, err error) {
	all = slices.Clone(old)
	for _, r := range added {
		i := slices.IndexFunc(all, func(o manifests.Root) bool { return sameSlot(o, r) })
		if i < 0 {
			all, previous = append(all, r), append(previous, "")
			continue
		}
		was := all[i]
		if was.Descriptor.Digest != r.Descriptor.Digest && !force {
			return nil, nil, &manifests.ConflictError{Subject: r.Name.Familiar(), Err: fmt.Errorf("names %s in the store, and would move to %s", was.Descriptor.Digest, r.Descriptor.Digest)}
		}
		previous = append(previous, was.Descriptor.Digest)
		all[i] = r
		if was.Descriptor.Digest != r.Descriptor.Digest {
			was.Name = manifests.Name{}
			all = append(all, was)
		}
	}
	return dropNameless(all), previous, nil
}

// sameSlot reports whether two roots cannot stand side by side: they have the
// same tag, or the same name by digest, or are the same image without a name.
func sameSlot(a, b manifests.Root) bool {
	x, tagged := a.Name.Tagged()
	y, also := b.Name.Tagged()
	if tagged || also {
		return x == y && tagged == also
	}
	return a.Name == b.Name && (!a.Name.IsZero() || a.Descriptor.Digest == b.Descriptor.Digest)
}

// dropNameless drops entries without a name for images that are there under
// one, or twice.
func dropNameless(roots []manifests.Root) []manifests.Root {
	kept := map[digest.Digest]bool{}
	for _, r := range roots {
		if !r.Name.IsZero() {
			kept[r.Descriptor.Digest] = true
		}
	}
	return slices.DeleteFunc(roots, func(r manifests.Root) bool {
		if !r.Name.IsZero() {
			return false
		}
		drop := kept[r.Descriptor.Digest]
		kept[r.Descriptor.Digest] = true
		return drop
	})
}

// results counts the bytes of each root, those of a new blob once.
func (t *addition) results(ctx context.Context, previous []digest.Digest) ([]AddResult, error) {
	results := make([]AddResult, len(t.roots))
	for i, r := range t.roots {
		own, err := manifests.NewGraph(ctx, []manifests.Entry{{Source: t.graph, Root: r}}, 1)
		if err != nil {
			return nil, err
		}
		results[i] = AddResult{Root: r, Previous: previous[i]}
		for _, d := range allBlobs(own) {
			if t.staged[d.Digest] {
				delete(t.staged, d.Digest)
				results[i].New += d.Size
			} else {
				results[i].Shared += d.Size
			}
		}
	}
	return results, nil
}
