package main

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/manifests"
)

type inspectOptions struct {
	raw      string
	platform platformFlag
	registry registryFlags
}

func (o *inspectOptions) add(fs *pflag.FlagSet) {
	o.platform.add(fs, "`LIST` of os/arch[/variant], local, all; what a file holds is shown whole unless given")
	group(fs, groupOutput, func(fs *pflag.FlagSet) {
		fs.StringVar(&o.raw, "raw", "", "print the exact bytes of one `DOCUMENT`: manifest, config or index")
	})
	o.registry.add(fs)
}

func newInspectCommand(a *app) *cobra.Command {
	var o inspectOptions
	return a.command(spec{
		use: "inspect [flags] SOURCE|CONTAINER...", group: groupLook, short: "show all there is to know of images and containers",
		long: "Prints a JSON array with docker's field names; -f runs a template on each item.\nContainers, by name or at least 12 digits of the ID, come first; a name with a tag\nis an image's.",
		examples: "imgpack inspect nginx:1.27\n" +
			"imgpack inspect -f '{{.Config.Cmd}} {{.Architecture}}' site.imgpack//nginx:1.27\n" +
			"imgpack inspect -f '{{.State.ExitCode}}' web\n" +
			"imgpack inspect --raw manifest nginx:1.27 | sha256sum",
		exits:       []int{codeNo, codeNotFound, codeUnreachable},
		complete:    a.completeSourcesOrContainer,
		formatShort: "f",
		run:         func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

// inspected is an image as docker inspect shows it, and what docker has no
// word for at the end.
type inspected struct {
	ID           digest.Digest      `json:"Id"`
	RepoTags     []string           `json:"RepoTags"`
	RepoDigests  []string           `json:"RepoDigests"`
	Comment      string             `json:"Comment,omitempty"`
	Created      *time.Time         `json:"Created"`
	Author       string             `json:"Author"`
	Config       map[string]any     `json:"Config"`
	Architecture string             `json:"Architecture"`
	Variant      string             `json:"Variant,omitempty"`
	Os           string             `json:"Os"`
	Size         int64              `json:"Size"`
	RootFS       inspectedRootFS    `json:"RootFS"`
	Descriptor   ocispec.Descriptor `json:"Descriptor"`
	IndexDigest  digest.Digest      `json:"IndexDigest,omitempty"`
	DigestState  manifests.State    `json:"DigestState"`
	Layers       []inspectedLayer   `json:"Layers"`
}

// Id is ID as docker spells it in templates.
func (i inspected) Id() digest.Digest { return i.ID }

type inspectedRootFS struct {
	Type   string
	Layers []digest.Digest
}

type inspectedLayer struct {
	Digest    digest.Digest
	DiffID    digest.Digest
	Size      int64
	MediaType string
	Stored    string `json:",omitempty"` // in a bundle of chunk mode: open, stream, carried or needed
	Own       *int64 `json:",omitempty"` // bytes of an open layer's content that no other has
	Shared    *int64 `json:",omitempty"` // what others have too
	FromBase  int64  `json:",omitempty"` // what is taken from the base of a delta
	Recipe    int64  `json:",omitempty"` // bytes stored beside its content to compress it again
	Encoder   string `json:",omitempty"` // what is thought to have compressed it
}

func (o *inspectOptions) run(ctx context.Context, a *app, args []string) error {
	if len(args) == 0 {
		return usagef("inspect needs at least one SOURCE")
	}
	policy := sourcePolicy{platform: o.platform, registry: &o.registry, documents: true}
	if o.raw != "" {
		in, err := a.openInputs(ctx, args, policy)
		if err != nil {
			return &failure{Op: "inspect", Subject: args[0], Err: err}
		}
		defer in.Close()
		return o.printRaw(ctx, a, in, args[0])
	}
	items, images, err := a.containersAmong(args)
	if err != nil {
		return err
	}
	if len(images) > 0 {
		more, err := o.images(ctx, a, images, policy)
		if err != nil {
			return err
		}
		items = append(items, more...)
	}
	return show(a, listing[any]{doc: items, items: items,
		name:  inspectedName,
		human: func() error { return a.printJSON(items) },
		quiet: func() error { return a.printJSON(items) },
	})
}

// images are the images that words name.
func (o *inspectOptions) images(ctx context.Context, a *app, words []string, policy sourcePolicy) (items []any, err error) {
	in, err := a.openInputs(ctx, words, policy)
	if err != nil {
		return nil, &failure{Op: "inspect", Subject: words[0], Err: err}
	}
	defer in.Close()
	if err := a.choosePlatforms(ctx, in, policy); err != nil {
		return nil, &failure{Op: "inspect", Subject: in.subject(), Err: err}
	}
	graph, err := manifests.NewGraph(ctx, in.entries(), a.g.parallel)
	if err != nil {
		return nil, &failure{Op: "inspect", Subject: in.subject(), Err: err}
	}
	for _, f := range in.found {
		storage, err := storageIn(ctx, f.Source)
		if err != nil {
			return nil, &failure{Op: "inspect", Subject: f.requested, Err: err}
		}
		for _, img := range graph.Images(f.Root) {
			it, err := inspectImage(f.Root, img)
			if err != nil {
				return nil, err
			}
			for i := range it.Layers {
				s := storage[it.Layers[i].Digest]
				l := &it.Layers[i]
				l.Stored, l.Own, l.Shared, l.FromBase = s.Stored, s.Own, s.Shared, s.FromBase
				l.Recipe, l.Encoder = s.Recipe, s.Encoder
			}
			items = append(items, it)
		}
	}
	a.noteDeltas(in)
	return items, nil
}

func inspectImage(r manifests.Root, img *manifests.Image) (inspected, error) {
	var raw struct {
		Config  map[string]any `json:"config"`
		Comment string         `json:"comment"`
	}
	dec := json.NewDecoder(bytes.NewReader(img.RawConfig))
	dec.UseNumber()
	if err := dec.Decode(&raw); err != nil {
		return inspected{}, manifests.Bad(manifests.KindMalformed, "config "+string(img.ID()), "%w", err)
	}
	p := img.Platform()
	d := img.Descriptor
	d.Annotations, d.Data, d.URLs = nil, nil, nil
	it := inspected{
		ID: img.ID(), RepoTags: []string{}, RepoDigests: repoDigests(r, img), Comment: raw.Comment, Created: img.Config.Created, Author: img.Config.Author,
		Config: raw.Config, Architecture: p.Architecture, Variant: p.Variant, Os: p.OS, Size: img.Size(),
		RootFS: inspectedRootFS{Type: "layers", Layers: img.Config.RootFS.DiffIDs}, Descriptor: d, IndexDigest: r.Index, DigestState: r.State(),
		Layers: []inspectedLayer{},
	}
	if tagged, ok := r.Name.Tagged(); ok && !r.Name.IsZero() {
		it.RepoTags = append(it.RepoTags, tagged.Familiar())
	}
	for _, l := range img.Layers {
		it.Layers = append(it.Layers, inspectedLayer{Digest: l.Blob.Digest, DiffID: l.DiffID, Size: l.Blob.Size, MediaType: l.Blob.MediaType})
	}
	return it, nil
}

// repoDigests are the digests under which a registry has, or had, the image.
func repoDigests(r manifests.Root, img *manifests.Image) []string {
	out := []string{}
	if r.Name.IsZero() || r.Rebuilt {
		return out
	}
	for _, d := range []digest.Digest{r.Index, r.Descriptor.Digest, img.Descriptor.Digest} {
		text := r.Name.FamiliarRepository() + "@" + string(d)
		if d != "" && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// printRaw prints the bytes that a digest names, as they are; on a terminal
// what a terminal might obey is escaped.
func (o *inspectOptions) printRaw(ctx context.Context, a *app, in *inputs, text string) error {
	raw, err := o.rawDocument(ctx, a, in, text)
	if err != nil {
		return &failure{Op: "inspect", Subject: text, Err: err}
	}
	if a.outTerminal {
		raw = append(plainJSON(raw), '\n')
	}
	_, err = a.Out.Write(raw)
	return err
}

func (o *inspectOptions) rawDocument(ctx context.Context, a *app, in *inputs, text string) ([]byte, error) {
	switch o.raw {
	case "index":
		if len(in.found) != 1 {
			return nil, usagef("--raw takes one image")
		}
		f := in.found[0]
		if !manifests.IsIndex(f.Root.Descriptor.MediaType) {
			return nil, &manifests.NotFoundError{Subject: "index", In: printable(text)}
		}
		return manifests.ReadDocument(ctx, f.Source, f.Root.Descriptor)
	case "manifest", "config":
		img, _, err := a.oneImage(ctx, in, text, sourcePolicy{platform: o.platform, registry: &o.registry, onePlatform: true})
		if err != nil {
			return nil, err
		}
		if o.raw == "config" {
			return img.RawConfig, nil
		}
		return img.RawManifest, nil
	}
	return nil, usagef("--raw is manifest, config or index, not %q", o.raw)
}
