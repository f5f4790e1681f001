package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
)

// sourcePolicy says where a command finds the images it is given.
type sourcePolicy struct {
	platform      platformFlag
	registry      *registryFlags // nil: the command never dials
	registryFirst bool           // a bare name is asked of its registry, not of the store
	onePlatform   bool           // an index always narrows to one platform, wherever it is
	bases         baseFlags      // what deltas among the sources may lean on
	documents     bool           // only documents are read: a delta need not have its base
	apart         bool           // deltas are left without their bases
	beside        string         // the output beside which contents are unpacked; "": in the store
}

// found is a root, the source it is in, and how the user asked for it.
type found struct {
	manifests.Entry
	requested  string
	fromRemote bool
}

// inputs are the images a command works on, and the sources they are in.
type inputs struct {
	found []found
	close []func() error
}

// Close closes all sources.
func (in *inputs) Close() error {
	var err error
	for _, c := range slices.Backward(in.close) {
		err = errors.Join(err, c())
	}
	return err
}

func (in *inputs) entries() []manifests.Entry {
	entries := make([]manifests.Entry, len(in.found))
	for i, f := range in.found {
		entries[i] = f.Entry
	}
	return entries
}

// roots in the order of entries.
func (in *inputs) roots() []manifests.Root {
	roots := make([]manifests.Root, len(in.found))
	for i, f := range in.found {
		roots[i] = f.Root
	}
	return roots
}

// filter keeps the images that keep says.
func (in *inputs) filter(keep func(manifests.Root) bool) {
	in.found = slices.DeleteFunc(in.found, func(f found) bool { return !keep(f.Root) })
}

// openInputs finds the images that texts name, several registries at a time,
// and keeps the order of texts. The inputs are to be closed.
func (a *app) openInputs(ctx context.Context, texts []string, policy sourcePolicy) (_ *inputs, err error) {
	refs, err := a.parseReferences(texts)
	if err != nil {
		return nil, err
	}
	o := &opener{app: a, policy: policy, bundles: map[string]*dedupe.Bundle{}}
	if o.choice, o.chosen, err = policy.platform.choice(a); err != nil {
		return nil, err
	}
	if policy.registry != nil {
		if o.registry, err = policy.registry.options(a); err != nil {
			return nil, err
		}
	}
	parts := make([]*inputs, len(refs))
	defer func() {
		if err != nil {
			for _, p := range parts {
				if p != nil {
					p.Close()
				}
			}
		}
	}()
	if o.store, err = archive.OpenStore(a.g.store); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			o.Close()
		}
	}()
	open := func(ctx context.Context, i int) (err error) {
		parts[i], err = o.open(ctx, refs[i], texts[i])
		return err
	}
	if err := severally(ctx, len(refs), max(a.g.parallel, 4), open); err != nil {
		return nil, err
	}
	all := &inputs{close: []func() error{o.Close}}
	for _, p := range parts {
		all.found = append(all.found, p.found...)
		all.close = append(all.close, p.close...)
	}
	if err := o.complete(ctx, all); err != nil {
		return nil, err
	}
	return all, nil
}

// severally calls do for each number below n, some at a time; one alone it calls
// itself, where the stack has grown already.
func severally(ctx context.Context, n, limit int, do func(ctx context.Context, i int) error) error {
	if n == 1 {
		return do(ctx, 0)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(limit)
	for i := range n {
		group.Go(func() error { return do(gctx, i) })
	}
	return group.Wait()
}

func (a *app) parseReferences(texts []string) ([]manifests.Reference, error) {
	refs := make([]manifests.Reference, len(texts))
	stdins := 0
	for i, text := range texts {
		var err error
		if refs[i], err = a.parseReference(text); err != nil {
			return nil, err
		}
		if refs[i].Transport == manifests.Stdin {
			stdins++
		}
	}
	if stdins > 1 {
		return nil, usagef("standard input can be read once only")
	}
	return refs, nil
}

// parseReference reads what a user typed.
func (a *app) parseReference(text string) (manifests.Reference, error) {
	return manifests.ParseReference(text, a.env("IMGPACK_DEFAULT_REGISTRY"))
}

// opener opens references by one policy.
type opener struct {
	app      *app
	policy   sourcePolicy
	choice   manifests.Platforms
	chosen   bool // choice was given
	registry archive.RegistryOptions
	store    *archive.Store

	mu      sync.Mutex
	bundles map[string]*dedupe.Bundle // by path: opened once, however many of its images are named
	bases   *inputs                   // opened for deltas; nil where none needed them
}

// Close closes what was opened besides the inputs.
func (o *opener) Close() error {
	var err error
	if o.bases != nil {
		err = o.bases.Close()
	}
	for _, path := range slices.Sorted(maps.Keys(o.bundles)) {
		err = errors.Join(err, o.bundles[path].Close())
	}
	return errors.Join(err, o.store.Close())
}

func (o *opener) open(ctx context.Context, ref manifests.Reference, text string) (*inputs, error) {
	switch ref.Transport {
	case manifests.Registry:
		if o.policy.registry == nil {
			e := usagef("%s: this command never asks a registry", text)
			return nil, e.hint("imgpack pull %s brings it into the store first", text)
		}
		return o.dial(ctx, ref.Name, text)
	case manifests.Store:
		return o.stored(ref.Name, text)
	case manifests.Auto:
		return o.named(ctx, ref.Name, text)
	}
	return o.file(ctx, ref, text)
}

// named looks a bare name up in the store and then, for commands that may
// dial, in its registry.
func (o *opener) named(ctx context.Context, n manifests.Name, text string) (*inputs, error) {
	if o.policy.registryFirst {
		return o.dial(ctx, n, text)
	}
	in, err := o.stored(n, text)
	switch {
	case err == nil && o.lacks(in.found[0].Root):
		o.app.verbose("%s is in the store for another platform", text)
		return o.dial(ctx, n, text)
	case err == nil || !is[*manifests.NotFoundError](err):
		return in, err
	}
	if o.policy.registry != nil {
		in, dialErr := o.dial(ctx, n, text)
		if dialErr != nil && isPath(text) {
			return nil, pathHint(dialErr, text)
		}
		return in, dialErr
	}
	if isPath(text) {
		return nil, pathHint(err, text)
	}
	return nil, err
}

// lacks reports that what the store has was chosen from an index for another
// platform than what is asked for now, so that the registry is to be asked.
func (o *opener) lacks(r manifests.Root) bool {
	if !o.chosen || o.policy.registry == nil || o.app.g.offline || r.Index == "" || r.Descriptor.Platform == nil {
		return false
	}
	return o.choice.All || len(o.choice.List) > 1 || !o.choice.Match(*r.Descriptor.Platform)
}

func isPath(text string) bool {
	_, err := os.Lstat(text)
	return err == nil
}

// pathHint is for a bare word that is no image's name and is a file here.
func pathHint(err error, text string) error {
	return &failure{Err: err, Hint: fmt.Sprintf("a bare word is a name; the file or directory is written ./%s", text)}
}

func (o *opener) stored(n manifests.Name, text string) (*inputs, error) {
	root, err := o.store.Resolve(n)
	if err != nil {
		return nil, err
	}
	o.app.verbose("%s is in the store: %s", text, root.Descriptor.Digest)
	return &inputs{found: []found{{Entry: manifests.Entry{Source: o.store, Root: root}, requested: text}}}, nil
}

func (o *opener) dial(ctx context.Context, n manifests.Name, text string) (*inputs, error) {
	if o.app.g.offline {
		return nil, &offlineError{host: n.Domain}
	}
	src, err := archive.OpenRegistry(ctx, n, o.registry)
	if err != nil {
		return nil, err
	}
	in := &inputs{close: []func() error{src.Close}}
	roots, err := src.Roots(ctx)
	if err != nil {
		in.Close()
		return nil, err
	}
	for _, r := range roots {
		o.app.verbose("%s is at %s: %s", text, n.Domain, r.Descriptor.Digest)
		in.found = append(in.found, found{Entry: manifests.Entry{Source: src, Root: r}, requested: text, fromRemote: true})
	}
	return in, nil
}

func (o *opener) file(ctx context.Context, ref manifests.Reference, text string) (*inputs, error) {
	in := &inputs{}
	src, err := o.source(ctx, ref, in)
	if err != nil {
		return nil, err
	}
	roots, err := archive.Choose(ctx, src, ref)
	if err != nil {
		in.Close()
		return nil, err
	}
	for _, r := range roots {
		in.found = append(in.found, found{Entry: manifests.Entry{Source: src, Root: r}, requested: text})
	}
	return in, nil
}

// source opens a file; a bundle that is open already is used again.
func (o *opener) source(ctx context.Context, ref manifests.Reference, in *inputs) (archive.Source, error) {
	spool := o.policy.spoolDir(o.app)
	if ref.Transport != manifests.Path || !isBundle(ref.Path) {
		if ref.Transport == manifests.Path {
			if err := refuseReceipt(ref.Path); err != nil {
				return nil, err
			}
		}
		src, closeSource, err := o.app.openFile(ctx, ref, spool)
		if err == nil {
			in.close = append(in.close, closeSource)
		}
		return src, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if b := o.bundles[ref.Path]; b != nil {
		return b, nil
	}
	b, err := o.app.openBundle(ref.Path, spool)
	if err != nil {
		return nil, err
	}
	o.bundles[ref.Path] = b
	if o.policy.documents {
		return b, nil
	}
	return b, o.app.makeSpool(b, spool)
}

// spoolDir is where contents are unpacked that cannot be read in place: beside
// the output, which must have room for them anyway, or in the store.
func (p sourcePolicy) spoolDir(a *app) string {
	if p.beside == "" || p.beside == "-" {
		return a.g.store
	}
	if st, err := os.Stat(p.beside); err == nil && !st.Mode().IsRegular() && !st.IsDir() {
		return a.g.store // a device or a pipe
	}
	return filepath.Dir(filepath.Clean(p.beside))
}

// makeSpool makes the store's directory where a bundle's contents go there.
func (a *app) makeSpool(b *dedupe.Bundle, spool string) error {
	if spool != a.g.store || b.Info().Mode != dedupe.ModeChunk {
		return nil
	}
	return a.makeStore()
}

// makeStore makes the store's directory, for contents to be unpacked there.
func (a *app) makeStore() error {
	err := os.MkdirAll(a.g.store, 0o700)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return &fs.PathError{Op: atomicfile.OpUnnamed, Path: e.Path, Err: e.Err}
	}
	return err
}

func (a *app) openBundle(path, spool string) (*dedupe.Bundle, error) {
	return dedupe.Open(path, dedupe.OpenOptions{SpoolDir: spool, Jobs: a.g.parallel})
}

// openFile opens a file, directory or standard input: a bundle, or anything
// package archive reads. What cannot be read in place is unpacked in spool.
func (a *app) openFile(ctx context.Context, ref manifests.Reference, spool string) (archive.Source, func() error, error) {
	if ref.Transport == manifests.Path && isBundle(ref.Path) {
		b, err := a.openBundle(ref.Path, spool)
		if err != nil {
			return nil, nil, err
		}
		return b, b.Close, nil
	}
	var bundle *dedupe.Bundle // what was opened, if it is one: it can do more than other sources
	o := archive.OpenOptions{Stdin: a.In, Other: func(r io.ReaderAt, size int64, name string) (_ archive.Source, ok bool, err error) {
		if !dedupe.IsBundle(r, size) {
			return nil, false, nil
		}
		if bundle, err = dedupe.OpenReaderAt(r, size, name, dedupe.OpenOptions{SpoolDir: spool, Jobs: a.g.parallel}); err != nil {
			return nil, true, err
		}
		return bundle, true, a.makeSpool(bundle, spool)
	}}
	if ref.Transport == manifests.Stdin {
		if a.inTerminal {
			return nil, nil, usagef("standard input is a terminal").hint("give a file, or pipe an archive in: ssh HOST imgpack save IMAGE | imgpack load")
		}
		if spool == a.g.store {
			if err := a.makeStore(); err != nil {
				return nil, nil, err
			}
		}
		o.SpoolDir = spool
	}
	src, err := archive.Open(ctx, ref, o)
	switch {
	case err != nil:
		return nil, nil, err
	case bundle != nil:
		return bundle, src.Close, nil
	}
	return src, src.Close, nil
}

func isBundle(path string) bool {
	f, size, err := openRegular(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return dedupe.IsBundle(f, size)
}

// openRegular opens a regular file and nothing else: opening a pipe would take
// from it.
func openRegular(path string) (f *os.File, size int64, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("open %s: not a regular file", path)
	}
	f, err = os.Open(path)
	return f, st.Size(), err
}

// only keeps the images that patterns name; each must name one.
func (in *inputs) only(refs []string) error {
	if len(refs) == 0 {
		return nil
	}
	keep := map[string]bool{}
	for _, text := range refs {
		chosen, err := manifests.FindRoots(in.roots(), text, "what was given")
		if err != nil {
			return err
		}
		for _, r := range chosen {
			keep[rootKey(r)] = true
		}
	}
	in.filter(func(r manifests.Root) bool { return keep[rootKey(r)] })
	return nil
}

func rootKey(r manifests.Root) string {
	return r.Name.String() + " " + r.Label + " " + string(r.Descriptor.Digest)
}

// exclude drops the images that a pattern matches, by short or full name.
func (in *inputs) exclude(patterns []string) error {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return usagef("--exclude %q: %v", p, err)
		}
	}
	in.filter(func(r manifests.Root) bool {
		return !slices.ContainsFunc(patterns, func(p string) bool { return matches(p, r) })
	})
	return nil
}

func matches(pattern string, r manifests.Root) bool {
	names := []string{r.Display(), r.Name.String(), r.Name.Repository(), r.Name.FamiliarRepository()}
	return slices.ContainsFunc(names, func(n string) bool {
		ok, _ := path.Match(pattern, n)
		return ok && n != ""
	})
}

// container is the source that all inputs are in; nil where there are several
// or none.
func (in *inputs) container() any {
	var one any
	for _, f := range in.found {
		if one != nil && one != any(f.Source) {
			return nil
		}
		one = f.Source
	}
	return one
}

func (in *inputs) anyRemote() bool {
	return slices.ContainsFunc(in.found, func(f found) bool { return f.fromRemote })
}
