package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/sandbox/container"
)

type rmOptions struct{ force bool }

func (o *rmOptions) add(fs *pflag.FlagSet) {
	group(fs, groupSafety, func(fs *pflag.FlagSet) {
		fs.BoolVarP(&o.force, "force", "f", false, "kill what runs, and let a name be missing")
	})
}

func newRmCommand(a *app) *cobra.Command {
	var o rmOptions
	return a.command(spec{
		use: "rm [flags] CONTAINER...", group: groupContainers, short: "remove containers",
		long:     "Removes what the containers have written and said. Their images stay.",
		examples: "imgpack rm web\nimgpack rm -f $(imgpack ps -aq)",
		exits:    []int{codePartial, codeNotFound, codeConflict},
		complete: a.completeContainers(false, nil),
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

func (o *rmOptions) run(ctx context.Context, a *app, args []string) error {
	if done, err := a.enterIDs(ctx, "rm", args); done || err != nil {
		return err
	}
	if o.force {
		kept, err := o.present(a, args)
		if err != nil || len(kept) == 0 && len(args) > 0 {
			return err
		}
		args = kept
	}
	return a.eachContainer(ctx, "rm", args, nameOf, func(ctx context.Context, c *container.Container, _ *doneItem) error {
		err := c.Remove(ctx, o.force)
		if is[*container.StateError](err) {
			return &failure{Hint: "imgpack stop " + c.Config().Name + ", or rm -f", Err: err}
		}
		if codeOf(err) == codeDenied && c.Config().IDs != a.idsHere() {
			return &failure{Hint: "its files have owners that /etc/subuid or /etc/subgid no longer gives to you; root can remove it", Err: err}
		}
		return err
	})
}

// present leaves out names that no container has: with docker's rm -f that is
// said, and no failure.
func (o *rmOptions) present(a *app, args []string) (kept []string, err error) {
	dir, err := a.containers()
	if err != nil {
		return nil, &failure{Op: "rm", Err: err}
	}
	for _, name := range args {
		_, err := dir.Find(name)
		if missing, ok := errors.AsType[*container.NotFoundError](err); ok {
			fmt.Fprintf(a.Err, "%s\n", printable(missing.Error()))
			continue
		}
		kept = append(kept, name)
	}
	return kept, nil
}
