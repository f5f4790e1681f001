package main

import (
	"context"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/sandbox/container"
	"github.com/imgpack/imgpack/unpack"
)

// pathItem is a path that a container has changed.
type pathItem struct {
	Kind string `json:"kind"` // A, C or D
	Path string `json:"path"`
}

// container lists what a container has changed, as docker does.
func (o *diffOptions) container(ctx context.Context, a *app, text string) error {
	if done, err := a.enterToRead(ctx, "diff", text); done || err != nil {
		return err
	}
	c, err := a.findContainer(text)
	if err != nil {
		return a.containerFailure("diff", text, err)
	}
	list, err := a.listChanges(ctx, c)
	if err != nil {
		return &failure{Op: "diff", Subject: text, Message: "cannot list what " + printable(text) + " has changed", Err: err}
	}
	items := []pathItem{}
	for _, p := range list {
		items = append(items, pathItem{p.Letter, quote.Clean("/" + p.Path)})
	}
	return show(a, listing[pathItem]{
		doc: listDoc[pathItem]{kind("containerDiff"), items}, items: items,
		name: func(p pathItem) string { return p.Path },
		human: func() error {
			for _, p := range items {
				if err := a.printf("%s %s\n", p.Kind, p.Path); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

func (a *app) listChanges(ctx context.Context, c *container.Container) ([]unpack.PathChange, error) {
	changes, err := a.openChanges(ctx, c, unpack.ChangesOptions{})
	if err != nil {
		return nil, err
	}
	defer changes.Close()
	return changes.List(ctx)
}
