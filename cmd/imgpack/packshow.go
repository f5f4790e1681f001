package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// estimate is the dry run: it reads what it must, and writes nothing.
func (o *packOptions) estimate(ctx context.Context, a *app, start time.Time, plan *dedupe.Plan, in *inputs, graph *manifests.Graph, doc packDoc) error {
	p := a.startProgress("estimating", plan.Transfer())
	defer p.end()
	summary, err := plan.Estimate(ctx, o.options(a, p))
	p.end()
	if err != nil {
		return &failure{Op: "pack", Subject: o.output, Message: "cannot estimate the bundle", Err: err}
	}
	doc.fill(summary, in)
	doc.Temp = plan.Temp()
	download := min(remoteBytes(graph, in), plan.Transfer())
	seconds := o.seconds(a, plan.Transfer(), doc)
	doc.Download, doc.Estimate = &download, &seconds
	doc.Seconds = a.now().Sub(start).Seconds()
	return show(a, listing[packRow]{doc: doc, items: doc.Images, name: func(r packRow) string { return r.Ref }, human: func() error {
		if err := doc.table(a); err != nil {
			return err
		}
		return a.printf("\n%s\n", strings.Join(o.planLines(a, doc), "\n"))
	}})
}

// studied is how many bytes of compressed layers packing has to study.
func (d packDoc) studied() (n int64) {
	for _, m := range d.Totals.Models {
		n += m.Bytes
	}
	return n
}

// planLines say what a bundle will be, and what making it takes.
func (o *packOptions) planLines(a *app, d packDoc) []string {
	t := d.Totals
	first := fmt.Sprintf("bundle of %s (%d bytes); the images one by one: %s", a.size(d.Output.Bytes), d.Output.Bytes, a.size(t.Bytes))
	if !d.Exact {
		about := "about"
		if d.AtMost {
			about = "at most about"
		}
		first = fmt.Sprintf("bundle of %s %s; the images one by one: %s", about, a.size(d.Output.Bytes), a.size(t.Bytes))
	}
	lines := []string{first}
	if saved := t.savings(a); saved != "" {
		if !d.Exact && t.SavedByCompression > 0 {
			saved += " (an estimate, from samples)"
		}
		lines = append(lines, "saved "+saved)
	}
	if t.SavedByBase > 0 {
		lines = append(lines, "needs "+baseNames(d.Since)+" on the other side")
	}
	costs := []string{"temp space up to " + a.size(d.Temp), "about " + secondsText(*d.Estimate)}
	if *d.Download > 0 {
		costs = append([]string{"download " + a.size(*d.Download)}, costs...)
	}
	lines = append(lines, strings.Join(costs, ", "))
	if d.Unread > 0 {
		lines = append(lines, fmt.Sprintf("compressed layers of %s in registries were not read, and are counted as they are: the bundle will likely be much smaller", a.size(d.Unread)))
	}
	lines = append(lines, d.openLines(a)...)
	if note := d.carriedNote(); note != "" {
		lines = append(lines, note)
	}
	return lines
}

// remoteBytes is how much of the graph comes over the network: each blob from
// the first image that has it.
func remoteBytes(g *manifests.Graph, in *inputs) int64 {
	var n int64
	seen := map[digest.Digest]bool{}
	for _, f := range in.found {
		for d, size := range blobsOf(g, f.Root) {
			if !seen[d] && f.fromRemote {
				n += size
			}
			seen[d] = true
		}
	}
	return n
}

// baseNames lists bases for people: the name, and the beginning of the digest.
func baseNames(bases []baseDoc) string {
	var names []string
	for _, b := range bases {
		name := b.Name
		if hex := b.Digest.Encoded; b.Digest != "" {
			name += " (" + hex()[:12] + ")"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// doneLines say what was packed.
func (d packDoc) doneLines(a *app, path string) []string {
	t := d.Totals
	line := fmt.Sprintf("packed %s into %s: %s, %s", count(t.Images, "image"), quote.Clean(path), a.size(d.Output.Bytes), count(t.DistinctLayers, "layer"))
	if t.SavedByBase > 0 {
		line = fmt.Sprintf("packed %s into %s: %s of %s; needs %s on the other side", count(t.Images, "image"), quote.Clean(path), a.size(d.Output.Bytes), a.size(t.Bytes), baseNames(d.Since))
	} else if p := t.savedPercent(); p > 0 {
		line += fmt.Sprintf(", %d%% smaller than separate", p)
	}
	lines := []string{line + ", " + secondsText(d.Seconds)}
	if saved := t.savings(a); saved != "" && d.Dedupe == string(dedupe.ModeChunk) {
		lines = append(lines, "saved "+saved)
	}
	lines = append(lines, d.openLines(a)...)
	if d.Resumed > 0 {
		lines = append(lines, fmt.Sprintf("%s were taken over from the interrupted run", a.size(d.Resumed)))
	}
	if d.Output.Receipt != "" {
		lines = append(lines, fmt.Sprintf("receipt: %s (%s); keep it here for the next --since", quote.Clean(d.Output.Receipt), a.size(d.Output.ReceiptBytes)))
	}
	return lines
}

func (o *packOptions) showDone(a *app, out *sink, d packDoc) error {
	lines := d.doneLines(a, out.path)
	if note := d.carriedNote(); note != "" {
		a.note("%s", note)
	}
	if out.toStdout() {
		for _, line := range lines {
			a.note("%s", line)
		}
		return nil
	}
	return show(a, listing[packRow]{doc: d, items: d.Images,
		name: func(r packRow) string { return r.Ref },
		human: func() error {
			if a.g.verbose > 0 {
				if err := d.table(a); err != nil {
					return err
				}
			}
			return a.printf("%s\n", strings.Join(lines, "\n"))
		},
		quiet: func() error { return a.printf("%s %s\n", d.Output.Digest, out.path) },
	})
}
