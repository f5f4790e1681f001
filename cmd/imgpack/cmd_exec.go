package main

import (
	"context"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/sandbox"
	"github.com/imgpack/imgpack/sandbox/container"
)

type execOptions struct {
	process
	streams streamFlags
	detach  bool
}

func (o *execOptions) add(fs *pflag.FlagSet) {
	fs.SetInterspersed(false)
	group(fs, groupProcess, func(fs *pflag.FlagSet) {
		o.streams.add(fs)
		fs.BoolVarP(&o.detach, "detach", "d", false, "leave it running; what it says is not kept")
		fs.StringArrayVarP(&o.env, "env", "e", nil, "set `NAME=VALUE`, or NAME as it is here")
		fs.StringArrayVar(&o.envFiles, "env-file", nil, "set what `FILE` lists, one a line")
		fs.StringVarP(&o.workdir, "workdir", "w", "", "start in `DIR`")
		fs.StringVarP(&o.user, "user", "u", "", "run as `USER`[:GROUP], names or numbers")
	})
}

func newExecCommand(a *app) *cobra.Command {
	var o execOptions
	return a.command(spec{
		use: "exec [flags] CONTAINER COMMAND [ARG...]", group: groupContainers, short: "run one more command in a running container",
		long:     "With the container's environment, user and directory unless told otherwise. The\nexit status is the command's. When imgpack exec is killed, so is the command, but\nfor one that is detached.",
		examples: "imgpack exec db psql -c 'select 1'\nimgpack exec -it web sh",
		exits:    []int{codeRun, codeNotRunnable, codeNoCommand},
		complete: a.completeContainers(true, inStatus(container.Running)),
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

func (o *execOptions) run(ctx context.Context, a *app, args []string) error {
	if len(args) < 2 {
		return usagef("exec needs a CONTAINER and a COMMAND")
	}
	if o.workdir != "" && o.workdir[0] != '/' {
		return usagef("the working directory %s is not absolute", quote.Text(o.workdir))
	}
	if o.detach && o.streams.interactive {
		return usagef("--detach and --interactive exclude each other")
	}
	own, err := o.environment(a)
	if err != nil {
		return err
	}
	c, err := a.findContainer(args[0])
	if err != nil {
		return a.containerFailure("exec", args[0], err)
	}
	e := sandbox.ExecSpec{Args: args[1:], User: o.user, Cwd: o.workdir, Terminal: o.streams.tty}
	if len(own) > 0 {
		e.Env = slices.Concat(c.Config().Spec.Env, own)
	}
	if o.detach {
		if err := c.ExecDetached(ctx, e); err != nil {
			return a.containerFailure("exec", args[0], err)
		}
		return nil
	}
	if e.Stdin, err = o.streams.input(a); err != nil {
		return err
	}
	e.Stdout, _ = a.Out.(*os.File)
	e.Stderr, _ = a.Err.(*os.File)
	e.Signals = a.signals.handOver()
	if o.streams.tty {
		var cancel context.CancelFunc
		ctx, e.Signals, cancel = insist(ctx, e.Signals)
		defer cancel()
	}
	st, err := c.Exec(ctx, e)
	if err != nil {
		return a.containerFailure("exec", args[0], err)
	}
	if st.OutOfMemory {
		a.note("note: processes of %s were killed for want of memory", printable(args[0]))
	}
	if st.Code != 0 {
		return exitStatus(st.Code)
	}
	return nil
}
