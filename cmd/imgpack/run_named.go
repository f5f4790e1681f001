package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/sandbox"
	"github.com/imgpack/imgpack/sandbox/container"
)

// keepFlags make of a run a container that is kept.
type keepFlags struct {
	detach, remove bool
	name           string
	signal         signalValue
	timeout        graceValue
}

func (o *keepFlags) add(fs *pflag.FlagSet) {
	fs.BoolVarP(&o.detach, "detach", "d", false, "run it in the background, and print its ID")
	fs.StringVar(&o.name, "name", "", "keep it as a container of this `NAME`")
	fs.BoolVar(&o.remove, "rm", false, "remove the container when it ends; without -d and --name nothing is ever kept")
	fs.Var(&o.signal, "stop-signal", "`SIGNAL` that stop sends (default: the image's, or TERM)")
	fs.Var(&o.timeout, "stop-timeout", "stop kills it after so many `SECONDS`; -1: never (default: 10)")
}

// check finds what cannot be had before anything is unpacked.
func (o *keepFlags) check(timeout time.Duration) error {
	if o.detach && timeout > 0 {
		return usagef("--timeout and --detach exclude each other").hint("imgpack stop ends a container")
	}
	return nil
}

// newID makes an ID where a container is wanted. As with docker, its beginning
// is the host name where none is given.
func (o *keepFlags) newID(spec *sandbox.Spec) string {
	if !o.detach && o.name == "" {
		return ""
	}
	id := container.NewID()
	if spec.Hostname == "" {
		spec.Hostname = container.Short(id)
	}
	return id
}

// config is what the container is made of.
func (o *keepFlags) config(a *app, id string, spec sandbox.Spec, img *manifests.Image, f found, subject string, interactive bool) container.Config {
	cfg := container.Config{
		ID: id, Name: o.name, Image: quote.Clean(subject), ImageID: string(img.ID()),
		Manifest: string(img.Descriptor.Digest), Root: string(f.Root.Descriptor.Digest),
		Platform: manifests.FormatPlatform(img.Platform()), IDs: a.idsHere(),
		Spec: spec, StopSignal: o.signal.sig, StopTimeout: o.timeout.d, OpenStdin: interactive, Remove: o.remove,
	}
	for _, l := range img.Layers {
		cfg.DiffIDs = append(cfg.DiffIDs, string(l.DiffID))
	}
	if text := img.Config.Config.StopSignal; cfg.StopSignal == 0 && text != "" {
		sig, err := container.ParseSignal(text)
		if err != nil {
			a.note("note: the image's stop signal %s is none; TERM is sent", quote.Text(text))
		}
		cfg.StopSignal = sig
	}
	return cfg
}

// startKept makes the container and runs it, in the foreground or detached.
func (o *runOptions) startKept(ctx context.Context, a *app, cfg container.Config, img *manifests.Image, subject string) error {
	dir, err := a.containers()
	if err != nil {
		return &failure{Op: "run", Subject: subject, Err: err}
	}
	spec := cfg.Spec
	c, err := dir.Create(ctx, cfg)
	if err != nil {
		f := &failure{Op: "run", Subject: subject, Err: err}
		if is[*container.NameTakenError](err) {
			f.Hint = "imgpack rm " + cfg.Name + " removes the other; imgpack start " + cfg.Name + " starts it again"
		}
		return f
	}
	if !o.keep.detach {
		return o.start(ctx, a, spec, img, subject, func(ctx context.Context, s sandbox.Spec) (sandbox.Status, error) {
			return c.Run(ctx, container.IO{Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, Signals: s.Signals, Explain: s.Explain})
		})
	}
	if err := c.Start(ctx, spec.Explain); err != nil {
		return runFailure(err, img, subject)
	}
	return show(a, listing[runDoc]{
		doc: runDoc{kind("run"), c.Config().ID, c.Config().Name}, items: []runDoc{{kind("run"), c.Config().ID, c.Config().Name}},
		name:  func(d runDoc) string { return d.ID },
		human: func() error { return a.printf("%s\n", c.Config().ID) },
	})
}

type runDoc struct {
	envelope
	ID   string `json:"id"`
	Name string `json:"name"`
}

func asState(err error) (*container.StateError, bool) {
	return errors.AsType[*container.StateError](err)
}

func asStart(err error) (*sandbox.StartError, bool) { return errors.AsType[*sandbox.StartError](err) }
