package main

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/sandbox/container"
	"github.com/imgpack/imgpack/unpack"
)

type exportOptions struct {
	output   string
	force    bool
	paths    []string
	blob     string
	platform platformFlag
	bases    baseFlags
	limits   limitsFlag
}

func (o *exportOptions) add(fs *pflag.FlagSet) {
	o.platform.add(fs, "`OS/ARCH`[/VARIANT] (default: local)")
	o.bases.add(fs)
	group(fs, groupOutput, func(fs *pflag.FlagSet) {
		fs.StringVarP(&o.output, "output", "o", "", "`FILE` to write; default and -: standard output")
		fs.StringArrayVar(&o.paths, "path", nil, "only what `GLOB` matches, and all below it; * and ? match no slash, ** does (repeatable)")
		fs.StringVar(&o.blob, "blob", "", "not the files, but the one blob with `DIGEST`, or with digits that begin it")
		fs.BoolVar(&o.force, "force", false, "replace FILE")
	})
	o.limits.add(fs)
}

func newExportCommand(a *app) *cobra.Command {
	var o exportOptions
	return a.command(spec{
		use: "export [flags] [-o FILE] IMAGE|CONTAINER\nexport [flags] [-o FILE] --blob DIGEST SOURCE", group: groupUse, short: "write an image's or container's files as tar, or a blob",
		long: "The tar holds the merged tree with owners, times, attributes, hard links, devices\nand holes as the image has them, whoever runs it; nothing is unpacked to disk.\n" +
			"Directories come last, so that what extracts it leaves their times as they are.\nDigests and diff IDs are checked on the way, those of a blob at its end.\n\nA word that is a container's name or ID is that container: the tar has the image's\nfiles and what was written over them, with the image's owners, devices and\nattributes. It is paused meanwhile. store:NAME is the image.",
		examples: "imgpack export nginx:1.27 | tar -x -p --xattrs -C rootfs\n" +
			"imgpack export --path /etc/passwd --path '/etc/nginx/**' nginx:1.27 -o etc.tar\n" +
			"imgpack export web -o web.tar\n" +
			"imgpack export --blob sha256:e0781bc8667f site.imgpack -o layer.tar.gz",
		exits:    []int{codeNo, codeNotFound, codeNoSpace, codeConflict},
		complete: a.completeSourceOrContainer,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

type exportDoc struct {
	envelope
	Ref       string        `json:"ref,omitempty"`       // of the image; none for a blob
	Digest    digest.Digest `json:"digest"`              // of the image, or of the blob
	Container string        `json:"container,omitempty"` // its ID
	Paths     []string      `json:"paths"`
	Output    outputDoc     `json:"output"`
	Entries   int           `json:"entries"` // of the tar; 0 for a blob
	Files     int           `json:"files"`
	Bytes     int64         `json:"bytes"` // of the files, or of the blob
	Seconds   float64       `json:"seconds"`
}

func (o *exportOptions) run(ctx context.Context, a *app, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	c, err := o.findContainer(a, args[0])
	if err != nil {
		return err
	}
	if c != nil {
		if done, err := a.enterToRead(ctx, "export", args[0]); done || err != nil {
			return err
		}
	}
	start := a.now()
	out, err := a.openSink(o.output, o.force)
	if err != nil {
		return err
	}
	doc := exportDoc{envelope: kind("export"), Paths: append([]string{}, o.paths...), Output: outputDoc{Path: o.output}}
	what := printable(args[0])
	switch {
	case o.blob != "":
		err = o.exportBlob(ctx, a, args[0], out, &doc)
		what = "blob " + printable(o.blob)
	case c != nil:
		err = o.exportContainer(ctx, a, c, out, &doc)
	default:
		err = o.exportTree(ctx, a, args[0], out, &doc)
	}
	if err != nil {
		return &failure{Op: "export", Subject: args[0], Message: "cannot export " + what + " to " + quote.Clean(out.path), Kept: out.kept(), Hint: limitHint(err), Err: err}
	}
	doc.Seconds = a.now().Sub(start).Seconds()
	return o.show(a, out, doc)
}

func (o *exportOptions) check(args []string) error {
	if len(args) != 1 {
		return usagef("export takes one IMAGE, or with --blob one SOURCE")
	}
	if o.blob != "" && len(o.paths) > 0 {
		return usagef("--path and --blob exclude each other")
	}
	for _, p := range o.paths {
		if err := unpack.CheckGlob(p); err != nil {
			return err
		}
	}
	return nil
}

func (o *exportOptions) exportTree(ctx context.Context, a *app, text string, out *sink, doc *exportDoc) error {
	img, f, in, err := a.openImage(ctx, text, sourcePolicy{platform: o.platform, bases: o.bases, beside: o.output})
	if err != nil {
		return err
	}
	defer in.Close()
	doc.Ref, doc.Digest = refOf(f.Root), img.Descriptor.Digest
	p := a.startProgress("reading", img.Size())
	defer p.end()
	bounds := o.limits.options(unpack.Options{})
	tree, err := unpack.ReadTree(ctx, f.Source, img, unpack.TreeOptions{Jobs: a.g.parallel, Progress: p.report(), Limits: bounds.Limits, Window: bounds.Window, Memory: bounds.Memory, Keep: o.paths})
	if err != nil {
		return err
	}
	p.next("exporting", 0)
	return out.writeStream(ctx, o.force, &doc.Output.Bytes, func(w io.Writer) error {
		res, err := tree.WriteTar(ctx, w, unpack.TarOptions{Paths: o.paths, Progress: p.report()})
		if err == nil {
			doc.Entries, doc.Files, doc.Bytes = res.Entries, res.Files, res.Bytes
		}
		return err
	})
}

func (o *exportOptions) exportBlob(ctx context.Context, a *app, text string, out *sink, doc *exportDoc) error {
	in, err := a.openInputs(ctx, []string{text}, sourcePolicy{platform: o.platform, bases: o.bases, beside: o.output})
	if err != nil {
		return err
	}
	defer in.Close()
	graph, err := manifests.NewGraph(ctx, in.entries(), a.g.parallel)
	if err != nil {
		return err
	}
	desc, err := findBlob(graph, o.blob, text)
	if err != nil {
		return err
	}
	doc.Digest, doc.Bytes = desc.Digest, desc.Size
	p := a.startProgress("exporting", desc.Size)
	defer p.end()
	return out.writeStream(ctx, o.force, &doc.Output.Bytes, func(w io.Writer) error {
		r, err := graph.Fetch(ctx, desc)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(w, manifests.Progress(p.report()).Watch(r, desc)) // its EOF proves the digest
		return err
	})
}

// show is silent but for --json, as save is, and a note.
func (o *exportOptions) show(a *app, out *sink, d exportDoc) error {
	if out.toStdout() || a.g.format == "table" {
		what := count(d.Files, "file")
		if o.blob != "" {
			what = "blob " + a.short(string(d.Digest))
		}
		a.note("exported %s to %s: %s, %s", what, quote.Clean(out.path), a.size(d.Output.Bytes), secondsText(d.Seconds))
		return nil
	}
	return show(a, listing[exportDoc]{doc: d, items: []exportDoc{d}, name: func(d exportDoc) string { return d.Output.Path }, human: nothing})
}

// findContainer finds the container that the argument names; nil for none.
func (o *exportOptions) findContainer(a *app, text string) (*container.Container, error) {
	if o.blob != "" {
		return nil, nil
	}
	c, err := a.namedContainer(text)
	if err != nil {
		return nil, a.containerFailure("export", text, err)
	}
	return c, nil
}

// exportContainer writes what a container sees.
func (o *exportOptions) exportContainer(ctx context.Context, a *app, c *container.Container, out *sink, doc *exportDoc) (err error) {
	cfg := c.Config()
	doc.Container, doc.Ref, doc.Digest = cfg.ID, quote.Clean(cfg.Image), digest.Digest(cfg.Manifest)
	resume, err := a.pause(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resume()) }()
	changes, err := a.openChanges(ctx, c, unpack.ChangesOptions{})
	if err != nil {
		return err
	}
	defer changes.Close()
	p := a.startProgress("exporting", 0)
	defer p.end()
	return out.writeStream(ctx, o.force, &doc.Output.Bytes, func(w io.Writer) error {
		res, err := changes.WriteTar(ctx, w, unpack.TarOptions{Paths: o.paths})
		if err == nil {
			doc.Entries, doc.Files, doc.Bytes = res.Entries, res.Files, res.Bytes
			a.noteLeftOut(leftOut(res.Skipped))
		}
		return err
	})
}

// writeStream writes what can only be written in order, counting it.
func (s *sink) writeStream(ctx context.Context, replace bool, n *int64, write func(io.Writer) error) error {
	stream := func(_ context.Context, w io.Writer) error { return write(&countedWriter{w, n}) }
	return s.write(ctx, writer{stream: stream, file: toFile(replace, stream)})
}

type countedWriter struct {
	io.Writer
	n *int64
}

func (c *countedWriter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	*c.n += int64(n)
	return n, err
}
