package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

type packOptions struct {
	output    string
	from      []string
	platform  platformFlag
	exclude   []string
	bases     baseFlags
	since     sinceFlags
	dedupe    string
	compress  string
	receipt   string
	tempSpace byteSize
	noResume  bool
	dryRun    bool
	force     bool
	registry  registryFlags
}

func (o *packOptions) add(fs *pflag.FlagSet) {
	group(fs, groupSource, func(fs *pflag.FlagSet) {
		fs.StringArrayVarP(&o.from, "from", "f", nil, "take names from `LIST` too: one a line, # for comments; - is standard input")
	})
	o.platform.add(fs, "`LIST` of os/arch[/variant], local, all; what a file holds is taken whole unless given")
	group(fs, groupSource, func(fs *pflag.FlagSet) {
		fs.StringArrayVar(&o.exclude, "exclude", nil, "leave out images whose name matches `PATTERN`, as in a shell")
	})
	o.since.add(fs, "make a delta: leave out what `OLD` has, a receipt, bundle, archive or image (repeatable)")
	o.bases.add(fs)
	group(fs, groupOutput, func(fs *pflag.FlagSet) {
		fs.StringVarP(&o.output, "output", "o", "", "bundle `FILE` to write; - is standard output")
		fs.StringVar(&o.dedupe, "dedupe", string(dedupe.ModeChunk), "`MODE`: chunk stores all content that is alike once, layer whole layers only, as an OCI layout")
		fs.StringVar(&o.compress, "compress", "", "`LEVEL` at which contents are compressed: fast, default or max")
		fs.StringVar(&o.receipt, "receipt", "", "write a receipt, for a later --since, to `FILE`; none writes none (default: the name of the bundle and .receipt)")
		fs.Var(&o.tempSpace, "temp-space", "put contents in order `SIZE` at a time, in temporary space beside the output: 4G, 500M (default: 16G)")
	})
	o.registry.add(fs)
	group(fs, groupSafety, func(fs *pflag.FlagSet) {
		fs.BoolVar(&o.dryRun, "dry-run", false, "say what would be written, and write nothing")
		fs.BoolVar(&o.force, "force", false, "replace an existing file")
		fs.BoolVar(&o.noResume, "no-resume", false, "do not go on with what an interrupted run left, and leave nothing")
	})
}

func newPackCommand(a *app) *cobra.Command {
	var o packOptions
	return a.command(spec{
		use: "pack [flags] -o FILE SOURCE...", group: groupCarry, short: "pack images into one bundle, every piece of content once",
		long: "Bundles are sources too: packing an old bundle with further images adds them,\npacking two merges them, packing a delta with its base makes it whole.\nCompressed layers are unpacked where that loses nothing: pack finds out how each\nwas compressed, and whoever reads the bundle gets the same bytes, with the same\ndigest. The others are carried as they are.\n\nA delta on a receipt leaves out what is the same; on a bundle or archive that is\nat hand, files that changed cost only their change.",
		examples: "imgpack pack -o site.imgpack nginx:1.27 redis:7.4\n" +
			"imgpack pack -o site.imgpack -f images.txt --platform linux/amd64,linux/arm64\n" +
			"imgpack pack -o next.imgpack site.imgpack ./new.tar --dry-run\n" +
			"imgpack pack -o delta.imgpack -f images.txt --since site.imgpack.receipt",
		exits:    []int{codeNo, codeNotFound, codeDenied, codeUnreachable, codeNoSpace, codeConflict},
		complete: a.completeSources,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

// noReceipt is the word for --receipt that asks for none.
const noReceipt = "none"

func (o *packOptions) check() error {
	switch dedupe.Mode(o.dedupe) {
	case dedupe.ModeChunk:
	case dedupe.ModeLayer:
		if o.compress != "" {
			return usagef("--compress is for --dedupe chunk: layer mode keeps layers as they are")
		}
		if len(o.since.list) > 0 {
			return usagef("--since is for --dedupe chunk: a bundle in layer mode stands alone")
		}
	default:
		return usagef("--dedupe is chunk or layer, not %q", o.dedupe)
	}
	switch dedupe.Level(o.compress) {
	case "", dedupe.LevelFast, dedupe.LevelDefault, dedupe.LevelMax:
	default:
		return usagef("--compress is fast, default or max, not %q", o.compress)
	}
	if o.output == "" && !o.dryRun {
		return usagef("pack needs -o FILE").hint("-o - writes to standard output")
	}
	if o.receipt != "" && o.receipt == o.output {
		return usagef("--receipt and -o name the same file")
	}
	return nil
}

func (o *packOptions) run(ctx context.Context, a *app, args []string) error {
	start := a.now()
	if err := o.check(); err != nil {
		return err
	}
	var out *sink
	if !o.dryRun {
		var err error
		if out, err = a.openSink(o.output, o.force); err != nil {
			return err
		}
	}
	policy := sourcePolicy{platform: o.platform, registry: &o.registry, bases: o.bases, beside: o.output}
	in, err := o.gather(ctx, a, args, policy)
	if err != nil {
		return &failure{Op: "pack", Subject: o.output, Err: err}
	}
	defer in.Close()
	bases, closeBases, err := o.since.read(ctx, a, policy, false)
	if err != nil {
		return &failure{Op: "pack", Subject: o.output, Err: err}
	}
	defer closeBases()
	graph, err := manifests.NewGraph(ctx, in.entries(), a.g.parallel)
	if err != nil {
		return &failure{Op: "pack", Subject: o.output, Err: err}
	}
	plan, err := dedupe.NewPlan(graph, dedupe.PlanOptions{Mode: dedupe.Mode(o.dedupe), Level: dedupe.Level(o.compress), Bases: bases})
	if err != nil {
		return &failure{Op: "pack", Subject: o.output, Hint: conflictHint(err, in), Err: err}
	}
	doc := o.doc(bases)
	a.verbose("temporary space: at most %s in %s", a.size(plan.Temp()), quote.Clean(policy.spoolDir(a)))
	if o.dryRun {
		return o.estimate(ctx, a, start, plan, in, graph, doc)
	}
	summary, err := o.write(ctx, a, out, plan)
	if err != nil {
		return err
	}
	doc.fill(summary, in)
	if err := o.writeReceipt(a, out, summary, &doc); err != nil {
		return err
	}
	doc.Seconds = a.now().Sub(start).Seconds()
	return o.showDone(a, out, doc)
}

// conflictHint is for a delta beside the bundle it replaces images of.
func conflictHint(err error, in *inputs) string {
	if is[*manifests.ConflictError](err) && len(in.deltas()) > 0 {
		return "to apply the delta alone, give the older bundle with --base"
	}
	return ""
}

// gather opens all sources and narrows them to what is to be packed.
func (o *packOptions) gather(ctx context.Context, a *app, args []string, policy sourcePolicy) (*inputs, error) {
	texts, err := a.readLists(o.from)
	if err != nil {
		return nil, err
	}
	texts = append(texts, args...)
	if len(texts) == 0 {
		return nil, usagef("pack needs at least one SOURCE, or a list with -f")
	}
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

func (o *packOptions) options(a *app, p *progress) dedupe.Options {
	spool := sourcePolicy{beside: o.output}.spoolDir(a)
	return dedupe.Options{
		Jobs: a.g.parallel, Progress: p.report(), Replace: o.force, SpoolDir: spool, SpoolLimit: int64(o.tempSpace),
		RecipeCache: a.recipeCache(), Program: version + " " + commit,
	}
}

func (o *packOptions) write(ctx context.Context, a *app, out *sink, plan *dedupe.Plan) (*dedupe.Summary, error) {
	p := a.newProgress()
	defer p.end()
	options := o.options(a, p)
	options.Phase = func(phase dedupe.Phase, bytes int64) { p.next(phaseWords[phase], bytes) }
	if !o.noResume {
		options.Keep = func(err error) bool { return worthKeeping(ctx, err) }
	}
	var summary *dedupe.Summary
	err := out.write(ctx, writer{
		file: func(ctx context.Context, path string) (err error) {
			summary, err = plan.WriteFile(ctx, path, options)
			return err
		},
		stream: func(ctx context.Context, w io.Writer) (err error) {
			if options.SpoolDir == a.g.store {
				if err := os.MkdirAll(options.SpoolDir, 0o700); err != nil {
					return err
				}
			}
			summary, err = plan.Write(ctx, w, options)
			return err
		},
	})
	if err != nil {
		f := &failure{Op: "pack", Subject: out.path, Message: "cannot pack into " + quote.Clean(out.path), Kept: out.kept(), Err: err}
		if n, files := out.unfinished(); n > 0 && !o.noResume && worthKeeping(ctx, err) {
			f.Kept += fmt.Sprintf("; %s of it are kept in %s", a.size(n), strings.Join(files, ", "))
			f.Hint = "run the same line again to go on from there"
		}
		return nil, f
	}
	return summary, nil
}

var phaseWords = map[dedupe.Phase]string{dedupe.PhaseStudy: "studying layers", dedupe.PhaseWrite: "packing", dedupe.PhaseCompress: "compressing"}

// worthKeeping reports that what a failed run has written is of use to the
// next: it was stopped, or what it read from went away.
func worthKeeping(ctx context.Context, err error) bool {
	switch codeOf(interrupted(ctx, err)) {
	case codeInterrupted, codeTerminated, codeUnreachable:
		return true
	}
	return false
}

// writeReceipt keeps what the other side will have, for the next delta.
func (o *packOptions) writeReceipt(a *app, out *sink, summary *dedupe.Summary, doc *packDoc) error {
	path := o.receipt
	if path == "" && out.stream == nil {
		path = out.path + receiptSuffix
	}
	if path == "" || path == noReceipt || summary.Receipt == nil {
		return nil
	}
	name := out.path
	if out.stream != nil {
		name = strings.TrimSuffix(path, receiptSuffix)
	}
	id := dedupe.BaseID{Name: filepath.Base(name), Date: a.now(), Digest: summary.Digest}
	n, err := writeReceipt(path, summary.Receipt.WithID(id))
	if err != nil {
		return &failure{Op: "pack", Subject: path, Message: "cannot write the receipt " + quote.Clean(path), Kept: quote.Clean(out.path) + " is written and whole",
			Hint: "imgpack images --receipt FILE " + quote.Clean(out.path) + " makes one of the bundle", Err: err}
	}
	doc.Output.Receipt, doc.Output.ReceiptBytes = path, n
	return nil
}
