package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/sandbox/container"
)

type gcOptions struct{ dryRun bool }

func (o *gcOptions) add(fs *pflag.FlagSet) {
	group(fs, groupSafety, func(fs *pflag.FlagSet) {
		fs.BoolVar(&o.dryRun, "dry-run", false, "say what would be freed, and free nothing")
	})
}

func newGCCommand(a *app) *cobra.Command {
	var o gcOptions
	return a.command(spec{
		use: "gc [flags]", aliases: []string{"prune"}, group: groupKeep, short: "free what no image and no container needs",
		long:     "Removes blobs, unpacked layers, and what killed runs left. Layers of containers\nstay. It never runs by itself.",
		examples: "imgpack gc --dry-run\nimgpack gc",
		exits:    []int{codeDenied, codeConflict},
		run: func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return usagef("gc takes no arguments")
			}
			return o.run(ctx, a)
		},
	}, o.add)
}

type gcDoc struct {
	envelope
	DryRun bool  `json:"dryRun"`
	Blobs  int   `json:"blobs"`
	Layers int   `json:"layers"` // unpacked
	Temps  int   `json:"leftovers"`
	Bytes  int64 `json:"bytes"`
}

func (o *gcOptions) run(ctx context.Context, a *app) error {
	store, err := archive.OpenStore(a.g.store)
	if err != nil {
		return err
	}
	defer store.Close()
	parts, left, done, err := a.gcParts(ctx, store, o.dryRun)
	if done || err != nil {
		return err
	}
	res, err := store.GC(ctx, archive.GCOptions{DryRun: o.dryRun})
	if err != nil {
		return &failure{Op: "gc", Subject: store.Dir(), Err: err}
	}
	doc := gcDoc{kind("gc"), o.dryRun, res.Blobs, 0, res.Temps, res.Bytes}
	dir, err := a.containers()
	if err != nil {
		return err
	}
	release, err := dir.Hold() // so that no container is made of what is being freed
	if err != nil {
		return err
	}
	defer release()
	all, err := dir.List()
	if err != nil {
		return err
	}
	for _, p := range parts {
		p.used = layersInUse(all, p.ids)
		if err := p.collect(ctx, res.KeepDiffIDs, &doc); err != nil {
			left = &failure{Op: "gc", Subject: p.layers, Message: "cannot free " + quote.Clean(p.layers), Hint: p.hint, Err: err}
			break
		}
	}
	if !o.dryRun {
		n, err := dir.Sweep(func(cfg container.Config) bool { return cfg.IDs == "" || cfg.IDs == a.idsHere() })
		doc.Temps += n
		left = errors.Join(left, err)
	}
	return errors.Join(o.show(a, doc), left)
}

func (o *gcOptions) show(a *app, doc gcDoc) error {
	return show(a, listing[gcDoc]{doc: doc, items: []gcDoc{doc},
		name: func(d gcDoc) string { return a.size(d.Bytes) },
		human: func() error {
			words := "freed"
			if o.dryRun {
				words = "would free"
			}
			return a.printf("%s %s: %s, %s, %s\n", words, a.size(doc.Bytes), count(doc.Blobs, "blob"), count(doc.Layers, "unpacked layer"), count(doc.Temps, "left-over"))
		},
	})
}
