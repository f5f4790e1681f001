package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/sandbox/container"
)

type psOptions struct {
	all, latest bool
	last        int
	filters     []string
}

func (o *psOptions) add(fs *pflag.FlagSet) {
	group(fs, groupOutput, func(fs *pflag.FlagSet) {
		fs.BoolVarP(&o.all, "all", "a", false, "those that do not run too")
		fs.IntVarP(&o.last, "last", "n", -1, "the `N` newest, in any state")
		fs.BoolVarP(&o.latest, "latest", "l", false, "the newest, in any state")
		fs.StringArrayVarP(&o.filters, "filter", "f", nil, "those with `KEY=VALUE`: ancestor, exited, id, name or status (repeatable)")
		fs.Lookup("last").DefValue = "0"
	})
}

func newPsCommand(a *app) *cobra.Command {
	var o psOptions
	return a.command(spec{
		use: "ps [flags]", group: groupContainers, short: "list containers",
		long:     "Templates have docker's names: ID, Image, Command, CreatedAt, RunningFor, State,\nStatus, Names.",
		examples: "imgpack ps\nimgpack ps -aq\nimgpack ps --filter status=exited --filter name=job\nimgpack ps -a --format '{{.Names}}\\t{{.Status}}'",
		run: func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return usagef("ps takes no arguments")
			}
			return o.run(a)
		},
	}, o.add)
}

// psItem is one container of the list. Exported fields and methods are what
// --format templates see; those docker has, have docker's names.
type psItem struct {
	FullID    string     `json:"id"`
	Names     string     `json:"name"`
	Image     string     `json:"image"`
	ImageID   string     `json:"imageId"`
	Manifest  string     `json:"manifest"`
	Platform  string     `json:"platform"`
	Argv      []string   `json:"command"`
	Created   time.Time  `json:"created"`
	State     string     `json:"state"`
	Pid       int        `json:"pid"`
	Started   *time.Time `json:"started"`
	Finished  *time.Time `json:"finished"`
	ExitCode  int        `json:"exitCode"`
	OOMKilled bool       `json:"oomKilled"`
	Error     string     `json:"error,omitempty"`
	LogError  string     `json:"logError,omitempty"`
	LogLost   int64      `json:"logLinesLost,omitempty"`
	Remove    bool       `json:"autoRemove"`
	a         *app
}

func (a *app) psItem(cfg container.Config, st container.State) psItem {
	return psItem{
		FullID: cfg.ID, Names: cfg.Name, Image: cfg.Image, ImageID: cfg.ImageID, Manifest: cfg.Manifest, Platform: cfg.Platform,
		Argv: cfg.Spec.Args, Created: cfg.Created, State: string(st.Status), Pid: st.Pid, Started: orNull(st.Started), Finished: orNull(st.Finished),
		ExitCode: st.ExitCode, OOMKilled: st.OOMKilled, Error: st.Error, LogError: st.LogError, LogLost: st.LogLost, Remove: cfg.Remove, a: a,
	}
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// ID is the container's as docker shows it.
func (i psItem) ID() string {
	if i.a.g.noTrunc {
		return i.FullID
	}
	return container.Short(i.FullID)
}

// maxCommand is how much docker shows of a command.
const maxCommand = 20

// Command is the command in quotation marks, cut as docker does.
func (i psItem) Command() string {
	text := strings.Join(i.Argv, " ")
	if r := []rune(text); !i.a.g.noTrunc && len(r) > maxCommand {
		text = string(r[:maxCommand-3]) + "..." // in ASCII, as tables are
	}
	return `"` + text + `"`
}

// CreatedAt is the time of creation.
func (i psItem) CreatedAt() string { return i.Created.UTC().Format("2006-01-02 15:04:05 -0700 MST") }

// RunningFor is how long ago that was.
func (i psItem) RunningFor() string { return ago(i.a.now(), i.Created) }

// Status is the state in docker's words.
func (i psItem) Status() string {
	now := i.a.now()
	switch container.Status(i.State) {
	case container.Running:
		return "Up " + lasting(since(now, i.Started))
	case container.Paused:
		return "Up " + lasting(since(now, i.Started)) + " (Paused)"
	case container.Exited:
		return fmt.Sprintf("Exited (%d) %s ago", i.ExitCode, lasting(since(now, i.Finished)))
	case container.Dead:
		return "Dead"
	}
	return "Created"
}

func since(now time.Time, t *time.Time) time.Duration {
	if t == nil {
		return 0
	}
	return now.Sub(*t)
}

func (o *psOptions) run(a *app) error {
	filter, err := parsePsFilter(o.filters)
	if err != nil {
		return err
	}
	dir, err := a.containers()
	if err != nil {
		return &failure{Op: "ps", Err: err}
	}
	all, err := dir.List()
	if err != nil {
		return &failure{Op: "ps", Err: err}
	}
	if o.latest {
		o.last = 1
	}
	items := []psItem{}
	for _, c := range all {
		if o.last >= 0 && len(items) == o.last {
			break
		}
		st, err := c.State()
		if is[*container.NotFoundError](err) {
			continue // it was removed just now
		}
		if err != nil {
			return &failure{Op: "ps", Subject: c.Config().Name, Err: err}
		}
		if (o.all || o.last >= 0 || st.Live() || filter.anyState()) && filter.match(c.Config(), st) {
			items = append(items, a.psItem(c.Config(), st))
		}
	}
	return show(a, listing[psItem]{
		doc: listDoc[psItem]{kind("ps"), items}, items: items,
		name:  func(i psItem) string { return i.Names },
		human: func() error { return o.table(a, items) },
		quiet: func() error { return printEach(a, items, psItem.ID) },
	})
}

// table has docker's columns but for the ports, of which there are none.
func (o *psOptions) table(a *app, items []psItem) error {
	t := newTable(
		column{head: "CONTAINER ID"}, column{head: "IMAGE", max: 40}, column{head: "COMMAND", drop: 2},
		column{head: "CREATED", drop: 1}, column{head: "STATUS"}, column{head: "NAMES"},
	)
	for _, i := range items {
		t.add(i.ID(), i.Image, i.Command(), i.RunningFor(), i.Status(), i.Names)
	}
	return t.write(a.Out, a.tableWidth(), true)
}
