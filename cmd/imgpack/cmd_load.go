package main

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/manifests"
)

type loadOptions struct {
	input    string
	only     []string
	platform platformFlag
	bases    baseFlags
	dryRun   bool
	force    bool
}

func (o *loadOptions) add(fs *pflag.FlagSet) {
	group(fs, groupSource, func(fs *pflag.FlagSet) {
		fs.StringVarP(&o.input, "input", "i", "", "archive or bundle `FILE`; default: standard input")
		fs.StringArrayVar(&o.only, "only", nil, "load image `REF` alone (repeatable)")
	})
	o.platform.add(fs, "`LIST` of os/arch[/variant], local, all (default: everything there is)")
	o.bases.add(fs)
	group(fs, groupSafety, func(fs *pflag.FlagSet) {
		fs.BoolVar(&o.dryRun, "dry-run", false, "say what would be loaded, and load nothing")
		fs.BoolVar(&o.force, "force", false, "let a tag of the store move to another image")
	})
}

func newLoadCommand(a *app) *cobra.Command {
	var o loadOptions
	return a.command(spec{
		use: "load [flags] [-i FILE | SOURCE...]", group: groupExchange, short: "bring an archive or bundle into the store",
		long: "Every blob is checked against its digest on the way; an image that does not\nagree in full never appears. A delta needs its base in the store, or with --base.",
		examples: "imgpack load -i site.imgpack\n" +
			"imgpack load site.imgpack//nginx:1.27\n" +
			"docker save nginx:1.27 | imgpack load",
		exits:    []int{codeNo, codeNotFound, codeNoSpace, codeConflict},
		complete: a.completeSources,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

// addedDoc is what load and pull say as data.
type addedDoc struct {
	envelope
	DryRun  bool       `json:"dryRun"`
	Items   []addedRow `json:"items"`
	Seconds float64    `json:"seconds"`
}

type addedRow struct {
	Ref         string          `json:"ref"`
	Digest      digest.Digest   `json:"digest"`
	IndexDigest digest.Digest   `json:"indexDigest,omitempty"`
	State       manifests.State `json:"digestState"`
	Previous    digest.Digest   `json:"previousDigest,omitempty"`
	Bytes       int64           `json:"bytes"`
	NewBytes    int64           `json:"newBytes"`
	SharedBytes int64           `json:"sharedBytes"`
	root        manifests.Root
}

func (o *loadOptions) run(ctx context.Context, a *app, args []string) error {
	switch {
	case o.input != "" && len(args) > 0:
		return usagef("give -i FILE or SOURCE operands, not both")
	case o.input != "":
		args = []string{pathReference(o.input)}
	case len(args) == 0:
		args = []string{"-"}
	}
	policy := sourcePolicy{platform: o.platform, bases: o.bases}
	in, err := a.openInputs(ctx, args, policy)
	if err != nil {
		return &failure{Op: "load", Subject: args[0], Kept: storeKept(err), Err: err}
	}
	defer in.Close()
	if err := in.only(o.only); err != nil {
		return &failure{Op: "load", Subject: args[0], Err: err}
	}
	if err := a.choosePlatforms(ctx, in, policy); err != nil {
		return &failure{Op: "load", Subject: args[0], Err: err}
	}
	return a.addToStore(ctx, in, adding{op: "load", doing: "loading", dryRun: o.dryRun, force: o.force, say: sayLoaded})
}

// storeKept says that a delta without its base has changed nothing.
func storeKept(err error) string {
	if is[*dedupe.MissingBaseError](err) {
		return "the store is as it was"
	}
	return ""
}

// pathReference writes a file name so that it is read as a path, whatever it
// is called: docker's -i takes any.
func pathReference(file string) string {
	ref, err := manifests.ParseReference(file, "")
	if err == nil && ref.Transport != manifests.Auto {
		return file
	}
	return "./" + file
}

// sayLoaded prints docker's own words, which scripts look for.
func sayLoaded(a *app, r addedRow) error {
	if r.root.Name.IsZero() {
		return a.printf("Loaded image ID: %s\n", r.Digest)
	}
	return a.printf("Loaded image: %s\n", r.root.Name.Familiar())
}

// adding is how images come into the store.
type adding struct {
	op, doing     string
	dryRun, force bool
	say           func(*app, addedRow) error
}

// addToStore stores the inputs and says what became of each.
func (a *app) addToStore(ctx context.Context, in *inputs, how adding) error {
	start := a.now()
	graph, err := manifests.NewGraph(ctx, in.entries(), a.g.parallel)
	if err != nil {
		return &failure{Op: how.op, Subject: in.subject(), Kept: "the store is as it was", Err: err}
	}
	doc := addedDoc{envelope: kind(how.op), DryRun: how.dryRun}
	if how.dryRun {
		rows, _ := graphRows(graph, in)
		for i, r := range rows {
			doc.Items = append(doc.Items, addedRow{Ref: r.Ref, Digest: r.Digest, IndexDigest: r.IndexDigest, State: r.State, Bytes: r.Bytes, NewBytes: r.NewBytes, SharedBytes: r.Bytes - r.NewBytes, root: in.found[i].Root})
		}
		return showAdded(a, doc, func(a *app, r addedRow) error {
			return a.printf("would %s %s: %s, %s\n", how.op, r.root.Display(), a.size(r.NewBytes), r.State)
		})
	}
	store, err := archive.OpenStore(a.g.store)
	if err != nil {
		return &failure{Op: how.op, Subject: in.subject(), Err: err}
	}
	defer store.Close()
	p := a.startProgress(how.doing, graph.Size())
	results, err := store.Add(ctx, graph, archive.AddOptions{Jobs: a.g.parallel, Progress: p.report(), Force: how.force})
	p.end()
	if err != nil {
		return &failure{Op: how.op, Subject: in.subject(), Message: fmt.Sprintf("cannot %s %s", how.op, in.subject()), Kept: "the store is as it was", Hint: forceHint(err, in.names()), Err: err}
	}
	for _, r := range results {
		doc.Items = append(doc.Items, addedRow{
			Ref: refOf(r.Root), Digest: r.Root.Descriptor.Digest, IndexDigest: r.Root.Index, State: r.Root.State(),
			Previous: r.Previous, Bytes: r.New + r.Shared, NewBytes: r.New, SharedBytes: r.Shared, root: r.Root,
		})
	}
	doc.Seconds = a.now().Sub(start).Seconds()
	return showAdded(a, doc, how.say)
}

func showAdded(a *app, doc addedDoc, say func(*app, addedRow) error) error {
	return show(a, listing[addedRow]{doc: doc, items: doc.Items, name: func(r addedRow) string { return r.Ref },
		human: func() error {
			for _, r := range doc.Items {
				if err := say(a, r); err != nil {
					return err
				}
			}
			return nil
		}})
}

func (in *inputs) names() []manifests.Name {
	var names []manifests.Name
	for _, f := range in.found {
		names = append(names, f.Root.Name)
	}
	return names
}

// subject names the inputs in a message.
func (in *inputs) subject() string {
	var names []string
	for _, f := range in.found {
		if len(names) == 0 || names[len(names)-1] != f.requested {
			names = append(names, f.requested)
		}
	}
	switch len(names) {
	case 0:
		return "nothing"
	case 1:
		return printable(names[0])
	}
	return fmt.Sprintf("%s and %d more", printable(names[0]), len(names)-1)
}
