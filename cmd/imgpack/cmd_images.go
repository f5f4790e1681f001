package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

type imagesOptions struct {
	all      bool
	digests  bool
	receipt  string
	platform platformFlag
	registry registryFlags
}

func (o *imagesOptions) add(fs *pflag.FlagSet) {
	o.platform.add(fs, "`LIST` of os/arch[/variant], local, all: of images in a registry (default: local)")
	group(fs, groupOutput, func(fs *pflag.FlagSet) {
		fs.BoolVar(&o.digests, "digests", false, "show digests, and what became of them: exact, platform or rebuilt")
		fs.StringVar(&o.receipt, "receipt", "", "also write a receipt to `FILE`: what is here, for pack --since on the other side")
		fs.BoolVarP(&o.all, "all", "a", false, "as with docker; there are no hidden images here")
	})
	o.registry.add(fs)
}

func newImagesCommand(a *app) *cobra.Command {
	var o imagesOptions
	return a.command(spec{
		use: "images [flags] [NAME | SOURCE...]", aliases: []string{"ls"}, group: groupLook, short: "list images of the store, of files or of a registry",
		long:     "SIZE is what an image takes stored, UNIQUE what no other in the list shares.\nNAME without a tag lists all tags of a repository, as with docker; a registry is\nasked for docker://NAME alone. A receipt reads all layers, and replaces FILE.",
		examples: "imgpack images\nimgpack images site.imgpack --digests\nimgpack images -q\nimgpack images --receipt store.receipt\nimgpack images --receipt lan.receipt docker://registry.lan/shop/api:2.3.1",
		exits:    []int{codeNo, codeNotFound, codeDenied, codeUnreachable, codeNoSpace},
		complete: a.completeSources,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

// imageItem is one image of a list. Exported fields and methods are what
// --format templates see; those docker has, have docker's names.
type imageItem struct {
	Ref         string            `json:"ref"`
	Repository  string            `json:"repository"`
	Tag         string            `json:"tag"`
	Digest      digest.Digest     `json:"digest"`
	IndexDigest digest.Digest     `json:"indexDigest,omitempty"`
	State       manifests.State   `json:"digestState"`
	ImageID     digest.Digest     `json:"imageId"`
	Platform    string            `json:"platform"`
	Created     *time.Time        `json:"created"`
	Bytes       int64             `json:"bytes"`
	UniqueBytes int64             `json:"uniqueBytes"`
	Layers      int               `json:"layers"`
	Labels      map[string]string `json:"labels"`
	root        manifests.Root
	a           *app
}

// ID is the image ID as docker shows it.
func (i imageItem) ID() string { return i.a.short(string(i.ImageID)) }

// Size is the stored size for people.
func (i imageItem) Size() string { return i.a.size(i.Bytes) }

// UniqueSize is what no other image of the list shares.
func (i imageItem) UniqueSize() string { return i.a.size(i.UniqueBytes) }

// CreatedAt is the time of creation.
func (i imageItem) CreatedAt() string {
	if i.Created == nil {
		return "N/A"
	}
	return i.Created.UTC().Format("2006-01-02 15:04:05 -0700 MST")
}

// CreatedSince is how long ago that was.
func (i imageItem) CreatedSince() string {
	if i.Created == nil {
		return "N/A"
	}
	return ago(i.a.now(), *i.Created)
}

func (o *imagesOptions) run(ctx context.Context, a *app, args []string) error {
	in, err := o.list(ctx, a, args)
	if err != nil {
		return &failure{Op: "images", Err: err}
	}
	defer in.Close()
	graph, err := manifests.NewGraph(ctx, in.entries(), a.g.parallel)
	if err != nil {
		return &failure{Op: "images", Err: err}
	}
	items := []imageItem{}
	for _, f := range in.found {
		items = append(items, imageRowOf(a, graph, f.Root))
	}
	countUnique(graph, items)
	a.noteDeltas(in)
	if err := o.writeReceipt(ctx, a, in, graph, args); err != nil {
		return &failure{Op: "images", Subject: o.receipt, Message: "cannot write the receipt " + quote.Clean(o.receipt), Err: err}
	}
	return show(a, listing[imageItem]{
		doc: listDoc[imageItem]{kind("images"), items}, items: items,
		name:  func(i imageItem) string { return i.Ref },
		human: func() error { return o.table(a, items) },
		quiet: func() error { return printEach(a, items, imageItem.ID) },
	})
}

// writeReceipt writes down what was listed.
func (o *imagesOptions) writeReceipt(ctx context.Context, a *app, in *inputs, graph *manifests.Graph, args []string) error {
	switch {
	case o.receipt == "":
		return nil
	case len(in.found) == 0:
		return &manifests.NotFoundError{Subject: "image to write a receipt of"}
	}
	name := "the store"
	if len(args) > 0 {
		name = args[0]
	}
	if len(args) > 1 {
		name = fmt.Sprintf("%s and %d more", name, len(args)-1)
	}
	base, err := a.newBase(ctx, graph, a.baseID(in, name), false)
	if err != nil {
		return err
	}
	n, err := writeReceipt(o.receipt, base)
	if err == nil {
		a.note("receipt: %s (%s); on the other side: imgpack pack --since %s", quote.Clean(o.receipt), a.size(n), quote.Clean(o.receipt))
	}
	return err
}

// list opens what is to be listed: the store, narrowed by a name as docker
// does, or what is given.
func (o *imagesOptions) list(ctx context.Context, a *app, args []string) (*inputs, error) {
	if len(args) == 0 {
		return a.openStoreAll(ctx)
	}
	for _, text := range args {
		ref, err := a.parseReference(text)
		switch {
		case err != nil:
			return nil, err
		case ref.Transport == manifests.Auto && len(args) == 1:
			return o.narrowed(ctx, a, text, ref.Name)
		case ref.Transport == manifests.Auto:
			e := usagef("images takes one NAME, or SOURCEs")
			return nil, e.hint("of the store: store:%s; of its registry: docker://%s", text, text)
		}
	}
	policy := sourcePolicy{platform: o.platform, registry: &o.registry, documents: o.receipt == ""}
	in, err := a.openInputs(ctx, args, policy)
	if err != nil || !in.anyRemote() {
		return in, err
	}
	if err := a.choosePlatforms(ctx, in, policy); err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

// narrowed is what the store has under a name.
func (o *imagesOptions) narrowed(ctx context.Context, a *app, text string, name manifests.Name) (*inputs, error) {
	in, err := a.openStoreAll(ctx)
	if err != nil {
		return nil, err
	}
	tagged := name.Digest != "" || strings.HasSuffix(text, ":"+name.Tag)
	in.filter(func(r manifests.Root) bool {
		return r.Name.Repository() == name.Repository() && (!tagged || r.Name.Tag == name.Tag && (name.Digest == "" || r.Descriptor.Digest == name.Digest || r.Index == name.Digest))
	})
	return in, nil
}

// openStoreAll gives every image of the store.
func (a *app) openStoreAll(ctx context.Context) (*inputs, error) {
	store, err := archive.OpenStore(a.g.store)
	if err != nil {
		return nil, err
	}
	roots, err := store.Roots(ctx)
	if err != nil {
		store.Close()
		return nil, err
	}
	in := &inputs{close: []func() error{store.Close}}
	for _, r := range roots {
		in.found = append(in.found, found{Entry: manifests.Entry{Source: store, Root: r}})
	}
	return in, nil
}

const noneText = "<none>" // docker's

func imageRowOf(a *app, g *manifests.Graph, r manifests.Root) imageItem {
	images := g.Images(r)
	it := imageItem{
		Ref: refOf(r), Repository: noneText, Tag: noneText, Digest: r.Descriptor.Digest, IndexDigest: r.Index, State: r.State(),
		ImageID: r.Descriptor.Digest, Platform: platformsOf(images), Labels: map[string]string{}, root: r, a: a,
	}
	if !r.Name.IsZero() {
		it.Repository = r.Name.FamiliarRepository()
		if r.Name.Tag != "" {
			it.Tag = r.Name.Tag
		}
	} else if r.Label != "" {
		it.Tag = quote.Clean(r.Label)
	}
	if len(images) == 1 && !manifests.IsIndex(r.Descriptor.MediaType) {
		it.ImageID = images[0].ID()
	}
	for _, img := range images {
		it.Layers += len(img.Layers)
		if it.Created == nil && img.Config.Created != nil && img.Config.Created.Unix() > 0 {
			t := img.Config.Created.UTC()
			it.Created = &t
		}
		for k, v := range img.Config.Config.Labels {
			it.Labels[k] = v
		}
	}
	for _, size := range blobsOf(g, r) {
		it.Bytes += size
	}
	return it
}

// blobsOf is every blob a root needs, and its size.
func blobsOf(g *manifests.Graph, r manifests.Root) map[digest.Digest]int64 {
	sizes := map[digest.Digest]int64{r.Descriptor.Digest: r.Descriptor.Size}
	for _, img := range g.Images(r) {
		sizes[img.Descriptor.Digest] = img.Descriptor.Size
		sizes[img.Manifest.Config.Digest] = img.Manifest.Config.Size
		for _, l := range img.Layers {
			sizes[l.Blob.Digest] = l.Blob.Size
		}
	}
	return sizes
}

func countUnique(g *manifests.Graph, items []imageItem) {
	users := map[digest.Digest]int{}
	for _, it := range items {
		for d := range blobsOf(g, it.root) {
			users[d]++
		}
	}
	for i := range items {
		for d, size := range blobsOf(g, items[i].root) {
			if users[d] == 1 {
				items[i].UniqueBytes += size
			}
		}
	}
}

func (o *imagesOptions) table(a *app, items []imageItem) error {
	columns := []column{{head: "REPOSITORY"}, {head: "TAG"}}
	if o.digests {
		columns = append(columns, column{head: "DIGEST"}, column{head: "STATE", drop: 1})
	}
	columns = append(columns, column{head: "IMAGE ID", drop: 2}, column{head: "PLATFORM", drop: 3, max: 30}, column{head: "CREATED", drop: 4},
		column{head: "SIZE", right: true}, column{head: "UNIQUE", right: true, drop: 5})
	t := newTable(columns...)
	for _, i := range items {
		cells := []string{i.Repository, i.Tag}
		if o.digests {
			cells = append(cells, string(i.Digest), string(i.State))
		}
		t.add(slices.Concat(cells, []string{i.ID(), i.Platform, i.CreatedSince(), i.Size(), i.UniqueSize()})...)
	}
	return t.write(a.Out, a.tableWidth(), true)
}
