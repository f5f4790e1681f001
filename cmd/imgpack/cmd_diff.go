package main

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/unpack"
)

type diffOptions struct {
	paths    []string
	ignore   []string
	stat     bool
	platform platformFlag
	bases    baseFlags
	registry registryFlags
	limits   limitsFlag
}

func (o *diffOptions) add(fs *pflag.FlagSet) {
	o.platform.add(fs, "`OS/ARCH`[/VARIANT] (default: local)")
	o.bases.add(fs)
	group(fs, groupOutput, func(fs *pflag.FlagSet) {
		fs.StringArrayVar(&o.paths, "path", nil, "only what `GLOB` matches, and all below it; * and ? match no slash, ** does (repeatable)")
		fs.StringSliceVar(&o.ignore, "ignore", nil, "`LIST` of what makes no difference: "+strings.Join(ignorable(), ", "))
		fs.BoolVar(&o.stat, "stat", false, "say only how much differs")
	})
	o.registry.add(fs)
	o.limits.add(fs)
}

// ignoreConfig is what --ignore takes beside the aspects of files.
const ignoreConfig = "config"

func ignorable() []string {
	var words []string
	for _, a := range unpack.Aspects[1:] { // a directory is no file, whoever looks
		words = append(words, string(a))
	}
	return append(words, ignoreConfig)
}

func newDiffCommand(a *app) *cobra.Command {
	var o diffOptions
	return a.command(spec{
		use: "diff [flags] A B\ndiff CONTAINER", group: groupLook, short: "show how two images differ, or what a container changed",
		long: "A is added in B, D deleted, C changed: in kind, size, content, link target, device\nnumbers, mode, owner, attributes or time. The configs are compared too. Layers that\nboth have are read once, and nothing is written to disk. Two images are the same if\nthey differ in nothing that is shown, whatever their digests are.\n\nOf one CONTAINER it lists what was added, changed and deleted over its image, as\ndocker does, and the exit code is 0. Files that are as the image has them, though\nthey were opened for writing, are not listed.",
		examples: "imgpack diff nginx:1.27 nginx:1.27.1\n" +
			"imgpack diff --ignore mtime --path '/usr/sbin/**' old.imgpack//nginx:1.27 nginx:1.27\n" +
			"imgpack diff --stat api.tar oci:./layout:2\n" +
			"imgpack diff web",
		exits:    []int{codeNo, codeNotFound, codeUnreachable},
		complete: a.completeSourcesOrContainer,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

func (o *diffOptions) run(ctx context.Context, a *app, args []string) error {
	if len(args) == 1 && !strings.ContainsAny(args[0], "/:@") {
		if o.stat || len(o.paths)+len(o.ignore) > 0 {
			return usagef("--path, --ignore and --stat are for two images").hint("diff of a container lists all that has changed")
		}
		return o.container(ctx, a, args[0])
	}
	aspects, err := o.check(args)
	if err != nil {
		return err
	}
	policy := sourcePolicy{platform: o.platform, registry: &o.registry, bases: o.bases, onePlatform: true}
	in, err := a.openInputs(ctx, args, policy)
	if err != nil {
		return &failure{Op: "diff", Subject: args[0], Err: err}
	}
	defer in.Close()
	doc := diffDoc{envelope: kind("diff"), Added: []nodeDoc{}, Removed: []nodeDoc{}, Changed: []changeDoc{}, Config: []configDoc{}}
	var images []unpack.TreeImage
	for i, text := range args {
		img, f, err := a.oneImage(ctx, in.asked(text), text, policy)
		if err != nil {
			return &failure{Op: "diff", Subject: text, Err: err}
		}
		images = append(images, unpack.TreeImage{Source: f.Source, Image: img})
		*[]*diffSide{&doc.From, &doc.To}[i] = diffSide{refOf(f.Root), img.Descriptor.Digest}
	}
	if err := o.compare(ctx, a, images, aspects, &doc); err != nil {
		return &failure{Op: "diff", Subject: args[0] + " " + args[1], Message: "cannot compare " + printable(args[0]) + " and " + printable(args[1]), Hint: limitHint(err), Err: err}
	}
	if err := o.show(a, doc); err != nil {
		return err
	}
	if doc.Same {
		return nil
	}
	return exitStatus(codeNo)
}

func (o *diffOptions) check(args []string) (ignore []unpack.Aspect, err error) {
	if len(args) != 2 {
		return nil, usagef("diff takes two images, A and B, or one CONTAINER")
	}
	for _, word := range o.ignore {
		if !slices.Contains(ignorable(), word) {
			return nil, usagef("--ignore %s is not known", printable(word)).hint("there are %s", strings.Join(ignorable(), ", "))
		}
		if word != ignoreConfig {
			ignore = append(ignore, unpack.Aspect(word))
		}
	}
	for _, p := range o.paths {
		if err := unpack.CheckGlob(p); err != nil {
			return nil, err
		}
	}
	return ignore, nil
}

// asked are the inputs that one text names.
func (in *inputs) asked(text string) *inputs {
	part := &inputs{}
	for _, f := range in.found {
		if f.requested == text {
			part.found = append(part.found, f)
		}
	}
	return part
}

// compare fills the document. Images of one digest are not looked into, nor
// are the files of images that have the same layers.
func (o *diffOptions) compare(ctx context.Context, a *app, images []unpack.TreeImage, ignore []unpack.Aspect, doc *diffDoc) error {
	doc.Same = true
	if doc.From.Digest == doc.To.Digest {
		return nil
	}
	config, err := unpack.DiffConfig(images[0].Image, images[1].Image)
	if err != nil {
		return err
	}
	if !slices.Contains(o.ignore, ignoreConfig) {
		doc.addConfig(config)
	}
	if !sameLayers(images) {
		changes, err := o.files(ctx, a, images, ignore)
		if err != nil {
			return err
		}
		doc.addFiles(changes)
	}
	doc.Same = len(doc.items) == 0 && len(doc.Config) == 0
	return nil
}

func sameLayers(images []unpack.TreeImage) bool {
	return slices.EqualFunc(images[0].Image.Layers, images[1].Image.Layers, func(x, y manifests.Layer) bool { return x.DiffID == y.DiffID })
}

func (o *diffOptions) files(ctx context.Context, a *app, images []unpack.TreeImage, ignore []unpack.Aspect) ([]unpack.Change, error) {
	var total int64
	seen := map[digest.Digest]bool{}
	for _, im := range images {
		for _, l := range im.Image.Layers {
			if !seen[l.DiffID] {
				total += l.Blob.Size
			}
			seen[l.DiffID] = true
		}
	}
	p := a.startProgress("comparing", total)
	defer p.end()
	bounds := o.limits.options(unpack.Options{})
	trees, err := unpack.ReadTrees(ctx, images, unpack.TreeOptions{
		Jobs: a.g.parallel, Digests: true, Progress: p.report(), Limits: bounds.Limits, Window: bounds.Window, Memory: bounds.Memory,
	})
	if err != nil {
		return nil, err
	}
	for _, glob := range o.paths {
		if !slices.ContainsFunc(trees, func(t *unpack.Tree) bool { return t.Has(glob) }) {
			return nil, &manifests.NotFoundError{Subject: "path " + quote.Text(glob), In: "either image"}
		}
	}
	return unpack.Diff(trees[0], trees[1], unpack.DiffOptions{Paths: o.paths, Ignore: ignore})
}
