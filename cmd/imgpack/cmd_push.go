package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/manifests"
)

type pushOptions struct {
	mapping  string
	only     []string
	platform platformFlag
	bases    baseFlags
	dryRun   bool
	force    bool
	registry registryFlags
}

func (o *pushOptions) add(fs *pflag.FlagSet) {
	group(fs, groupSource, func(fs *pflag.FlagSet) {
		fs.StringArrayVar(&o.only, "only", nil, "push image `REF` alone (repeatable)")
	})
	o.platform.add(fs, "`LIST` of os/arch[/variant], local, all (default: everything there is)")
	o.bases.add(fs)
	group(fs, groupOutput, func(fs *pflag.FlagSet) {
		fs.StringVar(&o.mapping, "map", mapKeep, "keep the whole name below DEST, strip its registry, or flat: its last part only")
	})
	o.registry.add(fs)
	group(fs, groupSafety, func(fs *pflag.FlagSet) {
		fs.BoolVar(&o.dryRun, "dry-run", false, "say what would go where, and push nothing")
		fs.BoolVar(&o.force, "force", false, "let a tag of the registry move to another image")
	})
}

func newPushCommand(a *app) *cobra.Command {
	var o pushOptions
	return a.command(spec{
		use: "push [flags] IMAGE\npush [flags] SOURCE... DEST[/PREFIX]", group: groupExchange, short: "send images from anywhere to a registry",
		long: "With one operand the image goes where its name says, as with docker. Otherwise\nthe last operand is a registry: docker.io/library/nginx becomes\nDEST/docker.io/library/nginx, or with --map strip DEST/library/nginx.",
		examples: "imgpack push site.imgpack registry.lan\n" +
			"imgpack push --map strip site.imgpack//nginx:1.27 registry.lan/mirror\n" +
			"imgpack push registry.lan/shop/api:2.3.1",
		exits:    []int{codeNo, codeNotFound, codeDenied, codeUnreachable, codeConflict},
		complete: a.completeSources,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

// The ways names map below a destination.
const (
	mapKeep  = "keep"
	mapStrip = "strip"
	mapFlat  = "flat"
)

type pushDoc struct {
	envelope
	DryRun  bool      `json:"dryRun"`
	Items   []pushRow `json:"items"`
	Seconds float64   `json:"seconds"`
}

type pushRow struct {
	Ref     string          `json:"ref"`
	Target  string          `json:"target"`
	Digest  digest.Digest   `json:"digest"`
	State   manifests.State `json:"digestState"`
	Pushed  int64           `json:"bytesPushed"`
	Skipped int64           `json:"bytesSkipped"`
	Status  string          `json:"status"`
	Error   *string         `json:"error"`
	display string
}

func (o *pushOptions) run(ctx context.Context, a *app, args []string) error {
	start := a.now()
	sources, dest, err := o.operands(args)
	if err != nil {
		return err
	}
	policy := sourcePolicy{platform: o.platform, registry: &o.registry, bases: o.bases}
	if dest == "" {
		policy.registry = nil
	}
	in, err := a.openInputs(ctx, sources, policy)
	if err != nil {
		return &failure{Op: "push", Subject: sources[0], Err: err}
	}
	defer in.Close()
	targets, err := o.prepare(ctx, a, in, dest)
	if err != nil {
		return &failure{Op: "push", Subject: in.subject(), Err: err}
	}
	graph, err := manifests.NewGraph(ctx, in.entries(), a.g.parallel)
	if err != nil {
		return &failure{Op: "push", Subject: in.subject(), Err: err}
	}
	doc := pushDoc{envelope: kind("push"), DryRun: o.dryRun}
	if o.dryRun {
		rows, _ := graphRows(graph, in)
		for i, t := range targets {
			doc.Items = append(doc.Items, pushRow{Ref: refOf(t.Root), Target: t.Name.String(), Digest: t.Root.Descriptor.Digest, State: t.Root.State(), Pushed: rows[i].NewBytes, Status: "planned", display: t.Root.Display()})
		}
		return o.show(a, doc)
	}
	registry, err := o.registry.options(a)
	if err != nil {
		return err
	}
	p := a.startProgress("pushing", pushSize(graph, targets))
	results, err := archive.Push(ctx, graph, targets, archive.PushOptions{RegistryOptions: registry, Progress: p.report(), Force: o.force})
	p.end()
	done := 0
	for _, r := range results {
		row := pushRow{Ref: refOf(r.Target.Root), Target: r.Target.Name.String(), Digest: r.Target.Root.Descriptor.Digest, State: r.Target.Root.State(), Pushed: r.Pushed, Skipped: r.Skipped, Status: r.Status, display: r.Target.Root.Display()}
		if r.Status == "" {
			row.Status = "failed"
		} else {
			done++
		}
		doc.Items = append(doc.Items, row)
	}
	if err != nil {
		return &failure{Op: "push", Subject: in.subject(), Message: "cannot push " + in.subject(), Kept: fmt.Sprintf("%d of %d images pushed", done, len(targets)), Hint: forceHint(err, targetNames(targets)), Err: err}
	}
	doc.Seconds = a.now().Sub(start).Seconds()
	return o.show(a, doc)
}

// operands parts the command line into sources and destination; none where
// the image's own name is it.
func (o *pushOptions) operands(args []string) (sources []string, dest string, err error) {
	switch o.mapping {
	case mapKeep, mapStrip, mapFlat:
	default:
		return nil, "", usagef("--map is keep, strip or flat, not %q", o.mapping)
	}
	switch len(args) {
	case 0:
		return nil, "", usagef("push needs an IMAGE, or SOURCE... and DEST")
	case 1:
		return args, "", nil
	}
	dest = strings.TrimSuffix(strings.TrimPrefix(args[len(args)-1], "docker://"), "/")
	return args[:len(args)-1], dest, nil
}

// prepare narrows the inputs and works out where each goes.
func (o *pushOptions) prepare(ctx context.Context, a *app, in *inputs, dest string) ([]archive.Target, error) {
	if err := in.only(o.only); err != nil {
		return nil, err
	}
	if err := a.choosePlatforms(ctx, in, sourcePolicy{platform: o.platform, registry: &o.registry}); err != nil {
		return nil, err
	}
	var targets []archive.Target
	taken := map[manifests.Name]manifests.Root{}
	for _, f := range in.found {
		name, err := target(f.Root, dest, o.mapping)
		if err != nil {
			return nil, err
		}
		if other, ok := taken[name]; ok && other.Descriptor.Digest != f.Root.Descriptor.Digest {
			return nil, &failure{Code: codeConflict, Hint: "--map keep never makes two names one",
				Err: fmt.Errorf("%s and %s would both become %s", other.Display(), f.Root.Display(), name)}
		}
		taken[name] = f.Root
		targets = append(targets, archive.Target{Root: f.Root, Name: name})
	}
	return targets, nil
}

// target is the name an image gets at a destination.
func target(r manifests.Root, dest, mapping string) (manifests.Name, error) {
	n := r.Name
	if n.IsZero() {
		return n, &failure{Code: codeUsage, Err: fmt.Errorf("%s has no name to push it under", r.Display()), Hint: "load it, give it a name with imgpack tag, and push that"}
	}
	// Where the bytes under the name are no longer those its digest names, the
	// tag alone goes on.
	if n.Digest != "" && n.Digest != r.Descriptor.Digest {
		tagged, ok := n.Tagged()
		if !ok {
			tagged.Digest = r.Descriptor.Digest
		}
		n = tagged
	}
	if dest == "" {
		return n, nil
	}
	path := n.Repository()
	switch mapping {
	case mapStrip:
		path = n.Path
	case mapFlat:
		path = n.Path[strings.LastIndexByte(n.Path, '/')+1:]
	}
	host, prefix, _ := strings.Cut(dest, "/")
	if prefix != "" {
		path = prefix + "/" + path
	}
	// The registry part of the old name may hold a port, which a path cannot.
	path = strings.ReplaceAll(strings.ToLower(path), ":", "-")
	to, err := manifests.ParseName(host+"/"+path, "")
	if err != nil {
		return to, err
	}
	if !strings.ContainsAny(host, ".:") && host != "localhost" {
		e := usagef("%q is no registry: the last operand is a host, with a dot or a port", host)
		return to, e.hint("several images from the store, each to where its name says: push them one by one")
	}
	to.Tag, to.Digest = n.Tag, n.Digest
	return to, nil
}

func targetNames(targets []archive.Target) []manifests.Name {
	names := make([]manifests.Name, len(targets))
	for i, t := range targets {
		names[i] = t.Name
	}
	return names
}

func pushSize(g *manifests.Graph, targets []archive.Target) int64 {
	var n int64
	for _, t := range targets {
		for _, img := range g.Images(t.Root) {
			n += img.Size()
		}
	}
	return n
}

func (o *pushOptions) show(a *app, doc pushDoc) error {
	return show(a, listing[pushRow]{doc: doc, items: doc.Items,
		name: func(r pushRow) string { return r.Target + "@" + string(r.Digest) },
		human: func() error {
			t := newTable(column{head: "IMAGE"}, column{head: "TO"}, column{head: "PUSHED", right: true, drop: 2}, column{head: "SKIPPED", right: true, drop: 3}, column{head: "DIGEST", drop: 1})
			var sent, there int64
			for _, r := range doc.Items {
				t.add(r.display, r.Target, a.size(r.Pushed), a.size(r.Skipped), string(r.State))
				sent, there = sent+r.Pushed, there+r.Skipped
			}
			if err := t.write(a.Out, a.tableWidth(), true); err != nil {
				return err
			}
			if doc.DryRun {
				return a.printf("%s, at most %s to send\n", count(len(doc.Items), "image"), a.size(sent))
			}
			return a.printf("%s, %s sent, %s already there, %s\n", count(len(doc.Items), "image"), a.size(sent), a.size(there), secondsText(doc.Seconds))
		}})
}
