package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/manifests"
)

type treeOptions struct {
	platform platformFlag
	registry registryFlags
}

func (o *treeOptions) add(fs *pflag.FlagSet) {
	o.platform.add(fs, "`LIST` of os/arch[/variant], local, all; what a file holds is shown whole unless given")
	o.registry.add(fs)
}

func newTreeCommand(a *app) *cobra.Command {
	var o treeOptions
	return a.command(spec{
		use: "tree [flags] [SOURCE...]", group: groupLook, short: "show layers, their sizes, and what images share",
		long:     "Without a SOURCE it shows the store. Of a bundle in chunk mode it also shows how\nmuch of a layer's content no other layer has. --no-trunc shows small layers too.",
		examples: "imgpack tree site.imgpack\nimgpack tree nginx:1.27 redis:7.4\nimgpack tree --json site.imgpack",
		exits:    []int{codeNo, codeNotFound, codeUnreachable},
		complete: a.completeSources,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

type treeDoc struct {
	envelope
	Sources []string    `json:"sources"`
	Bytes   int64       `json:"bytes"`         // of all, each blob once; of a bundle, the file
	Apart   int64       `json:"separateBytes"` // of the images one by one
	Items   []treeImage `json:"items"`
}

type treeImage struct {
	Ref      string        `json:"ref"`
	Platform string        `json:"platform"`
	Digest   digest.Digest `json:"digest"`
	Bytes    int64         `json:"bytes"`
	Layers   []treeLayer   `json:"layers"`
	display  string
}

type treeLayer struct {
	Digest    digest.Digest `json:"digest"`
	DiffID    digest.Digest `json:"diffId"`
	Bytes     int64         `json:"bytes"`
	CreatedBy string        `json:"createdBy"`
	SharedBy  []string      `json:"sharedBy"` // other images of the tree
	layerStorage
	first string // the image above that shows the layer; "" if none does
	users []string
}

func (o *treeOptions) run(ctx context.Context, a *app, args []string) error {
	policy := sourcePolicy{platform: o.platform, registry: &o.registry, documents: true}
	in, err := o.open(ctx, a, args, policy)
	if err != nil {
		return &failure{Op: "tree", Subject: strings.Join(args, " "), Err: err}
	}
	defer in.Close()
	graph, err := manifests.NewGraph(ctx, in.entries(), a.g.parallel)
	if err != nil {
		return &failure{Op: "tree", Subject: in.subject(), Err: err}
	}
	doc, err := newTree(ctx, graph, in)
	if err != nil {
		return &failure{Op: "tree", Subject: in.subject(), Err: err}
	}
	if doc.Sources = args; len(args) == 0 {
		doc.Sources = []string{"the store"}
	}
	a.noteDeltas(in)
	return show(a, listing[treeImage]{doc: doc, items: doc.Items,
		name:  func(i treeImage) string { return i.Ref },
		human: func() error { return doc.draw(a) },
	})
}

func (o *treeOptions) open(ctx context.Context, a *app, args []string, policy sourcePolicy) (*inputs, error) {
	if len(args) == 0 {
		return a.openStoreAll(ctx)
	}
	return a.openChosen(ctx, args, policy)
}

func newTree(ctx context.Context, g *manifests.Graph, in *inputs) (*treeDoc, error) {
	doc := &treeDoc{envelope: kind("tree"), Bytes: g.Size(), Items: []treeImage{}}
	var storage map[digest.Digest]layerStorage
	if b, ok := in.container().(*dedupe.Bundle); ok {
		doc.Bytes = b.Info().Size
		var err error
		if storage, err = storageIn(ctx, b); err != nil {
			return nil, err
		}
	}
	for _, f := range in.found {
		images := g.Images(f.Root)
		for _, img := range images {
			node := treeImage{Ref: refOf(f.Root), Platform: platformsOf([]*manifests.Image{img}), Digest: img.Descriptor.Digest, Bytes: img.Size(), Layers: []treeLayer{}, display: f.Root.Display()}
			if len(images) > 1 {
				node.display += " (" + node.Platform + ")"
			}
			steps := layerSteps(img)
			for i, l := range img.Layers {
				node.Layers = append(node.Layers, treeLayer{Digest: l.Blob.Digest, DiffID: l.DiffID, Bytes: l.Blob.Size, CreatedBy: steps[i], layerStorage: storage[l.Blob.Digest]})
			}
			doc.Items = append(doc.Items, node)
			doc.Apart += node.Bytes
		}
	}
	doc.share()
	return doc, nil
}

// share finds out which images have which layers.
func (d *treeDoc) share() {
	type user struct{ image, ref string }
	users := map[digest.Digest][]user{}
	for _, img := range d.Items {
		for _, l := range img.Layers {
			if u := (user{img.display, img.Ref}); !slices.Contains(users[l.Digest], u) {
				users[l.Digest] = append(users[l.Digest], u)
			}
		}
	}
	for i := range d.Items {
		img := &d.Items[i]
		for j := range img.Layers {
			l := &img.Layers[j]
			l.SharedBy = []string{}
			for _, u := range users[l.Digest] {
				if u.image == img.display {
					continue
				}
				l.users = append(l.users, u.image)
				if !slices.Contains(l.SharedBy, u.ref) {
					l.SharedBy = append(l.SharedBy, u.ref)
				}
			}
			if first := users[l.Digest][0].image; first != img.display {
				l.first = first
			}
		}
	}
}

// layerSteps is what made each layer, by the config's history.
func layerSteps(img *manifests.Image) []string {
	steps := make([]string, len(img.Layers))
	next := 0
	for _, h := range img.Config.History {
		if h.EmptyLayer {
			continue
		}
		if next == len(steps) {
			break
		}
		text := strings.Join(strings.Fields(h.CreatedBy), " ")
		text = strings.TrimPrefix(strings.TrimPrefix(text, "/bin/sh -c "), "#(nop) ")
		steps[next] = text
		next++
	}
	return steps
}

// strokes are what trees are drawn with.
type strokes struct{ fork, last, pass, full, rest string }

var (
	unicodeStrokes = strokes{"├─ ", "└─ ", "│  ", "█", "░"}
	asciiStrokes   = strokes{"|- ", "`- ", "|  ", "#", "."}
)

// strokes are in ASCII where the locale is not UTF-8.
func (a *app) strokes() strokes {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := a.env(name); v != "" {
			v = strings.ToLower(strings.ReplaceAll(v, "-", ""))
			if strings.Contains(v, "utf8") {
				return unicodeStrokes
			}
			break
		}
	}
	return asciiStrokes
}

// barWidth is the length of a layer's bar, all of its image.
const barWidth = 10

func (s strokes) bar(part, whole int64) string {
	n := 0
	if whole > 0 {
		n = int((part*barWidth + whole/2) / whole)
	}
	n = min(max(n, 0), barWidth)
	return strings.Repeat(s.full, n) + strings.Repeat(s.rest, barWidth-n)
}

// smallShare: layers of less than this part of their image are one line
// together, but with --no-trunc.
const smallShare = 50

// maxStep is how much of a step is shown without --no-trunc.
const maxStep = 36

func (d *treeDoc) draw(a *app) error {
	s := a.strokes()
	if err := a.printf("%s  %s  %s, %s one by one\n", cell(strings.Join(d.Sources, " ")), a.size(d.Bytes), count(len(d.Items), "image"), a.size(d.Apart)); err != nil {
		return err
	}
	widths := d.measure(a)
	for i, img := range d.Items {
		branch, stem := s.fork, s.pass
		if i == len(d.Items)-1 {
			branch, stem = s.last, "   "
		}
		if err := a.printf("%s%s  %s\n", branch, cell(img.display), a.size(img.Bytes)); err != nil {
			return err
		}
		lines := img.lines(a, s, widths)
		for j, line := range lines {
			twig := s.fork
			if j == len(lines)-1 {
				twig = s.last
			}
			if err := a.printf("%s%s%s\n", stem, twig, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// treeWidths are those of the columns of layers.
type treeWidths struct{ size, id, step int }

func (d *treeDoc) measure(a *app) treeWidths {
	var w treeWidths
	for _, img := range d.Items {
		for _, l := range img.Layers {
			w.size = max(w.size, len(a.size(l.Bytes)))
			w.id = max(w.id, len(a.short(string(l.Digest))))
			w.step = max(w.step, len(l.step(a)))
		}
	}
	return w
}

// step is what made the layer.
func (l treeLayer) step(a *app) string {
	text := cell(l.CreatedBy)
	if !a.g.noTrunc && len(text) > maxStep {
		text = text[:maxStep-3] + "..."
	}
	return text
}

// lines are the layers of an image.
func (i treeImage) lines(a *app, s strokes, w treeWidths) []string {
	small := func(l treeLayer) bool { return !a.g.noTrunc && l.Bytes*smallShare < i.Bytes }
	var lines []string
	var together int
	var bytes int64
	for _, l := range i.Layers {
		if small(l) {
			together++
			bytes += l.Bytes
			continue
		}
		lines = append(lines, fmt.Sprintf("%s  %*s  %-*s  %-*s  %s", s.bar(l.Bytes, i.Bytes), w.size, a.size(l.Bytes), w.id, a.short(string(l.Digest)), w.step, l.step(a), l.sharing(a)))
	}
	if together > 0 {
		lines = append(lines, fmt.Sprintf("%-*s  %*s", barWidth, "small", w.size, a.size(bytes))+"  "+count(together, "layer"))
	}
	return lines
}

// maxOthers is how many images a layer's line names without --no-trunc.
const maxOthers = 3

// others are the images below that have the layer too.
func (l treeLayer) others(a *app) string {
	if more := len(l.users) - maxOthers; more > 1 && !a.g.noTrunc {
		return fmt.Sprintf("%s and %d more", strings.Join(l.users[:maxOthers], ", "), more)
	}
	return strings.Join(l.users, ", ")
}

// sharing says who else has the layer, or its content.
func (l treeLayer) sharing(a *app) string {
	var words []string
	switch {
	case l.first != "":
		words = append(words, "(see "+cell(l.first)+")")
	case len(l.users) > 0:
		words = append(words, "also in "+cell(l.others(a)))
	default:
		words = append(words, "only here")
	}
	if l.first != "" || l.Stored == "" {
		return words[0]
	}
	switch {
	case l.Own != nil && l.Shared != nil:
		text := fmt.Sprintf("content %s own, %s shared", a.size(*l.Own), a.size(*l.Shared))
		if l.FromBase > 0 {
			text += ", " + a.size(l.FromBase) + " of the base"
		}
		if l.Recipe > 0 {
			text += ", recipe " + a.size(l.Recipe)
			if l.Encoder != "" {
				text += " (" + l.Encoder + ")"
			}
		}
		words = append(words, text)
	default:
		words = append(words, l.Stored)
	}
	return strings.Join(words, "; ")
}
