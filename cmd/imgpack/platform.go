package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/manifests"
)

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

// openChosen opens inputs and narrows them to the platforms asked for. They are to
// be closed.
func (a *app) openChosen(ctx context.Context, texts []string, policy sourcePolicy) (*inputs, error) {
	in, err := a.openInputs(ctx, texts, policy)
	if err != nil {
		return nil, err
	}
	if err := a.choosePlatforms(ctx, in, policy); err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}
