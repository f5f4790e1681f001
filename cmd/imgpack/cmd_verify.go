package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/verify"
)

type verifyOptions struct {
	quick, deep bool
	platform    platformFlag
	bases       baseFlags
	registry    registryFlags
}

func (o *verifyOptions) add(fs *pflag.FlagSet) {
	group(fs, groupFlags, func(fs *pflag.FlagSet) {
		fs.BoolVar(&o.quick, "quick", false, "check documents and that everything is there; do not read layers")
		fs.BoolVar(&o.deep, "deep", false, "also unpack every layer, compare diff IDs, look for unsafe entries")
	})
	o.platform.add(fs, "`LIST` of os/arch[/variant], local, all (default: everything there is)")
	o.bases.add(fs)
	o.registry.add(fs)
}

func newVerifyCommand(a *app) *cobra.Command {
	var o verifyOptions
	return a.command(spec{
		use: "verify [flags] SOURCE...", group: groupCarry, short: "prove a bundle, archive or image is what it claims",
		long: "The verdict is pass, fail (exit 1) or unchecked: what cannot be read is never\ncalled bad. A delta is verified with its base, from the store or --base.\n" +
			"Compressed layers that a bundle does not store are compressed again, to prove\nthat they come back; --quick does not.",
		examples: "imgpack verify site.imgpack\n" +
			"imgpack verify --deep site.imgpack//nginx:1.27\n" +
			"imgpack verify --json site.imgpack > verdict.json",
		exits:    []int{codeNo, codeNotFound, codeDenied, codeUnreachable},
		complete: a.completeSources,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

type verifyDoc struct {
	envelope
	*verify.Report
	Subject subjectDoc `json:"subject"`
	Tool    toolDoc    `json:"tool"`
	Started time.Time  `json:"started"`
	Seconds float64    `json:"seconds"`
}

type subjectDoc struct {
	Source string        `json:"source"` // as typed
	Bytes  int64         `json:"bytes,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"` // a bundle's identity
}

type toolDoc struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

func (o *verifyOptions) run(ctx context.Context, a *app, args []string) error {
	switch {
	case len(args) == 0:
		return usagef("verify needs at least one SOURCE")
	case o.quick && o.deep:
		return usagef("--quick and --deep exclude each other")
	}
	var docs []verifyDoc
	var failed error
	for _, text := range args {
		doc, err := o.one(ctx, a, text)
		if doc == nil {
			return &failure{Op: "verify", Subject: text, Err: err}
		}
		docs = append(docs, *doc)
		if err != nil {
			failed = &failure{Op: "verify", Subject: text, Message: "cannot check all of " + printable(text), Err: err}
			break
		}
	}
	if err := o.show(a, docs); err != nil {
		return err
	}
	for _, d := range docs {
		if d.Verdict == verify.Fail {
			return d.failure()
		}
	}
	return failed
}

// failure is the report's first finding that is no warning, as an error.
func (d verifyDoc) failure() error {
	for _, c := range d.Checks {
		for _, f := range c.Findings {
			if !f.Warn {
				return &failure{Op: "verify", Subject: d.Subject.Source, Message: printable(d.Subject.Source) + " is not what it claims to be",
					Err: &manifests.ContentError{Kind: f.Kind, Subject: f.Subject, Err: errors.New(f.Message)}}
			}
		}
	}
	return exitStatus(codeNo)
}

// one verifies one source. The report is nil when there was nothing to check.
func (o *verifyOptions) one(ctx context.Context, a *app, text string) (*verifyDoc, error) {
	doc := &verifyDoc{envelope: kind("verify"), Subject: subjectDoc{Source: text}, Tool: toolDoc{"imgpack", version}, Started: a.now().UTC().Truncate(time.Second)}
	start := a.now()
	policy := sourcePolicy{platform: o.platform, registry: &o.registry, bases: o.bases}
	var given bool
	in, err := a.openInputs(ctx, []string{text}, policy)
	if err == nil {
		defer in.Close()
		if _, given, _ = o.platform.choice(a); given || in.anyRemote() {
			err = a.choosePlatforms(ctx, in, policy)
		}
	}
	if err != nil {
		report, ok := verify.FromError(err)
		if !ok {
			return nil, err
		}
		doc.Report = report
		return doc, nil
	}
	if len(in.found) == 0 {
		return nil, &manifests.NotFoundError{Subject: "image", In: text}
	}
	options := verify.Options{Quick: o.quick, Deep: o.deep, Jobs: a.g.parallel}
	if !given {
		options.Holds = holds(ctx, in)
	}
	if c, ok := doc.file(a, in); ok {
		options.Extra = []verify.Check{c}
	}
	p := a.startProgress("verifying", rootsSize(ctx, in))
	defer p.end()
	options.Progress = p.report()
	doc.Report, err = verify.Run(ctx, in.found[0].Source, in.roots(), options)
	if err == nil && !o.quick {
		err = doc.audit(ctx, in) // last: it spares what was read already
	}
	doc.Seconds = a.now().Sub(start).Seconds()
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	return doc, err
}

// holds lists the blobs of a bundle of which every image is looked at: there
// must be no others.
func holds(ctx context.Context, in *inputs) []digest.Digest {
	bundle, ok := in.container().(*dedupe.Bundle)
	if !ok {
		return nil
	}
	if roots, err := bundle.Roots(ctx); err != nil || len(roots) != len(in.found) {
		return nil
	}
	return bundle.Blobs()
}

// checkBundle is the ID of the check of what a bundle in chunk mode puts layers
// together from.
const checkBundle = "bundle"

// audit adds the check of every segment and recipe of a bundle in chunk mode.
// An error means that they could not be read.
func (d *verifyDoc) audit(ctx context.Context, in *inputs) error {
	b, ok := in.container().(*dedupe.Bundle)
	if !ok || b.Info().Mode != dedupe.ModeChunk {
		return nil
	}
	info := b.Info()
	c := verify.Check{ID: checkBundle, Result: verify.ResultPass, Items: info.Segments, Bytes: info.Contents, Findings: []verify.Finding{},
		Detail: fmt.Sprintf("%s, recipes of %s", count(info.Segments, "segment"), count(info.Open, "layer"))}
	if info.Streams > 0 {
		c.Detail += fmt.Sprintf(" and of %s", count(info.Streams, "compressed blob"))
	}
	for _, err := range joined(b.Audit(ctx)) {
		bad, damaged := errors.AsType[*manifests.ContentError](err)
		if !damaged {
			d.Verdict = verify.Unchecked
			return err
		}
		c.Result, d.Verdict = verify.ResultFail, verify.Fail
		c.Findings = append(c.Findings, verify.Finding{Kind: bad.Kind, Subject: bad.Subject, Message: bad.Err.Error()})
	}
	after := slices.IndexFunc(d.Checks, func(c verify.Check) bool { return c.ID == verify.CheckFile })
	d.Checks = slices.Insert(d.Checks, after+1, c)
	return nil
}

// joined takes errors apart that were joined; none is none.
func joined(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// file describes the container that was opened, where there is one.
func (d *verifyDoc) file(a *app, in *inputs) (verify.Check, bool) {
	switch src := in.container().(type) {
	case *dedupe.Bundle:
		info := src.Info()
		d.Subject.Bytes, d.Subject.Digest = info.Size, info.Digest
		detail := fmt.Sprintf("bundle format %d, %s mode, %s, %s, %s", info.Version, info.Mode, a.size(info.Size), count(len(in.found), "image"), count(info.Blobs, "blob"))
		if needs := src.Needs(); needs != nil {
			detail += ", a delta on " + baseNames(basesOf(needs.Bases))
		}
		return verify.FileCheck(detail, info.Blobs, info.Size), true
	case interface{ Format() archive.Format }:
		detail := fmt.Sprintf("%s, %s", src.Format(), count(len(in.found), "image"))
		return verify.FileCheck(detail, len(in.found), 0), true
	}
	return verify.Check{}, false
}

// rootsSize is the number of bytes below the inputs, as far as their
// documents can be read; 0 when they cannot.
func rootsSize(ctx context.Context, in *inputs) int64 {
	g, err := manifests.NewGraph(ctx, in.entries(), 0)
	if err != nil {
		return 0
	}
	return g.Size()
}

func (o *verifyOptions) show(a *app, docs []verifyDoc) error {
	l := listing[verifyDoc]{items: docs,
		name: func(d verifyDoc) string { return string(d.Verdict) },
		human: func() error {
			for i, d := range docs {
				if len(docs) > 1 {
					if err := a.printf("%s%s\n", map[bool]string{true: "\n"}[i > 0], d.Subject.Source); err != nil {
						return err
					}
				}
				if err := d.table(a); err != nil {
					return err
				}
			}
			return nil
		}}
	l.doc = listDoc[verifyDoc]{kind("verify.list"), docs}
	if len(docs) == 1 {
		l.doc = docs[0]
	}
	return show(a, l)
}

// resultWords are results as people read them.
var resultWords = map[verify.Result]string{verify.ResultPass: "ok", verify.ResultWarn: "warn", verify.ResultFail: "FAIL", verify.ResultSkip: "skipped"}

func (d verifyDoc) table(a *app) error {
	t := newTable(column{head: "CHECK"}, column{head: "RESULT"}, column{head: "DETAIL"})
	for _, c := range d.Checks {
		t.add(c.ID, resultWords[c.Result], c.Detail)
		for _, f := range c.Findings {
			word := "FAIL"
			if f.Warn {
				word = "warn"
			}
			text := f.Message
			if f.Subject != "" {
				text = f.Subject + ": " + text
			}
			if f.Image != "" {
				text = f.Image + ": " + text
			}
			t.add("", word, text)
		}
	}
	verdict := string(d.Verdict)
	if d.Verdict == verify.Fail {
		verdict = "FAIL"
	}
	if d.Warnings > 0 {
		verdict += " with " + count(d.Warnings, "warning")
	}
	t.add("verdict", verdict, "")
	return t.write(a.Out, 0, true)
}
