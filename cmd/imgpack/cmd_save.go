package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

type saveOptions struct {
	output   string
	as       string
	platform platformFlag
	compress string
	bases    baseFlags
	since    sinceFlags
	dryRun   bool
	registry registryFlags
}

const asLayout = "oci"

func (o *saveOptions) add(fs *pflag.FlagSet) {
	o.platform.add(fs, "`LIST` of os/arch[/variant], local, all; what a file holds is taken whole unless given")
	o.since.add(fs, "leave out layers that `OLD` has, a receipt, bundle, archive or image: for an engine that holds it (repeatable)")
	o.bases.add(fs)
	group(fs, groupOutput, func(fs *pflag.FlagSet) {
		fs.StringVarP(&o.output, "output", "o", "", "`FILE` to write, replacing what was there; default and -: standard output")
		fs.StringVar(&o.as, "as", string(archive.Hybrid), "docker-archive (an OCI layout too), oci-archive, or oci (a directory)")
		fs.StringVar(&o.compress, "compress", "none", "none, gzip or zstd, with :`LEVEL`; engines load plain tars only, some gzip")
	})
	o.registry.add(fs)
	group(fs, groupSafety, func(fs *pflag.FlagSet) {
		fs.BoolVar(&o.dryRun, "dry-run", false, "say what would be written, to the byte, and write nothing")
	})
}

func newSaveCommand(a *app) *cobra.Command {
	var o saveOptions
	return a.command(spec{
		use: "save [flags] [-o FILE] SOURCE...", group: groupExchange, short: "write images to a tar that every engine loads",
		long: "The tar is docker's archive and an OCI layout in one, each blob once. As with\ndocker, an existing FILE is replaced. With --since it loads only where the layers\nleft out are: in docker and containerd, in podman where it holds one image.",
		examples: "imgpack save -o nginx.tar nginx:1.27\n" +
			"imgpack save site.imgpack//nginx:1.27 | ssh HOST docker load\n" +
			"imgpack save --as oci -o ./layout site.imgpack\n" +
			"imgpack save -o update.tar --since old.tar nginx:1.27",
		exits:    []int{codeNo, codeNotFound, codeDenied, codeUnreachable, codeNoSpace},
		complete: a.completeSources,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

type saveDoc struct {
	envelope
	DryRun  bool       `json:"dryRun"`
	As      string     `json:"as"`
	Output  outputDoc  `json:"output"`
	Images  []imageRow `json:"images"`
	Totals  totalsDoc  `json:"totals"`
	Since   []baseDoc  `json:"since"`
	Omitted omittedDoc `json:"omitted"`
	Seconds float64    `json:"seconds"`
}

// omittedDoc is what the base has and the tar has not.
type omittedDoc struct {
	Layers int   `json:"layers"`
	Bytes  int64 `json:"bytes"`
}

func (o *saveOptions) run(ctx context.Context, a *app, args []string) error {
	start := a.now()
	format, level, err := o.check(args)
	if err != nil {
		return err
	}
	var out *sink
	if !o.dryRun && o.as != asLayout {
		if out, err = a.openSink(o.output, true); err != nil {
			return err
		}
	}
	policy := sourcePolicy{platform: o.platform, registry: &o.registry, bases: o.bases, beside: o.output}
	in, err := a.openChosen(ctx, args, policy)
	if err != nil {
		return &failure{Op: "save", Subject: o.output, Err: err}
	}
	defer in.Close()
	policy.documents = true // of a base only the digests of layers are asked for
	bases, closeBases, err := o.since.read(ctx, a, policy, true)
	if err != nil {
		return &failure{Op: "save", Subject: o.output, Err: err}
	}
	defer closeBases()
	graph, err := manifests.NewGraph(ctx, in.entries(), a.g.parallel)
	if err != nil {
		return &failure{Op: "save", Subject: o.output, Err: err}
	}
	doc := saveDoc{envelope: kind("save"), DryRun: o.dryRun, As: o.as, Output: outputDoc{Path: o.output}, Since: basesOf(idsOf(bases))}
	doc.Images, doc.Totals = graphRows(graph, in)
	if o.as == asLayout {
		return o.layout(ctx, a, graph, doc)
	}
	tar, err := archive.PlanTar(graph, archive.TarOptions{Kind: archive.TarKind(o.as), Omit: omit(bases)})
	if err != nil {
		return &failure{Op: "save", Subject: o.output, Err: err}
	}
	doc.Output.Bytes = tar.Size()
	for _, d := range tar.Omitted() {
		doc.Omitted.Layers++
		doc.Omitted.Bytes += d.Size
	}
	if o.dryRun {
		if format != codec.None {
			a.note("note: sizes are before compression, which cannot be told beforehand")
		}
		return o.showPlan(a, doc)
	}
	if err := o.write(ctx, a, out, tar, format, level); err != nil {
		return &failure{Op: "save", Subject: out.path, Message: "cannot save to " + quote.Clean(out.path), Kept: out.kept(), Err: err}
	}
	doc.Seconds = a.now().Sub(start).Seconds()
	return o.showDone(a, out, doc)
}

// omit says which layers the bases have; nil where there are none.
func omit(bases []*dedupe.Base) func(manifests.Layer) bool {
	if len(bases) == 0 {
		return nil
	}
	return func(l manifests.Layer) bool {
		return slices.ContainsFunc(bases, func(b *dedupe.Base) bool { return b.HasLayer(l) })
	}
}

func (o *saveOptions) check(args []string) (codec.Format, int, error) {
	if len(args) == 0 {
		return "", 0, usagef("save needs at least one SOURCE")
	}
	switch o.as {
	case string(archive.Hybrid), string(archive.OCI):
	case asLayout:
		if o.output == "" || o.output == "-" {
			return "", 0, usagef("--as oci writes a directory: name it with -o DIR")
		}
		if len(o.since.list) > 0 {
			return "", 0, usagef("--since is for tars: an OCI layout must hold all that it lists")
		}
	case "docker":
		return "", 0, usagef("--as docker is not known").hint("did you mean docker-archive?")
	default:
		return "", 0, usagef("--as is docker-archive, oci-archive or oci, not %q", o.as)
	}
	format, level, err := parseCompression(o.compress)
	if err == nil && format != codec.None && o.as == asLayout {
		err = usagef("--compress is for tars; --as oci writes a directory")
	}
	return format, level, err
}

// parseCompression reads none, gzip[:N] and zstd[:N].
func parseCompression(text string) (codec.Format, int, error) {
	name, number, hasLevel := strings.Cut(text, ":")
	most := 0
	var format codec.Format
	switch name {
	case "none":
		format = codec.None
	case "gzip":
		format, most = codec.Gzip, 9
	case "zstd":
		format, most = codec.Zstd, 22
	default:
		return "", 0, usagef("--compress is none, gzip[:1-9] or zstd[:1-22], not %q", text)
	}
	if !hasLevel {
		return format, 0, nil
	}
	level, err := strconv.Atoi(number)
	if err != nil || level < 1 || level > most {
		return "", 0, usagef("--compress %s: the level of %s is 1 to %d", text, name, most)
	}
	return format, level, nil
}

func (o *saveOptions) write(ctx context.Context, a *app, out *sink, tar *archive.Tar, format codec.Format, level int) error {
	p := a.startProgress("saving", tar.Size())
	defer p.end()
	options := archive.WriteOptions{Jobs: a.g.parallel, Progress: p.report(), Replace: true}
	stream := func(ctx context.Context, w io.Writer) error { return compressed(ctx, tar, w, options, format, level) }
	file := func(ctx context.Context, path string) error { return tar.WriteFile(ctx, path, options) }
	if format != codec.None {
		file = toFile(true, stream)
	}
	return out.write(ctx, writer{file: file, stream: stream})
}

func compressed(ctx context.Context, tar *archive.Tar, w io.Writer, o archive.WriteOptions, format codec.Format, level int) error {
	z, err := codec.NewWriter(w, format, level)
	if err != nil {
		return err
	}
	return errors.Join(tar.Write(ctx, z, o), z.Close())
}

// layout writes an OCI layout directory.
func (o *saveOptions) layout(ctx context.Context, a *app, graph *manifests.Graph, doc saveDoc) error {
	doc.Output.Bytes = graph.Size()
	if o.dryRun {
		return o.showPlan(a, doc)
	}
	start := a.now()
	p := a.startProgress("saving", graph.Size())
	defer p.end()
	err := archive.WriteLayout(ctx, o.output, graph, archive.WriteOptions{Jobs: a.g.parallel, Progress: p.report()})
	p.end()
	if err != nil {
		return &failure{Op: "save", Subject: o.output, Message: "cannot save to " + quote.Clean(o.output), Hint: layoutHint(err), Err: err}
	}
	doc.Seconds = a.now().Sub(start).Seconds()
	return o.showDone(a, &sink{path: o.output}, doc)
}

func layoutHint(err error) string {
	if codeOf(err) == codeConflict {
		return "directories are never merged or replaced; name a new one"
	}
	return ""
}

func (o *saveOptions) showPlan(a *app, d saveDoc) error {
	return show(a, listing[imageRow]{doc: d, items: d.Images, name: func(r imageRow) string { return r.Ref }, human: func() error {
		if err := a.planTable(d.Images, d.Totals); err != nil {
			return err
		}
		return a.printf("\n%s of %s (%d bytes)%s\n", d.As, a.size(d.Output.Bytes), d.Output.Bytes, d.leaning(a))
	}})
}

// leaning says what is not in the tar, and where it must be.
func (d saveDoc) leaning(a *app) string {
	if d.Omitted.Layers == 0 {
		return ""
	}
	return fmt.Sprintf(", %s of %s left out: where it is loaded, %s must be there", count(d.Omitted.Layers, "layer"), a.size(d.Omitted.Bytes), baseNames(d.Since))
}

// showDone is silent but for --json, as docker save is, and a note.
func (o *saveOptions) showDone(a *app, out *sink, d saveDoc) error {
	if out.toStdout() || a.g.format == "table" {
		a.note("saved %s to %s: %s%s, %s", count(len(d.Images), "image"), quote.Clean(out.path), a.size(d.Output.Bytes), d.leaning(a), secondsText(d.Seconds))
		return nil
	}
	return show(a, listing[imageRow]{doc: d, items: d.Images, name: func(r imageRow) string { return r.Ref }, human: nothing})
}

// graphRows are the rows of a plan table for what is no bundle: what each
// root needs, and what those before it do not bring.
func graphRows(g *manifests.Graph, in *inputs) ([]imageRow, totalsDoc) {
	var rows []imageRow
	var totals totalsDoc
	stored := map[digest.Digest]bool{}
	distinct := map[digest.Digest]bool{}
	for _, f := range in.found {
		images := g.Images(f.Root)
		row := imageRow{
			Ref: refOf(f.Root), Requested: f.requested, Platform: platformsOf(images), Digest: f.Root.Descriptor.Digest,
			IndexDigest: f.Root.Index, State: f.Root.State(), display: f.Root.Display(),
		}
		own := map[digest.Digest]bool{}
		add := func(d digest.Digest, n int64) {
			if !own[d] {
				own[d] = true
				row.Bytes += n
			}
			if !stored[d] {
				stored[d] = true
				row.NewBytes += n
			}
		}
		if manifests.IsIndex(f.Root.Descriptor.MediaType) {
			add(f.Root.Descriptor.Digest, f.Root.Descriptor.Size)
		}
		for _, img := range images {
			add(img.Descriptor.Digest, img.Descriptor.Size)
			add(img.Manifest.Config.Digest, img.Manifest.Config.Size)
			for _, l := range img.Layers {
				add(l.Blob.Digest, l.Blob.Size)
				distinct[l.Blob.Digest] = true
				row.Layers++
			}
		}
		rows = append(rows, row)
		totals.Images++
		totals.Layers += row.Layers
		totals.Bytes += row.Bytes
	}
	totals.DistinctLayers, totals.Stored = len(distinct), g.Size()
	totals.SavedByLayers = totals.Bytes - totals.Stored
	return rows, totals
}
