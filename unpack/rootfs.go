package unpack

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/manifests"
)

// WriteRootfs makes dir the merged root filesystem of an image, with the
// attributes of its top directory. dir must not exist or be an empty
// directory (otherwise a *manifests.ConflictError), and appears only when
// complete. Owners that could not be set are recorded in DIR.owners.json, which
// must not be anything else.
func WriteRootfs(ctx context.Context, src manifests.Fetcher, img *manifests.Image, dir string, o Options) (_ *Result, err error) {
	out, err := o.output(dir)
	if err != nil {
		return nil, err
	}
	defer out.endWith(&err)
	if err := checkBeside(out.target); err != nil {
		return nil, err
	}
	f := &flattener{out: out, src: src, img: img, options: o, root: filepath.Join(out.dir, rootfsName)}
	if err := f.run(ctx); err != nil {
		return nil, err
	}
	return f.res, f.commitRecorded()
}

// rootfsName is the merged directory in a workspace, and in a runtime bundle.
const rootfsName = "rootfs"

// flattener merges layers into one directory. Layers are unpacked each on its
// own, in parallel, and then moved one onto another.
type flattener struct {
	out     *output
	src     manifests.Fetcher
	img     *manifests.Image
	options Options
	parts   []part
	root    string            // the merged directory, in out
	dirs    map[string]*attrs // what its directories will have in the end
	devices map[string]deviceNode
	owners  map[rawPath]string // that could not be set
	owned   insides            // of owners
	res     *Result
	cloner  *cloner // nil: none
}

// part is a layer unpacked on its own.
type part struct {
	dir  string
	meta *layerMeta
	dirs map[string]*attrs

	cloned bool
}

// run makes the merged directory.
func (f *flattener) run(ctx context.Context) error {
	f.devices, f.owners, f.owned, f.res = map[string]deviceNode{}, map[rawPath]string{}, insides{}, &Result{LayersNew: len(f.img.Layers)}
	if err := f.extract(ctx); err != nil {
		return err
	}
	for i := range f.img.Layers {
		if err := f.layer(ctx, i); err != nil {
			return err
		}
	}
	if err := f.finish(); err != nil {
		return err
	}
	return ctx.Err()
}

func (f *flattener) extract(ctx context.Context) error {
	var err error
	if f.out.budget, err = newBudget(f.out.fd, f.options, f.img.Layers); err != nil {
		return err
	}
	f.dirs = map[string]*attrs{".": impliedAttrs()}
	if err := os.Mkdir(f.root, 0o700); err != nil {
		return err
	}
	f.parts = make([]part, len(f.img.Layers))
	if f.cloner, err = newCloner(ctx, f.options.Store, f.img, f.out.fd); err != nil {
		return err
	}
	defer f.cloner.close()
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(f.options.jobs())
	for _, i := range bySize(f.img.Layers) {
		group.Go(func() (err error) {
			f.parts[i], err = f.unpack(gctx, i, nil)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

func (f *flattener) unpack(ctx context.Context, i int, lower lowerView) (p part, err error) {
	if err := ctx.Err(); err != nil {
		return p, err
	}
	j := &job{src: f.src, img: f.img, index: i, options: f.options, budget: f.out.budget, lower: lower}
	p.dir = filepath.Join(f.out.dir, fmt.Sprint("layer", i))
	if lower == nil {
		j.progress = f.options.Progress
	} else {
		p.dir += "-chained"
	}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return p, err
	}
	if lower == nil {
		if ok, err := f.cloner.clone(ctx, j, &p); ok || err != nil {
			return p, err
		}
	}
	p.meta, p.dirs, err = j.run(ctx, p.dir)
	return p, err
}

// layer moves layer i onto the merged directory.
func (f *flattener) layer(ctx context.Context, i int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := f.parts[i]
	fail := func(err error) error { return (&job{img: f.img, index: i}).fail(f.img.Layers[i], err) }
	below := newStack()
	defer below.close()
	if i > 0 {
		if err := below.add(f.root, stackLayer{devices: f.devices, owners: f.owners}); err != nil {
			return err
		}
	}
	alone, err := standsAlone(p.meta, below)
	if err != nil {
		return fail(err)
	}
	if !alone {
		if err := removePath(p.dir); err != nil {
			return err
		}
		if p, err = f.unpack(ctx, i, below); err != nil {
			return err
		}
		if err := p.meta.Fault.err(); err != nil {
			return fail(err)
		}
	}
	f.res.add(i+1, p.meta)
	if p.cloned {
		f.res.LayersNew--
		f.res.LayersShared++
	}
	maps.Copy(f.devices, p.meta.devices())
	if err := f.merge(p); err != nil {
		return fail(err)
	}
	f.parts[i] = part{}
	return removePath(p.dir)
}

func (f *flattener) merge(p part) (err error) {
	m := &merger{part: p, opaque: newPathSet(p.meta.Opaque), hidden: map[string][]string{}, dirs: f.dirs}
	if len(f.owners) > 0 {
		m.gone = pathSet{}
	}
	for path := range p.dirs {
		m.order = append(m.order, path)
	}
	slices.Sort(m.order)
	for _, w := range p.meta.Whiteouts {
		dir := parentOf(string(w))
		m.hidden[dir] = append(m.hidden[dir], baseOf(string(w)))
	}
	if m.from, err = openDir(p.dir); err != nil {
		return err
	}
	defer unix.Close(m.from)
	if m.to, err = openDir(f.root); err != nil {
		return err
	}
	defer unix.Close(m.to)
	for todo := []string{"."}; len(todo) > 0; {
		path := todo[len(todo)-1]
		more, err := m.directory(path)
		if err != nil {
			return fmt.Errorf("merge: %w", err)
		}
		todo = append(todo[:len(todo)-1], more...)
	}
	f.own(m.gone, p.meta.Owners)
	return nil
}

// own takes in the owners that a layer adds, after those of what has gone.
func (f *flattener) own(gone pathSet, more map[rawPath]string) {
	disown := func(path string) { delete(f.owners, rawPath(path)) }
	for top := range gone {
		disown(top)
		f.owned.drop(top, disown)
	}
	for path, by := range more {
		if f.owners[path] == "" {
			f.owned.add(string(path))
		}
		f.owners[path] = by
	}
}

// finish gives the directories their attributes.
func (f *flattener) finish() error {
	root, err := openDir(f.root)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	x := newExtractor(root, f.out.budget)
	defer x.close()
	x.noXattrs, x.ids = f.options.NoXattrs, &f.options.IDs
	if err := applyDirs(root, f.dirs, x.dirAttrs); err != nil {
		return err
	}
	maps.Copy(f.owners, x.meta.Owners)
	f.res.SquashedOwners = len(f.owners)
	for _, s := range x.meta.Skipped {
		f.res.Skipped = append(f.res.Skipped, Skipped{s.Kind, 0, string(s.Path), s.Why})
	}
	return nil
}

// merger moves one layer onto a merged directory.
type merger struct {
	part
	from, to int
	order    []string // the layer's directories, sorted
	opaque   pathSet
	hidden   map[string][]string // whiteouts by directory
	dirs     map[string]*attrs   // of the merged directory
	gone     pathSet             // what was there before and is not any more; nil where nobody asks
}

// directory merges one directory that both have, and returns those in it that
// both have too.
func (m *merger) directory(path string) (both []string, err error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	from, err := openBeneath(m.from, path, flags)
	if err != nil {
		return nil, err
	}
	defer unix.Close(from)
	to, err := openBeneath(m.to, path, flags)
	if err != nil {
		return nil, err
	}
	defer unix.Close(to)
	if err := m.hide(path, to); err != nil {
		return nil, err
	}
	if a := m.part.dirs[path]; !a.implied {
		m.dirs[path] = a
	}
	all, err := names(from)
	if err != nil {
		return nil, err
	}
	for _, name := range all {
		merge, err := m.move(from, to, path, name)
		if err != nil {
			return nil, err
		}
		if merge {
			both = append(both, join(path, name))
		}
	}
	return both, nil
}

// hide removes what the layer hides in a directory.
func (m *merger) hide(path string, to int) (err error) {
	gone := m.hidden[path]
	if m.opaque[path] {
		if gone, err = names(to); err != nil {
			return err
		}
	}
	for _, name := range gone {
		m.lost(path, name)
		if err := removeTree(to, name); err != nil {
			return err
		}
	}
	return nil
}

// lost notes that something was removed or replaced.
func (m *merger) lost(dir, base string) {
	if m.gone != nil {
		m.gone[join(dir, base)] = true
	}
}

// move brings one name of the layer to the merged directory; merge says that
// it is a directory in both and has to be gone into.
func (m *merger) move(from, to int, path, name string) (merge bool, err error) {
	mine, err := lstatAt(from, name)
	if err != nil {
		return false, err
	}
	theirs, err := lstatAt(to, name)
	there := err == nil
	if err != nil && err != unix.ENOENT {
		return false, err
	}
	if there && isDir(&mine) && isDir(&theirs) {
		return true, nil
	}
	if there {
		m.lost(path, name)
	}
	if there && (isDir(&mine) || isDir(&theirs)) {
		if err := removeTree(to, name); err != nil {
			return false, err
		}
	}
	if isDir(&mine) {
		m.adopt(join(path, name))
	}
	return false, unix.Renameat(from, name, to, name)
}

// adopt takes the attributes of a directory that is moved as it is, and of all
// below it.
func (m *merger) adopt(top string) {
	i, _ := slices.BinarySearch(m.order, top)
	for ; i < len(m.order); i++ {
		path := m.order[i]
		if path == top || strings.HasPrefix(path, top+"/") {
			m.dirs[path] = m.part.dirs[path]
		} else if !strings.HasPrefix(path, top) {
			return
		}
	}
}
