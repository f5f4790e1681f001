package main

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/sandbox/container"
)

type logsOptions struct {
	follow, stamps     bool
	tail, since, until string
}

func (o *logsOptions) add(fs *pflag.FlagSet) {
	fs.BoolVarP(&o.follow, "follow", "f", false, "go on with what comes, until the container ends")
	fs.StringVarP(&o.tail, "tail", "n", "all", "the last `N` lines only")
	fs.BoolVarP(&o.stamps, "timestamps", "t", false, "the time before each line")
	fs.StringVar(&o.since, "since", "", "from `TIME` on: 2026-01-02T13:23:37Z, or 42m for so long ago")
	fs.StringVar(&o.until, "until", "", "up to `TIME`")
}

func newLogsCommand(a *app) *cobra.Command {
	var o logsOptions
	return a.command(spec{
		use: "logs [flags] CONTAINER", group: groupContainers, short: "print what a container has said",
		long:     "On standard output and standard error, as the container wrote it, control\ncharacters too. The newest 16 to 32 MiB are kept, through restarts. --json prints\nan object a line, with stream and time.",
		examples: "imgpack logs web\nimgpack logs -f --tail 20 web\nimgpack logs -t --since 10m db",
		exits:    []int{codeNotFound},
		complete: a.completeContainers(true, nil),
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

func (o *logsOptions) run(ctx context.Context, a *app, args []string) error {
	if len(args) != 1 {
		return usagef("logs takes one CONTAINER")
	}
	lo := container.LogOptions{Follow: o.follow, Timestamps: o.stamps}
	if o.tail != "all" {
		n, err := strconv.Atoi(o.tail)
		if err != nil {
			return usagef("--tail is a number or all, not %q", o.tail)
		}
		if lo.Tail = n; n == 0 {
			lo.Tail = -1
		} else if n < 0 {
			lo.Tail = 0 // docker's all
		}
	}
	var err error
	if lo.Since, err = parseWhen("--since", o.since, a.now()); err != nil {
		return err
	}
	if lo.Until, err = parseWhen("--until", o.until, a.now()); err != nil {
		return err
	}
	out := a.Out
	switch a.g.format {
	case "table":
	case "json", "jsonl":
		lo.JSON, out = true, plainWriter{a.Out}
	default:
		return usagef("logs has no format but json: one object per line")
	}
	c, err := a.findContainer(args[0])
	if err == nil {
		err = c.Logs(ctx, out, a.Err, lo)
	}
	if err != nil {
		return a.containerFailure("logs", args[0], err)
	}
	return nil
}

// plainWriter makes JSON safe to print.
type plainWriter struct{ w io.Writer }

func (p plainWriter) Write(b []byte) (int, error) {
	_, err := p.w.Write(plainJSON(b))
	return len(b), err
}

// whenForms are those of docker's times that Go has no name for; without a zone
// they are local.
var whenForms = []string{"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"}

// parseWhen reads a time as docker does: RFC 3339 or less of it, seconds since
// 1970, or how long ago.
func parseWhen(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	for _, form := range whenForms {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return t, nil
		}
	}
	seconds, fraction, _ := strings.Cut(text, ".")
	s, err := strconv.ParseInt(seconds, 10, 64)
	ns, ferr := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	if err != nil || ferr != nil {
		return time.Time{}, usagef("%s is a time such as 2026-01-02T13:23:37Z, or 42m for so long ago, not %q", flag, text)
	}
	return time.Unix(s, int64(ns)), nil
}
