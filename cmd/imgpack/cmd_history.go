package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/manifests"
)

type historyOptions struct {
	platform platformFlag
	registry registryFlags
}

func (o *historyOptions) add(fs *pflag.FlagSet) {
	o.platform.add(fs, "`OS/ARCH`[/VARIANT] (default: local)")
	o.registry.add(fs)
}

func newHistoryCommand(a *app) *cobra.Command {
	var o historyOptions
	return a.command(spec{
		use: "history [flags] IMAGE", group: groupLook, short: "show how an image was built, layer by layer",
		long:     "SIZE is that of the layer as stored, that is, compressed.",
		examples: "imgpack history nginx:1.27\nimgpack history --no-trunc site.imgpack//nginx:1.27",
		exits:    []int{codeNo, codeNotFound},
		complete: a.completeOneImage,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

// historyItem is one step; the names templates see are docker's.
type historyItem struct {
	Created   *time.Time    `json:"created"`
	CreatedBy string        `json:"createdBy"`
	Comment   string        `json:"comment"`
	Empty     bool          `json:"emptyLayer"`
	Layer     digest.Digest `json:"layer,omitempty"`
	DiffID    digest.Digest `json:"diffId,omitempty"`
	Bytes     int64         `json:"bytes"`
	id        string
	a         *app
}

// ID is the image ID on the newest step, and docker's <missing> on others.
func (h historyItem) ID() string { return h.id }

// Size is the size of the layer for people.
func (h historyItem) Size() string { return h.a.size(h.Bytes) }

// CreatedSince is how long ago the step was.
func (h historyItem) CreatedSince() string {
	if h.Created == nil {
		return "N/A"
	}
	return ago(h.a.now(), *h.Created)
}

// CreatedAt is when the step was.
func (h historyItem) CreatedAt() string {
	if h.Created == nil {
		return "N/A"
	}
	return h.Created.UTC().Format(time.RFC3339)
}

func (o *historyOptions) run(ctx context.Context, a *app, args []string) error {
	if len(args) != 1 {
		return usagef("history takes one IMAGE")
	}
	img, _, in, err := a.openImage(ctx, args[0], sourcePolicy{platform: o.platform, registry: &o.registry, documents: true})
	if err != nil {
		return &failure{Op: "history", Subject: args[0], Err: err}
	}
	defer in.Close()
	items := historyOf(a, img)
	return show(a, listing[historyItem]{
		doc: listDoc[historyItem]{kind("history"), items}, items: items,
		name: func(h historyItem) string { return h.id },
		human: func() error {
			t := newTable(column{head: "IMAGE", drop: 2}, column{head: "CREATED", drop: 3}, column{head: "CREATED BY", max: 45}, column{head: "SIZE", right: true}, column{head: "LAYER", drop: 4}, column{head: "COMMENT", drop: 1, max: 30})
			for _, h := range items {
				t.add(h.id, h.CreatedSince(), h.CreatedBy, h.Size(), a.short(string(h.Layer)), h.Comment)
			}
			return t.write(a.Out, a.tableWidth(), true)
		},
	})
}

// historyOf pairs the steps of the config with the layers, newest first. A
// config may tell less than there are layers, or more.
func historyOf(a *app, img *manifests.Image) []historyItem {
	var items []historyItem
	next := 0
	layer := func(h *historyItem) {
		if next < len(img.Layers) {
			l := img.Layers[next]
			h.Layer, h.DiffID, h.Bytes = l.Blob.Digest, l.DiffID, l.Blob.Size
			next++
		}
	}
	for _, step := range img.Config.History {
		h := historyItem{Created: step.Created, CreatedBy: strings.Join(strings.Fields(step.CreatedBy), " "), Comment: step.Comment, Empty: step.EmptyLayer, id: "<missing>", a: a}
		if !step.EmptyLayer {
			layer(&h)
		}
		items = append(items, h)
	}
	for next < len(img.Layers) {
		h := historyItem{id: "<missing>", a: a}
		layer(&h)
		items = append(items, h)
	}
	slices.Reverse(items)
	if len(items) > 0 {
		items[0].id = a.short(string(img.ID()))
	}
	return items
}
