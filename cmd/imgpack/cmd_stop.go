package main

import (
	"context"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/sandbox/container"
)

// stopFlags are how to stop a container.
type stopFlags struct {
	signal  signalValue
	timeout graceValue
}

func (o *stopFlags) add(fs *pflag.FlagSet) {
	fs.VarP(&o.signal, "signal", "s", "`SIGNAL` to send (default: the container's, or TERM)")
	fs.VarP(&o.timeout, "timeout", "t", "kill it after so many `SECONDS`; -1: never (default: the container's, or 10)")
	fs.Var(&o.timeout, "time", "the same") // docker's old name
	_ = fs.MarkHidden("time")
}

func (o *stopFlags) options() container.StopOptions {
	return container.StopOptions{Signal: o.signal.sig, Timeout: o.timeout.d}
}

// signalValue is a signal by name or number.
type signalValue struct{ sig syscall.Signal }

func (v *signalValue) Set(s string) (err error) {
	v.sig, err = container.ParseSignal(s)
	return err
}

func (v *signalValue) Type() string { return "signal" }

func (v *signalValue) String() string {
	if v.sig == 0 {
		return ""
	}
	return strconv.Itoa(int(v.sig))
}

// graceValue is docker's number of seconds, -1 for ever, or a time such as 30s.
type graceValue struct{ d *time.Duration }

func (v *graceValue) Set(s string) error {
	d, err := time.ParseDuration(s)
	if n, nerr := strconv.Atoi(s); nerr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err == nil {
		v.d = &d
	}
	return err
}

func (v *graceValue) Type() string { return "seconds" }

func (v *graceValue) String() string {
	if v.d == nil {
		return ""
	}
	return v.d.String()
}

func newStopCommand(a *app) *cobra.Command {
	var o stopFlags
	return a.command(spec{
		use: "stop [flags] CONTAINER...", group: groupContainers, short: "stop containers",
		long:     "Sends the container's stop signal, and kills it when it has not ended in time.\nWhat does not run stays so, and is no error.",
		examples: "imgpack stop web db\nimgpack stop -t 60 db",
		exits:    []int{codePartial, codeNotFound},
		complete: a.completeContainers(false, container.State.Live),
		run: func(ctx context.Context, args []string) error {
			return a.eachContainer(ctx, "stop", args, nameOf, func(ctx context.Context, c *container.Container, _ *doneItem) error {
				return c.Stop(ctx, o.options())
			})
		},
	}, o.add)
}

func newKillCommand(a *app) *cobra.Command {
	sig := signalValue{syscall.SIGKILL}
	return a.command(spec{
		use: "kill [flags] CONTAINER...", group: groupContainers, short: "send containers a signal",
		long:     "SIGKILL ends all processes of a container, any other signal goes to its command.",
		examples: "imgpack kill web\nimgpack kill -s HUP web",
		exits:    []int{codePartial, codeNotFound, codeConflict},
		complete: a.completeContainers(false, container.State.Live),
		also:     true,
		run: func(ctx context.Context, args []string) error {
			return a.eachContainer(ctx, "kill", args, nameOf, func(ctx context.Context, c *container.Container, _ *doneItem) error {
				return c.Kill(ctx, sig.sig)
			})
		},
	}, func(fs *pflag.FlagSet) {
		fs.VarP(&sig, "signal", "s", "`SIGNAL` to send (default: KILL)")
		fs.Lookup("signal").DefValue = ""
	})
}

func newPauseCommand(a *app) *cobra.Command {
	return a.command(spec{
		use: "pause CONTAINER...", group: groupContainers, short: "stop all processes of containers where they stand",
		long:     "It takes a cgroup that can be frozen, which an ordinary user may not have.",
		examples: "imgpack pause db",
		exits:    []int{codePartial, codeNotFound, codeConflict, codeUnsupported},
		complete: a.completeContainers(false, inStatus(container.Running)),
		also:     true,
		run: func(ctx context.Context, args []string) error {
			return a.eachContainer(ctx, "pause", args, nameOf, func(ctx context.Context, c *container.Container, _ *doneItem) error {
				return c.Pause(ctx)
			})
		},
	}, nil)
}

func newUnpauseCommand(a *app) *cobra.Command {
	return a.command(spec{
		use: "unpause CONTAINER...", group: groupContainers, short: "let paused containers go on",
		examples: "imgpack unpause db",
		exits:    []int{codePartial, codeNotFound, codeConflict},
		complete: a.completeContainers(false, inStatus(container.Paused)),
		also:     true,
		run: func(ctx context.Context, args []string) error {
			return a.eachContainer(ctx, "unpause", args, nameOf, func(ctx context.Context, c *container.Container, _ *doneItem) error {
				return c.Resume(ctx)
			})
		},
	}, nil)
}

func inStatus(want container.Status) func(container.State) bool {
	return func(s container.State) bool { return s.Status == want }
}

func newWaitCommand(a *app) *cobra.Command {
	return a.command(spec{
		use: "wait CONTAINER...", group: groupContainers, short: "wait until containers end, and print their exit codes",
		examples: "imgpack wait job",
		exits:    []int{codePartial, codeNotFound},
		complete: a.completeContainers(false, container.State.Live),
		also:     true,
		run: func(ctx context.Context, args []string) error {
			code := func(d doneItem) string { return strconv.Itoa(*d.ExitCode) }
			return a.eachContainer(ctx, "wait", args, code, func(ctx context.Context, c *container.Container, d *doneItem) error {
				st, err := c.Wait(ctx)
				d.ExitCode = &st.ExitCode
				return err
			})
		},
	}, nil)
}

func newStartCommand(a *app) *cobra.Command {
	return a.command(spec{
		use: "start CONTAINER...", group: groupContainers, short: "start containers again, with what they have written",
		long:     "They run detached. What runs already is no error.",
		examples: "imgpack start db",
		exits:    []int{codePartial, codeNotFound, codeUnsupported, codeRun, codeNotRunnable, codeNoCommand},
		complete: a.completeContainers(false, func(s container.State) bool { return !s.Live() }),
		also:     true,
		run: func(ctx context.Context, args []string) error {
			if done, err := a.enterIDs(ctx, "start", args); done || err != nil {
				return err
			}
			return a.eachContainer(ctx, "start", args, nameOf, func(ctx context.Context, c *container.Container, _ *doneItem) error {
				return a.startAgainDetached(ctx, c)
			})
		},
	}, nil)
}

// startAgainDetached starts a container that is there, unless it runs.
func (a *app) startAgainDetached(ctx context.Context, c *container.Container) error {
	if err := a.checkIDs(c); err != nil {
		return err
	}
	err := c.Start(ctx, nil)
	if st, ok := asState(err); ok && st.Status == container.Running {
		return nil
	}
	return err
}

func newRestartCommand(a *app) *cobra.Command {
	var o stopFlags
	return a.command(spec{
		use: "restart [flags] CONTAINER...", group: groupContainers, short: "stop containers and start them again",
		examples: "imgpack restart web",
		exits:    []int{codePartial, codeNotFound, codeUnsupported, codeRun, codeNotRunnable, codeNoCommand},
		complete: a.completeContainers(false, nil),
		also:     true,
		run: func(ctx context.Context, args []string) error {
			if done, err := a.enterIDs(ctx, "restart", args); done || err != nil {
				return err
			}
			return a.eachContainer(ctx, "restart", args, nameOf, func(ctx context.Context, c *container.Container, _ *doneItem) error {
				if err := a.checkIDs(c); err != nil {
					return err
				}
				if err := c.Stop(ctx, o.options()); err != nil {
					return err
				}
				return a.startAgainDetached(ctx, c)
			})
		},
	}, o.add)
}
