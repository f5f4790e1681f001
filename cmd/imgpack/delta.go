package main

import (
	"context"
	"slices"

	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/manifests"
)

// baseFlags is --base.
type baseFlags struct{ list []string }

func (b *baseFlags) add(fs *pflag.FlagSet) {
	group(fs, groupSource, func(fs *pflag.FlagSet) {
		fs.StringArrayVar(&b.list, "base", nil, "take what a delta leans on from `SOURCE` too, besides the store (repeatable)")
	})
}

// supply gives deltas what they lean on. A delta that has all it needs is
// itself something others may lean on; one that has not gives nothing, so that
// no two lean on each other.
type supply struct {
	given   []*manifests.Graph
	lacking []*dedupe.Bundle
	wanted  []*dedupe.Bundle // of all deltas, those that must be complete
	jobs    int
}

// complete gives every delta among the inputs what it leans on, from the other
// inputs, then --base, then the store, before anything is done with it.
func (o *opener) complete(ctx context.Context, in *inputs) error {
	if o.policy.documents || o.policy.apart {
		return nil
	}
	s := &supply{jobs: o.app.g.parallel}
	s.find(in)
	s.wanted = slices.Clone(s.lacking)
	if len(s.wanted) == 0 {
		return nil
	}
	for _, give := range []func() error{
		func() error { return o.supplyInputs(ctx, s, in) },
		func() error { return o.supplyBases(ctx, s) },
		func() error { return o.supplyStore(ctx, s) },
	} {
		if err := give(); err != nil {
			return err
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
		if s.missing() == nil {
			return nil
		}
	}
	return s.missing()
}

// missing says what the first delta that must be complete lacks.
func (s *supply) missing() error {
	for _, b := range s.wanted {
		if slices.Contains(s.lacking, b) {
			return b.Complete()
		}
	}
	return nil
}

// find notes the deltas among inputs.
func (s *supply) find(in *inputs) {
	for _, f := range in.found {
		if b, ok := f.Source.(*dedupe.Bundle); ok && b.Needs() != nil && !slices.Contains(s.lacking, b) {
			s.lacking = append(s.lacking, b)
		}
	}
}

// give offers the images of a source that lacks nothing.
func (s *supply) give(ctx context.Context, entries []manifests.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	g, err := manifests.NewGraph(ctx, entries, s.jobs)
	if err != nil {
		return err
	}
	s.given = append(s.given, g)
	for _, b := range s.lacking {
		b.Supply(g)
	}
	return nil
}

// settle lets deltas that have all they need supply the others.
func (s *supply) settle(ctx context.Context) error {
	for {
		i := slices.IndexFunc(s.lacking, func(b *dedupe.Bundle) bool { return b.Complete() == nil })
		if i < 0 {
			return nil
		}
		b := s.lacking[i]
		s.lacking = slices.Delete(s.lacking, i, i+1)
		if s.missing() == nil {
			return nil
		}
		entries, err := entriesOf(ctx, b)
		if err != nil {
			return err
		}
		if err := s.give(ctx, entries); err != nil {
			return err
		}
	}
}

// entriesOf is every image of a source.
func entriesOf(ctx context.Context, src archive.Source) ([]manifests.Entry, error) {
	roots, err := src.Roots(ctx)
	if err != nil {
		return nil, err
	}
	return manifests.Entries(src, roots), nil
}

// supplyInputs offers the inputs that are no deltas: what is in files in full,
// of registries the platforms that are asked for.
func (o *opener) supplyInputs(ctx context.Context, s *supply, in *inputs) error {
	var files []archive.Source
	chosen := &inputs{}
	for _, f := range in.found {
		src, ok := f.Source.(archive.Source)
		switch b, bundle := f.Source.(*dedupe.Bundle); {
		case bundle && slices.Contains(s.lacking, b):
		case ok && !f.fromRemote && src != archive.Source(o.store):
			if !slices.Contains(files, src) {
				files = append(files, src)
			}
		default:
			chosen.found = append(chosen.found, f)
		}
	}
	for _, src := range files {
		entries, err := entriesOf(ctx, src)
		if err != nil {
			return err
		}
		if err := s.give(ctx, entries); err != nil {
			return err
		}
	}
	if err := o.app.choosePlatforms(ctx, chosen, o.policy); err != nil {
		return err
	}
	return s.give(ctx, chosen.entries())
}

// supplyBases offers what --base names. Deltas among it need bases too.
func (o *opener) supplyBases(ctx context.Context, s *supply) error {
	if len(o.policy.bases.list) == 0 {
		return nil
	}
	policy := o.policy
	policy.bases, policy.apart = baseFlags{}, true
	for _, text := range o.policy.bases.list {
		if err := refuseReceipt(text); err != nil {
			return err
		}
	}
	bases, err := o.app.openInputs(ctx, o.policy.bases.list, policy)
	if err != nil {
		return err
	}
	o.bases = bases
	before := len(s.lacking)
	s.find(bases)
	for _, b := range s.lacking[before:] {
		for _, g := range s.given {
			b.Supply(g)
		}
	}
	return o.supplyInputs(ctx, s, bases)
}

// supplyStore offers the images of the store; one that cannot be read is
// passed over, for it may not be what is needed.
func (o *opener) supplyStore(ctx context.Context, s *supply) error {
	entries, err := entriesOf(ctx, o.store)
	if err != nil {
		return err
	}
	if s.give(ctx, entries) == nil {
		return nil
	}
	for _, e := range entries {
		if err := s.give(ctx, []manifests.Entry{e}); err != nil {
			if ctx.Err() != nil {
				return err
			}
			o.app.verbose("%s of the store is no base: %v", e.Root.Display(), err)
		}
	}
	return nil
}

// deltas are the bundles among the inputs that lean on others.
func (in *inputs) deltas() []*dedupe.Bundle {
	var s supply
	s.find(in)
	return s.lacking
}
