package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/manifests"
)

// sourcePolicy says where a command finds the images it is given.
type sourcePolicy struct {
	platform      platformFlag
	registry      *registryFlags // nil: the command never dials
	registryFirst bool           // a bare name is asked of its registry, not of the store
	onePlatform   bool           // an index always narrows to one platform, wherever it is
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
	refs := make([]manifests.Reference, len(texts))
	stdins := 0
	for i, text := range texts {
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
	o := &opener{app: a, policy: policy}
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
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(max(a.g.parallel, 4))
	for i, ref := range refs {
		group.Go(func() (err error) {
			parts[i], err = o.open(gctx, ref, texts[i])
			return err
		})
	}
	all := &inputs{close: []func() error{o.store.Close}}
	if err := group.Wait(); err != nil {
		o.store.Close()
		return nil, err
	}
	for _, p := range parts {
		all.found = append(all.found, p.found...)
		all.close = append(all.close, p.close...)
	}
	return all, nil
}

// parseReference reads what a user typed. A bare word that is a file here
// gets a hint on top of the answer that there is no such image.
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
	src, err := o.app.openFile(ctx, ref)
	if err != nil {
		return nil, err
	}
	in := &inputs{close: []func() error{src.Close}}
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

// openFile opens a file, directory or standard input: a bundle, or anything
// package archive reads.
func (a *app) openFile(ctx context.Context, ref manifests.Reference) (archive.Source, error) {
	if ref.Transport == manifests.Path && isBundle(ref.Path) {
		return dedupe.Open(ref.Path, dedupe.OpenOptions{})
	}
	o := archive.OpenOptions{Stdin: a.In}
	if ref.Transport == manifests.Stdin {
		if a.inTerminal {
			return nil, usagef("standard input is a terminal").hint("give a file, or pipe an archive in: ssh HOST imgpack save IMAGE | imgpack load")
		}
		if err := os.MkdirAll(a.g.store, 0o700); err != nil {
			return nil, err
		}
		o.SpoolDir = a.g.store
	}
	return archive.Open(ctx, ref, o)
}

func isBundle(path string) bool {
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() { // opening a pipe would take from it
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return dedupe.IsBundle(f, st.Size())
}

// platformFlag is --platform.
type platformFlag struct{ list []string }

func (p *platformFlag) add(fs *pflag.FlagSet, usage string) {
	group(fs, groupSource, func(fs *pflag.FlagSet) { fs.StringSliceVar(&p.list, "platform", nil, usage) })
}

// choice is what was asked for; given is false when nothing was.
func (p *platformFlag) choice(a *app) (choice manifests.Platforms, given bool, err error) {
	list := p.list
	if len(list) == 0 {
		if v := a.env("DOCKER_DEFAULT_PLATFORM"); v != "" {
			list = []string{v}
		}
	}
	choice, err = manifests.ParsePlatforms(list...)
	return choice, len(list) > 0, err
}

// choosePlatforms narrows every index to the platforms asked for. Without a
// choice, what comes from a registry by tag narrows to the local platform,
// what is pinned to an index stays whole, and so does all that somebody
// already chose when it was put into a file or the store.
func (a *app) choosePlatforms(ctx context.Context, in *inputs, policy sourcePolicy) error {
	choice, given, err := policy.platform.choice(a)
	if err != nil {
		return err
	}
	narrow := manifests.Select
	if policy.onePlatform {
		narrow = manifests.SelectOne
	}
	for i := range in.found {
		f := &in.found[i]
		c := choice
		if !given && !policy.onePlatform {
			pinned := f.Root.Name.Digest != "" && manifests.IsIndex(f.Root.Descriptor.MediaType)
			if pinned && f.fromRemote {
				a.note("note: %s is pinned to an index, so all its platforms are taken; one alone: --platform %s", f.requested, manifests.FormatPlatform(manifests.LocalPlatform()))
			}
			c.All = pinned || !f.fromRemote
		}
		entry, err := narrow(ctx, f.Source, f.Root, c)
		if err != nil {
			return err
		}
		f.Entry = entry
	}
	return nil
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
