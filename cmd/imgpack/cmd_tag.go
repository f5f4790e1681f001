package main

import (
	"context"
	"errors"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/manifests"
)

func newTagCommand(a *app) *cobra.Command {
	return a.command(spec{
		use: "tag IMAGE NAME[:TAG]", group: groupKeep, short: "give an image of the store another name",
		examples: "imgpack tag nginx:1.27 registry.lan/web/nginx:1.27",
		exits:    []int{codeNotFound},
		complete: a.completeImages,
		run: func(ctx context.Context, args []string) error {
			if len(args) != 2 {
				return usagef("tag takes two names: IMAGE and NAME[:TAG]")
			}
			return a.tag(ctx, args[0], args[1])
		},
	}, nil)
}

func (a *app) tag(ctx context.Context, from, to string) error {
	src, err := a.storeName(from)
	if err != nil {
		return err
	}
	dst, err := a.storeName(to)
	if err != nil {
		return err
	}
	store, err := archive.OpenStore(a.g.store)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Tag(ctx, src, dst); err != nil {
		return &failure{Op: "tag", Subject: from, Err: err}
	}
	root, err := store.Resolve(dst)
	if err != nil {
		return err
	}
	doc := tagDoc{kind("tag"), src.String(), dst.String(), root.Descriptor.Digest}
	return show(a, listing[tagDoc]{doc: doc, items: []tagDoc{doc}, name: func(d tagDoc) string { return d.Ref }, human: nothing, quiet: nothing})
}

type tagDoc struct {
	envelope
	Source string        `json:"source"`
	Ref    string        `json:"ref"`
	Digest digest.Digest `json:"digest"`
}

// storeName reads the name of an image of the store.
func (a *app) storeName(text string) (manifests.Name, error) {
	ref, err := a.parseReference(text)
	if err != nil {
		return manifests.Name{}, err
	}
	if ref.Transport != manifests.Auto && ref.Transport != manifests.Store {
		return manifests.Name{}, usagef("%s is not the name of an image in the store", text).hint("load it first: imgpack load %s", text)
	}
	return ref.Name, nil
}

type rmiOptions struct{ force bool }

func (o *rmiOptions) add(fs *pflag.FlagSet) {
	group(fs, groupSafety, func(fs *pflag.FlagSet) {
		fs.BoolVarP(&o.force, "force", "f", false, "remove all names of an image given by its ID, and the name of one that a container is made of")
	})
}

func newRmiCommand(a *app) *cobra.Command {
	var o rmiOptions
	return a.command(spec{
		use: "rmi [flags] IMAGE...", group: groupKeep, short: "remove images from the store",
		long:     "The space is freed by imgpack gc.",
		examples: "imgpack rmi nginx:1.27\nimgpack rmi -f 39286ab8a5e1",
		exits:    []int{codeNotFound, codeConflict},
		complete: a.completeImages,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

// usedError says that a container is made of an image.
type usedError struct{ container string }

func (e *usedError) Error() string { return "container " + e.container + " is made of it" }

// unused refuses to remove the last name of an image that a container is made
// of, as docker does. With -f that container keeps its layers.
func (o *rmiOptions) unused(a *app, r archive.Removed) error {
	if o.force || !r.Last {
		return nil
	}
	dir, err := a.containers()
	if err != nil {
		return err
	}
	all, err := dir.List()
	if err != nil {
		return err
	}
	if name := usedBy(all, r.Digest); name != "" {
		return &manifests.ConflictError{Subject: "image " + shownName(r), Err: &usedError{name}}
	}
	return nil
}

func shownName(r archive.Removed) string {
	if r.Name.IsZero() {
		return string(r.Digest)
	}
	return r.Name.Familiar()
}

type removedItem struct {
	Ref    string        `json:"ref"`
	Digest digest.Digest `json:"digest"`
	Last   bool          `json:"deleted"`
	name   manifests.Name
}

func (o *rmiOptions) run(ctx context.Context, a *app, args []string) error {
	if len(args) == 0 {
		return usagef("rmi needs at least one IMAGE")
	}
	store, err := archive.OpenStore(a.g.store)
	if err != nil {
		return err
	}
	defer store.Close()
	removed, err := store.Remove(ctx, args, o.force, func(r archive.Removed) error { return o.unused(a, r) })
	if err != nil {
		f := &failure{Op: "rmi", Subject: args[0], Kept: "the store is as it was", Err: err}
		if c, ok := errors.AsType[*manifests.ConflictError](err); ok && is[*usedError](err) {
			f.Hint = "imgpack rm removes the container; -f removes the name all the same"
		} else if ok && strings.HasPrefix(c.Subject, "image ") {
			f.Hint = "-f removes them all"
		}
		return f
	}
	items := []removedItem{}
	for _, r := range removed {
		it := removedItem{Digest: r.Digest, Last: r.Last, name: r.Name}
		if it.Ref = r.Name.String(); r.Name.IsZero() {
			it.Ref = string(r.Digest)
		}
		items = append(items, it)
	}
	return show(a, listing[removedItem]{
		doc: listDoc[removedItem]{kind("rmi"), items}, items: items,
		name: func(r removedItem) string { return r.Ref },
		human: func() error {
			for _, r := range items {
				if !r.name.IsZero() {
					if err := a.printf("Untagged: %s\n", r.name.Familiar()); err != nil {
						return err
					}
				}
				if r.Last {
					if err := a.printf("Deleted: %s\n", r.Digest); err != nil {
						return err
					}
				}
			}
			return nil
		},
	})
}
