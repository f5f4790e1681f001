package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

type pullOptions struct {
	platform platformFlag
	registry registryFlags
}

func (o *pullOptions) add(fs *pflag.FlagSet) {
	o.platform.add(fs, "`LIST` of os/arch[/variant], local, all (default: local)")
	o.registry.add(fs)
}

func newPullCommand(a *app) *cobra.Command {
	var o pullOptions
	return a.command(spec{
		use: "pull [flags] SOURCE...", group: groupExchange, short: "bring images from a registry into the store",
		examples: "imgpack pull nginx:1.27 redis:7.4\n" +
			"imgpack pull --platform all quay.io/prometheus/node-exporter:v1.8.2",
		exits:    []int{codeNo, codeNotFound, codeDenied, codeUnreachable, codeNoSpace},
		complete: a.completeImages,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

func (o *pullOptions) run(ctx context.Context, a *app, args []string) error {
	if len(args) == 0 {
		return usagef("pull needs at least one SOURCE")
	}
	policy := sourcePolicy{platform: o.platform, registry: &o.registry, registryFirst: true}
	in, err := a.openChosen(ctx, args, policy)
	if err != nil {
		return &failure{Op: "pull", Subject: args[0], Err: err}
	}
	defer in.Close()
	// A pull asks what the tag names now: moving it is what it is for.
	return a.addToStore(ctx, in, adding{op: "pull", doing: "pulling", force: true, say: sayPulled})
}

// sayPulled prints docker's words.
func sayPulled(a *app, r addedRow) error {
	status := "Downloaded newer image for"
	if r.Previous == r.Digest {
		status = "Image is up to date for"
	}
	return a.printf("Digest: %s\nStatus: %s %s\n%s\n", r.Digest, status, r.root.Name.Familiar(), r.Ref)
}
