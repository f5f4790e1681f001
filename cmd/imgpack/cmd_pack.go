package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

type packOptions struct {
	output   string
	from     []string
	platform platformFlag
	exclude  []string
	dryRun   bool
	force    bool
	registry registryFlags
}

func (o *packOptions) add(fs *pflag.FlagSet) {
	group(fs, groupSource, func(fs *pflag.FlagSet) {
		fs.StringArrayVarP(&o.from, "from", "f", nil, "take names from `LIST` too: one a line, # for comments; - is standard input")
	})
	o.platform.add(fs, "`LIST` of os/arch[/variant], local, all; what a file holds is taken whole unless given")
	group(fs, groupSource, func(fs *pflag.FlagSet) {
		fs.StringArrayVar(&o.exclude, "exclude", nil, "leave out images whose name matches `PATTERN`, as in a shell")
	})
	group(fs, groupOutput, func(fs *pflag.FlagSet) {
		fs.StringVarP(&o.output, "output", "o", "", "bundle `FILE` to write; - is standard output")
	})
	o.registry.add(fs)
	group(fs, groupSafety, func(fs *pflag.FlagSet) {
		fs.BoolVar(&o.dryRun, "dry-run", false, "say what would be written, to the byte, and write nothing")
		fs.BoolVar(&o.force, "force", false, "replace an existing file")
	})
}

func newPackCommand(a *app) *cobra.Command {
	var o packOptions
	return a.command(spec{
		use: "pack [flags] -o FILE SOURCE...", group: groupCarry, short: "pack images into one bundle, every layer once",
		long: "Bundles are sources too: packing an old bundle with further images adds them,\npacking two merges them.",
		examples: "imgpack pack -o site.imgpack nginx:1.27 redis:7.4\n" +
			"imgpack pack -o site.imgpack -f images.txt --platform linux/amd64,linux/arm64\n" +
			"imgpack pack -o next.imgpack site.imgpack ./new.tar --dry-run",
		exits:    []int{codeNo, codeNotFound, codeDenied, codeUnreachable, codeNoSpace, codeConflict},
		complete: a.completeSources,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

// packDoc is what pack says as data.
type packDoc struct {
	envelope
	DryRun  bool       `json:"dryRun"`
	Output  outputDoc  `json:"output"`
	Images  []imageRow `json:"images"`
	Totals  totalsDoc  `json:"totals"`
	Seconds float64    `json:"seconds"`
}

type outputDoc struct {
	Path   string        `json:"path"`
	Bytes  int64         `json:"bytes"`
	Digest digest.Digest `json:"digest,omitempty"` // the bundle's identity: of its index
}

// imageRow is one image of a plan.
type imageRow struct {
	Ref         string          `json:"ref"`
	Requested   string          `json:"requested,omitempty"`
	Platform    string          `json:"platform"`
	Digest      digest.Digest   `json:"digest"`
	IndexDigest digest.Digest   `json:"indexDigest,omitempty"`
	State       manifests.State `json:"digestState"`
	Layers      int             `json:"layers"`
	Bytes       int64           `json:"bytes"`
	NewBytes    int64           `json:"newBytes"`
	display     string
}

type totalsDoc struct {
	Images         int   `json:"images"`
	Layers         int   `json:"layers"`
	DistinctLayers int   `json:"distinctLayers"`
	Bytes          int64 `json:"bytes"`
	Stored         int64 `json:"stored"`
	SavedByLayers  int64 `json:"savedByLayers"`
}

func (o *packOptions) run(ctx context.Context, a *app, args []string) error {
	start := a.now()
	var out *sink
	if o.output == "" && !o.dryRun {
		return usagef("pack needs -o FILE").hint("-o - writes to standard output")
	}
	if !o.dryRun {
		var err error
		if out, err = a.openSink(o.output, o.force); err != nil {
			return err
		}
	}
	in, err := o.gather(ctx, a, args)
	if err != nil {
		return &failure{Op: "pack", Subject: o.output, Err: err}
	}
	defer in.Close()
	graph, err := manifests.NewGraph(ctx, in.entries(), a.g.parallel)
	if err != nil {
		return &failure{Op: "pack", Subject: o.output, Err: err}
	}
	plan, err := dedupe.NewPlan(graph, dedupe.PlanOptions{Mode: dedupe.ModeLayer})
	if err != nil {
		return &failure{Op: "pack", Subject: o.output, Err: err}
	}
	summary, err := plan.Estimate(ctx, dedupe.Options{})
	if err != nil {
		return &failure{Op: "pack", Subject: o.output, Err: err}
	}
	doc := packDoc{envelope: kind("pack"), DryRun: o.dryRun, Output: outputDoc{o.output, summary.Size, summary.Digest}}
	doc.fill(summary, in)
	if o.dryRun {
		doc.Seconds = a.now().Sub(start).Seconds()
		return o.showPlan(a, doc)
	}
	if err := o.write(ctx, a, out, plan); err != nil {
		return err
	}
	doc.Seconds = a.now().Sub(start).Seconds()
	return o.showDone(a, out, doc, a.now().Sub(start).Seconds())
}

// gather opens all sources and narrows them to what is to be packed.
func (o *packOptions) gather(ctx context.Context, a *app, args []string) (*inputs, error) {
	texts, err := a.readLists(o.from)
	if err != nil {
		return nil, err
	}
	texts = append(texts, args...)
	if len(texts) == 0 {
		return nil, usagef("pack needs at least one SOURCE, or a list with -f")
	}
	policy := sourcePolicy{platform: o.platform, registry: &o.registry}
	in, err := a.openInputs(ctx, texts, policy)
	if err != nil {
		return nil, err
	}
	if err := in.exclude(o.exclude); err != nil {
		in.Close()
		return nil, err
	}
	if len(in.found) == 0 {
		in.Close()
		return nil, &manifests.NotFoundError{Subject: "image left to pack"}
	}
	if err := a.choosePlatforms(ctx, in, policy); err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

func (o *packOptions) write(ctx context.Context, a *app, out *sink, plan *dedupe.Plan) error {
	p := a.startProgress("packing", plan.Transfer())
	defer p.end()
	options := dedupe.Options{Jobs: a.g.parallel, Progress: p.report(), Replace: o.force}
	err := out.write(ctx, writer{
		file: func(ctx context.Context, path string) error {
			_, err := plan.WriteFile(ctx, path, options)
			return err
		},
		stream: func(ctx context.Context, w io.Writer) error {
			_, err := plan.Write(ctx, w, options)
			return err
		},
	})
	if err != nil {
		return &failure{Op: "pack", Subject: out.path, Message: "cannot pack into " + quote.Clean(out.path), Kept: out.kept(), Err: err}
	}
	return nil
}

func (d *packDoc) fill(s *dedupe.Summary, in *inputs) {
	requested := map[string]string{}
	for _, f := range in.found {
		requested[rootKey(f.Root)] = f.requested
	}
	for _, r := range s.Rows {
		d.Images = append(d.Images, imageRow{
			Ref: refOf(r.Root), Requested: requested[rootKey(r.Root)], Platform: platformsOf(r.Images),
			Digest: r.Root.Descriptor.Digest, IndexDigest: r.Root.Index, State: r.Root.State(),
			Layers: r.Layers, Bytes: r.Bytes, NewBytes: r.NewBytes, display: r.Root.Display(),
		})
	}
	t := s.Totals
	d.Totals = totalsDoc{t.Images, t.Layers, t.DistinctLayers, t.Bytes, t.Stored, t.Bytes - t.Stored}
}

// savedPercent is how much smaller the bundle is than its images one by one.
func (t totalsDoc) savedPercent() int {
	if t.Bytes <= 0 {
		return 0
	}
	return int(100 * (t.Bytes - t.Stored) / t.Bytes)
}

func (o *packOptions) showPlan(a *app, d packDoc) error {
	return show(a, listing[imageRow]{doc: d, items: d.Images, name: func(r imageRow) string { return r.Ref }, human: func() error {
		if err := a.planTable(d.Images, d.Totals); err != nil {
			return err
		}
		return a.printf("\nbundle of %s (%d bytes); the images one by one: %s; %d%% saved by layers they share\n",
			a.size(d.Output.Bytes), d.Output.Bytes, a.size(d.Totals.Bytes), d.Totals.savedPercent())
	}})
}

// planTable is the table of what a bundle or tar will hold.
func (a *app) planTable(rows []imageRow, totals totalsDoc) error {
	t := newTable(column{head: "IMAGE"}, column{head: "PLATFORM", drop: 2}, column{head: "LAYERS", right: true, drop: 3},
		column{head: "SIZE", right: true}, column{head: "NEW", right: true}, column{head: "DIGEST", drop: 1})
	for _, r := range rows {
		t.add(r.display, r.Platform, strconv.Itoa(r.Layers), a.size(r.Bytes), a.size(r.NewBytes), string(r.State))
	}
	t.add(count(totals.Images, "image"), "", fmt.Sprintf("%d (%d)", totals.Layers, totals.DistinctLayers), a.size(totals.Bytes), a.size(totals.Stored), "")
	return t.write(a.Out, a.tableWidth(), true)
}

func (o *packOptions) showDone(a *app, out *sink, d packDoc, seconds float64) error {
	line := fmt.Sprintf("packed %s into %s: %s, %s, %d%% smaller than separate, %s", count(d.Totals.Images, "image"), quote.Clean(out.path),
		a.size(d.Output.Bytes), count(d.Totals.DistinctLayers, "layer"), d.Totals.savedPercent(), secondsText(seconds))
	if out.toStdout() {
		a.note("%s", line)
		return nil
	}
	return show(a, listing[imageRow]{doc: d, items: d.Images,
		name:  func(r imageRow) string { return r.Ref },
		human: func() error { return a.printf("%s\n", line) },
		quiet: func() error { return a.printf("%s %s\n", d.Output.Digest, out.path) },
	})
}
